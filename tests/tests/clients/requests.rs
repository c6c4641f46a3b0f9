//! Python's requests: it sends no `Expect`, follows redirects by default, and turns a 302 on POST into GET.

use kvdb_tests::Cluster;
use kvdb_tests::outside::{self, requests_is_here};

/// Runs lines of Python, in which `url` is the master's and every helper is there, unless it cannot be run and need not.
#[track_caller]
fn python(lines: &str) {
    if requests_is_here() {
        let cluster = Cluster::start(2);
        outside::python(cluster.dir(), &format!("{PRELUDE}\n{lines}"), &[&cluster.url()]);
    }
}

const PRELUDE: &str = r#"
import hashlib, io, requests, sys
url = sys.argv[1]

def made(length, seed=1):
    return hashlib.shake_128(str(seed).encode()).digest(length)

def same(found, expected):
    assert len(found) == len(expected), (len(found), len(expected))
    assert found == expected, "bytes differ"

def status(answer, expected):
    assert answer.status_code == expected, (answer.status_code, answer.url, answer.text[:500])
    return answer
"#;

#[test]
fn post_put_get_and_delete_work_with_redirects_followed_by_default() {
    python(
        r#"
status(requests.post(url + "/k", data=b"one"), 201)
status(requests.post(url + "/k", data=b"two"), 409)
same(status(requests.get(url + "/k"), 200).content, b"one")
status(requests.put(url + "/k", data=b"three"), 200)
same(requests.get(url + "/k").content, b"three")
status(requests.head(url + "/k", allow_redirects=True), 200)
answer = status(requests.get(url + "/k", headers={"Range": "bytes=1-2"}), 206)
same(answer.content, b"hr")
assert requests.get(url + "/?list").json() == {"next": "", "keys": ["k"]}
status(requests.delete(url + "/k"), 200)
status(requests.get(url + "/k"), 404)
status(requests.delete(url + "/k"), 404)
problem = requests.get(url + "/k").json()
assert problem["code"] == "not_found" and problem["retry"] is False, problem
"#,
    );
}

#[test]
fn a_file_object_of_100_mib_is_stored_and_streamed_back() {
    python(
        r#"
data = made(100 << 20)
with open("big", "wb") as f:
    f.write(data)
with open("big", "rb") as f:
    status(requests.put(url + "/big", data=f), 201)
found = hashlib.sha256()
with status(requests.get(url + "/big", stream=True), 200) as answer:
    for part in answer.iter_content(1 << 20):
        found.update(part)
assert found.digest() == hashlib.sha256(data).digest()
with open("big", "rb") as f:
    status(requests.post(url + "/big", data=f), 409)
status(requests.delete(url + "/big"), 200)
with open("big", "rb") as f:
    status(requests.post(url + "/big", data=f), 201)
"#,
    );
}

#[test]
fn generators_which_cannot_be_sent_twice_are_stored_whole() {
    python(
        r#"
def parts(data, size=10000):
    for i in range(0, len(data), size):
        yield data[i:i + size]

for n, length in enumerate([1, 5, 9999, 60000, 65536, 65537, 200000, 5 << 20]):
    key = url + "/generated%d" % n
    data = made(length, n)
    status(requests.put(key, data=parts(data)), 201)
    same(requests.get(key).content, data)
"#,
    );
}

#[test]
fn one_session_serves_many_requests_of_all_sizes() {
    python(
        r#"
with requests.Session() as session:
    for round in range(3):
        for length in [0, 1, 65535, 65536, 65537, 262144, 1 << 20, (5 << 20) + 3]:
            data = made(length, round)
            status(session.put(url + "/k%d" % length, data=data), 201 if round == 0 else 200)
            same(status(session.get(url + "/k%d" % length), 200).content, data)
    keys = session.get(url + "/?list").json()["keys"]
    assert len(keys) == 8, keys
    for key in keys:
        status(session.delete(url + "/" + key), 200)
    assert session.get(url + "/?list").json()["keys"] == []
"#,
    );
}

#[test]
fn headers_forms_and_keys_of_all_kinds_pass() {
    python(
        r#"
from urllib.parse import quote, unquote_to_bytes
status(requests.put(url + "/typed", data=b"{}", headers={"Content-Type": "application/json"}), 201)
assert requests.get(url + "/typed").headers["Content-Type"] == "application/json"
etag = requests.get(url + "/typed").headers["ETag"]
status(requests.get(url + "/typed", headers={"If-None-Match": etag}), 304)
status(requests.put(url + "/typed", data=b"x", headers={"If-None-Match": "*"}), 412)
status(requests.put(url + "/typed", data=b"[]", headers={"If-Match": etag}), 200)
status(requests.delete(url + "/typed"), 200)

keys = [b"\xff\x00", "sn\u00f6".encode(), b"a b+c&d=e?f#g%h", b"x/y//z/"]
for key in keys:
    status(requests.put(url + "/" + quote(key), data=key), 201)
    same(requests.get(url + "/" + quote(key)).content, key)
found = [unquote_to_bytes(k) for k in requests.get(url + "/?list").json()["keys"]]
assert found == sorted(keys), found
"#,
    );
}

#[test]
fn pages_of_a_list_can_be_followed_as_the_documentation_says() {
    python(
        r#"
names = ["p/%03d" % i for i in range(25)]
for name in names:
    status(requests.put(url + "/" + name, data=b"v"), 201)
found, start = [], ""
while True:
    page = requests.get(url + "/p/", params={"list": "", "limit": 10, "start": start}).json()
    found += page["keys"]
    start = page["next"]
    if not start:
        break
assert found == names, found
"#,
    );
}
