//! The program as a user types it, against servers that do what the test says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

#[path = "../../client/tests/common/mod.rs"]
mod common;

use common::{Conn, Fake, pattern};
use kvdb_client::{ContentHash, ErrorCode};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

fn kvdb(master: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvdb"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["KVDB_TOKEN", "KVDB_RETRIES", "PORT", "http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("KVDB_MASTER", master);
    command
}

fn run(master: &str, args: &[&str]) -> Output {
    kvdb(master, args).output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Master and volume in one: keeps nothing but answers as both.
fn cluster(volume: impl Fn(&mut Conn) + Send + Sync + 'static) -> Fake {
    let at_volume = |c: &Conn| c.seen.target.contains("ticket=") || c.seen.target.contains("v=");
    Fake::start(move |c| {
        if at_volume(c) {
            return volume(c);
        }
        let to = format!("http://{}{}", c.seen.header("host").unwrap(), c.seen.target);
        match c.seen.method.as_str() {
            "GET" | "HEAD" => c.redirect(302, &format!("{to}?v=1")),
            _ => c.redirect(307, &format!("{to}?ticket=t")),
        }
    })
}

fn takes(c: &mut Conn) {
    let body = c.body();
    c.stored(201, &body);
}

#[test]
fn a_file_and_standard_input_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, b"from a file").unwrap();
    let fake = cluster(takes);
    let out = run(&fake.host, &["put", "k", path.to_str().unwrap(), "--json"]);
    assert_eq!(code(&out), Some(0), "{}", text(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((json["created"].as_bool(), json["len"].as_u64()), (Some(true), Some(11)));
    assert_eq!(json["etag"], ContentHash::of(b"from a file").to_hex());
    assert_eq!(fake.log()[1].body, b"from a file");

    let mut child = kvdb(&fake.host, &["put", "k", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(code(&out), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout.is_empty(), "what is for people goes to standard error");
    assert_eq!((fake.log()[3].body.as_slice(), fake.log()[3].header("content-length")), (&b"from a pipe"[..], None));

    let out = kvdb(&fake.host, &["put", "k", "-", "-q"]).stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
    assert_eq!((code(&out), text(&out.stderr)), (Some(0), ""));
    assert_eq!(fake.log()[5].header("content-length"), Some("11"), "a file on standard input has a length");
}

#[test]
fn a_value_is_read_to_standard_output_to_a_file_and_to_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let value = pattern(1_000_000);
    let served = value.clone();
    let fake = cluster(move |c| c.serve(&served, usize::MAX));
    let out = run(&fake.host, &["get", "k"]);
    assert_eq!(code(&out), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout == value);
    let path = dir.path().join("out");
    assert_eq!(code(&run(&fake.host, &["get", "k", path.to_str().unwrap()])), Some(0));
    assert!(std::fs::read(&path).unwrap() == value);
    assert_eq!(code(&run(&fake.host, &["get", "k", "/dev/null"])), Some(0));
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn a_wrong_value_is_an_error_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let fake = cluster(|c| c.answer(200, &[("ETag", &ContentHash::of(b"right").etag())], b"wrong"));
    for target in [path.to_str().unwrap(), "-"] {
        let out = run(&fake.host, &["get", "k", target]);
        assert_eq!(code(&out), Some(1));
        assert!(text(&out.stderr).contains("must not be used"), "{}", text(&out.stderr));
        assert!(out.stdout.is_empty(), "the last bytes are held back");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn exit_codes_say_what_happened() {
    let fake = Fake::start(|c| match c.seen.target.as_str() {
        "/missing" if c.seen.method == "HEAD" => c.answer(404, &[], b""),
        "/missing" | "/missing?locate" => c.problem(ErrorCode::NotFound),
        "/full" => c.problem(ErrorCode::NoSpace),
        _ => c.problem(ErrorCode::Exists),
    });
    let exit = |args: &[&str]| code(&run(&fake.host, args));
    assert_eq!(exit(&["get", "missing"]), Some(4));
    assert_eq!(exit(&["stat", "missing"]), Some(4));
    assert_eq!(exit(&["rm", "missing"]), Some(4));
    assert_eq!(exit(&["put", "full", "/dev/null"]), Some(5));
    assert_eq!(exit(&["put", "--create", "there", "/dev/null"]), Some(1));
    assert_eq!(exit(&["put", "k", "/no/such/file"]), Some(1));
    assert_eq!(exit(&["put", "k"]), Some(2));
    assert_eq!(exit(&["get", ""]), Some(2));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let out = run(&nobody, &["stat", "k", "--retries", "0"]);
    assert_eq!(code(&out), Some(5));
    assert!(text(&out.stderr).contains("cannot reach"), "{}", text(&out.stderr));
}

#[test]
fn rm_goes_on_after_a_failure_and_ends_with_its_code() {
    let fake = cluster(|c| match c.seen.target.starts_with("/bad") {
        true => c.problem(ErrorCode::NotFound),
        false => c.answer(200, &[], b""),
    });
    let out = run(&fake.host, &["rm", "bad", "good"]);
    assert_eq!(code(&out), Some(4));
    assert!(fake.log().iter().any(|s| s.method == "DELETE" && s.target.starts_with("/good?")));
    assert_eq!(text(&out.stderr).lines().count(), 1, "{}", text(&out.stderr));
}

#[test]
fn ls_goes_through_all_pages_and_stops_at_its_limit() {
    let fake = Fake::start(|c| {
        let page = if c.seen.target.contains("start=") { r#"{"keys":["c","d"]}"# } else { r#"{"next":"b","keys":["a","b"]}"# };
        c.answer(200, &[("Content-Type", "application/json")], page.as_bytes());
    });
    assert_eq!(text(&run(&fake.host, &["ls"]).stdout), "a\nb\nc\nd\n");
    assert_eq!(text(&run(&fake.host, &["ls", "--limit", "3"]).stdout), "a\nb\nc\n");
    let asked = fake.log().len();
    assert_eq!(text(&run(&fake.host, &["ls", "-n", "2", "--json"]).stdout), "{\"key\":\"a\"}\n{\"key\":\"b\"}\n");
    assert_eq!(fake.log().len(), asked + 1, "no page more than needed");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error_and_no_panic() {
    let value = pattern(8_000_000);
    let fake = cluster(move |c| {
        if c.seen.target.contains("list") {
            let keys: Vec<_> = (0..100_000).map(|i| format!("\"key{i}\"")).collect();
            return c.answer(200, &[], format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes());
        }
        // The client may be gone before all of it is sent.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| c.serve(&value, usize::MAX)));
    });
    let list = fake.host.clone();
    let lists = Fake::start(move |c| c.redirect(302, &format!("http://{list}/?v=1&list")));
    for (master, args) in [(&fake.host, &["get", "k"][..]), (&lists.host, &["ls"])] {
        let mut child = kvdb(master, args).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 3]).unwrap();
        drop(out);
        let out = child.wait_with_output().unwrap();
        assert_eq!((code(&out), text(&out.stderr)), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn keys_are_bytes_on_the_command_line() {
    use std::os::unix::ffi::OsStrExt;
    let fake = cluster(|c| c.serve(b"x", usize::MAX));
    let mut command = kvdb(&fake.host, &["get"]);
    assert_eq!(code(&command.arg(OsStr::from_bytes(b"a%2F b/\xff")).output().unwrap()), Some(0));
    let asked: Vec<String> = fake.log().into_iter().map(|seen| seen.target).collect();
    assert_eq!(asked[0], "/a%252F%20b/%FF?locate");
    assert!(asked[1..].iter().any(|target| target == "/a%252F%20b/%FF"), "{asked:?}");
}

#[test]
fn stat_shows_what_is_known() {
    let fake = cluster(|c| c.serve(b"x", usize::MAX));
    let out = run(&fake.host, &["stat", "k"]);
    assert!(text(&out.stdout).contains(&format!("blake3    {}", ContentHash::of(b"x"))), "{}", text(&out.stdout));
    let json: serde_json::Value = serde_json::from_slice(&run(&fake.host, &["stat", "k", "--json"]).stdout).unwrap();
    assert_eq!((json["len"].as_u64(), json["volume"].as_str()), (Some(1), Some(format!("http://{}", fake.host).as_str())));
}

#[test]
fn health_is_zero_or_one() {
    let fake = Fake::start(|c| match c.nth {
        0 | 1 => c.answer(200, &[], b"ok"),
        _ => c.problem(ErrorCode::Unavailable),
    });
    let url = format!("http://{}", fake.host);
    let port = fake.host.rsplit_once(':').unwrap().1;
    assert_eq!(code(&run("http://nowhere.invalid", &["health", &url])), Some(0));
    assert_eq!(code(&kvdb("http://nowhere.invalid", &["health"]).env("PORT", port).output().unwrap()), Some(0));
    assert_eq!(code(&run(&url, &["health"])), Some(1));
}
