//! Forms in parts, as kvs' front end of a master reads them.

use futures_util::FutureExt;
use kvdb_master::front::form::Pair;
use kvdb_master::front::multipart;
use kvdb_protocol::Problem;

const BOUNDARY: &str = "xYz";
/// More than any input has.
const MOST: usize = 1 << 20;

fn read(form: &[u8], most: usize) -> Result<Vec<Pair>, Problem> {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    // All of it is there, so there is nothing to wait for.
    multipart::parse(&content_type, form.to_vec().into(), most).now_or_never().expect("it waits for nothing")
}

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(pairs) = read(data, MOST) else { return false };
    let bytes: usize = pairs.iter().map(|(_, value)| value.len()).sum();
    assert!(bytes <= data.len(), "more is read than was there");
    if let Some(fewer) = pairs.len().checked_sub(1) {
        assert_eq!(read(data, fewer).unwrap_err().status, 413);
    }
    // Names that a header carries as they are come back as they went; contents always do.
    let plain = |name: &[u8]| !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric());
    let named: Vec<Pair> = pairs.into_iter().filter(|(name, _)| plain(name)).collect();
    let inside = |value: &[u8]| value.windows(BOUNDARY.len()).any(|w| w == BOUNDARY.as_bytes());
    if !named.is_empty() && !named.iter().any(|(_, value)| inside(value)) {
        assert_eq!(read(&written(&named), MOST).unwrap(), named);
    }
    true
}

fn written(pairs: &[Pair]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in pairs {
        form.extend_from_slice(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"").as_bytes());
        form.extend_from_slice(name);
        form.extend_from_slice(b"\"\r\n\r\n");
        form.extend_from_slice(value);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    form
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let file = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"a/b c\"; filename=\"f\"\r\nContent-Type: image/png\r\n\r\n\u{1}\r\n--{BOUNDARY}--\r\n"
    );
    vec![written(&[pair("key", b"value"), pair("auth", b"kvdb_x")]), written(&[pair("k", b"\0\xff\r\n--x")]), file.into_bytes()]
}
