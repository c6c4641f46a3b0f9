//! Forms, as front ends of a master read them; against the parser that URLs are read with.

use kvdb_master::front::form::parse;

/// More than any input has.
const MOST: usize = 1 << 20;

pub(crate) fn check(data: &[u8]) -> bool {
    let pairs = parse(data, MOST).unwrap();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ours: Vec<(String, String)> = pairs.iter().map(|(name, value)| (lossy(name), lossy(value))).collect();
    let theirs: Vec<(String, String)> = form_urlencoded::parse(data).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    assert_eq!(ours, theirs);
    let form = pairs.iter().map(|(name, value)| format!("{}={}", written(name), written(value))).collect::<Vec<_>>().join("&");
    assert_eq!(parse(form.as_bytes(), MOST).unwrap(), pairs, "{form}");
    if let Some(fewer) = pairs.len().checked_sub(1) {
        assert_eq!(parse(data, fewer).unwrap_err().status, 413);
        assert_eq!(parse(data, pairs.len()).unwrap().len(), pairs.len());
    }
    !pairs.is_empty()
}

fn written(bytes: &[u8]) -> String {
    form_urlencoded::byte_serialize(bytes).collect()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut all = form_urlencoded::Serializer::new(String::new());
    all.append_pair("foo", "bar").append_pair("sn\u{f6} & = +", "\u{1f600}\n%").append_pair("", "x").append_key_only("k");
    let form = all.finish();
    [form.as_str(), "key=foo&key=bar", "a+b=%ff%00&&%zz=%4&=&c", "k=A,B,C&auth=kvdb_x"].map(|s| s.as_bytes().to_vec()).to_vec()
}
