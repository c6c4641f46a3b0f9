//! `curl -L`, and nothing else.

use kvdb_tests::Cluster;
use kvdb_tests::outside::{curl, curl_is_here, run};
use kvdb_tests::values::{assert_same, value};
use std::process::{Command, Output, Stdio};

const BIG: usize = (20 << 20) + 12_345;

struct Curl {
    cluster: Cluster,
    big: Vec<u8>,
}

impl Curl {
    /// None where curl is missing and may be.
    fn new() -> Option<Self> {
        if !curl_is_here() {
            return None;
        }
        let (cluster, big) = (Cluster::start(2), value(BIG, 1));
        std::fs::write(cluster.dir().join("bigfile"), &big).unwrap();
        Some(Self { cluster, big })
    }

    /// Runs `curl ARGS...` in the cluster's directory, `@` in an argument's beginning being the master's URL.
    fn run(&self, args: &str) -> Output {
        run(&mut self.command(args))
    }

    fn command(&self, args: &str) -> Command {
        let mut command = curl(self.cluster.dir());
        command.args(args.split(' ').map(|a| a.strip_prefix('@').map_or_else(|| a.into(), |rest| format!("{}{rest}", self.cluster.url()))));
        command
    }

    /// The status of the last answer.
    #[track_caller]
    fn status(&self, args: &str) -> String {
        let output = self.run(&format!("-o body -w %{{http_code}} {args}"));
        assert!(output.status.success(), "curl {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn bytes(&self, args: &str) -> Vec<u8> {
        let output = self.run(args);
        assert!(output.status.success(), "curl {args}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

#[test]
fn the_first_lines_of_the_readme_work() {
    let Some(curl) = Curl::new() else { return };
    assert_eq!(curl.status("-L -X POST -d examplevalue @/examplekey"), "201");
    assert_eq!(curl.bytes("-L @/examplekey"), b"examplevalue");
    assert_eq!(curl.status("-L -X POST -d examplevalue @/examplekey"), "409");
    assert_eq!(curl.status("-L -X PUT -d othervalue @/examplekey"), "200");
    assert_eq!(curl.bytes("-L @/examplekey"), b"othervalue");
    let list: serde_json::Value = serde_json::from_slice(&curl.bytes("@/?list")).unwrap();
    assert_eq!(list, serde_json::json!({"next": "", "keys": ["examplekey"]}));
    assert_eq!(curl.status("-L -X DELETE @/examplekey"), "200");
    assert_eq!(curl.status("-L @/examplekey"), "404");
    assert_eq!(curl.status("-L -X DELETE @/examplekey"), "404");
}

#[test]
fn a_big_file_goes_in_and_out_by_every_way_that_curl_has() {
    let Some(curl) = Curl::new() else { return };
    for (args, status) in [
        ("-L -X PUT -T bigfile @/big", "201"),
        ("-L -T bigfile @/big", "200"),
        ("-L -X PUT --data-binary @bigfile", ""),
        ("-L -T bigfile -H Expect: @/big", "200"),
        ("-L -T bigfile --expect100-timeout 60 @/big", "200"),
        ("-L -T bigfile -H Transfer-Encoding:chunked @/big", "200"),
        ("-L -T bigfile -H Transfer-Encoding:chunked -H Expect: @/big", "200"),
        ("-L -T bigfile --http1.0 @/big", "200"),
    ] {
        if status.is_empty() {
            // `@bigfile` is curl's own sign here.
            let output = run(curl.command(&args.replace(" @bigfile", "")).args(["@bigfile", &format!("{}/big", curl.cluster.url())]));
            assert!(output.status.success(), "{args}");
        } else {
            assert_eq!(curl.status(args), status, "{args}");
        }
        assert_same(&curl.bytes("-L @/big"), &curl.big, args);
    }
    assert_eq!(curl.status("-L -X POST -T bigfile @/big"), "409");
    assert_eq!(curl.status("-L -X POST -T bigfile -H Expect: @/big"), "409");
}

#[test]
fn parts_heads_and_resumed_downloads_are_exact() {
    let Some(curl) = Curl::new() else { return };
    assert_eq!(curl.status("-L -T bigfile @/big"), "201");
    assert_same(&curl.bytes("-L -r 1000000-1999999 @/big"), &curl.big[1_000_000..2_000_000], "a part");
    assert_same(&curl.bytes("-L -r -7 @/big"), &curl.big[BIG - 7..], "the end");
    let head = String::from_utf8(curl.bytes("-L -I @/big")).unwrap().to_ascii_lowercase();
    assert!(head.contains(&format!("content-length: {BIG}")) && head.contains("accept-ranges: bytes"), "{head}");
    std::fs::write(curl.cluster.dir().join("copy"), &curl.big[..3_000_000]).unwrap();
    curl.bytes("-L -C - -o copy @/big");
    assert_same(&std::fs::read(curl.cluster.dir().join("copy")).unwrap(), &curl.big, "the resumed copy");
}

#[test]
fn a_pipe_of_any_size_can_be_stored() {
    let Some(curl) = Curl::new() else { return };
    for (i, len) in [0, 5, 60_000, 70_000, 3 << 20].into_iter().enumerate() {
        for extra in ["", " -H Expect:"] {
            let target = format!("/pipe{i}{}", extra.len());
            let mut child = curl
                .command(&format!("-L -o body -w %{{http_code}}{extra} -T - @{target}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut pipe = child.stdin.take().unwrap();
            // It fails where curl gives up early, which its status tells.
            std::io::Write::write_all(&mut pipe, &value(len, 7)).ok();
            drop(pipe);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.stdout, b"201", "{len} bytes{extra}: {}", String::from_utf8_lossy(&output.stderr));
            assert_same(&curl.bytes(&format!("-L @{target}")), &value(len, 7), &target);
        }
    }
}

#[test]
fn odd_keys_work_from_the_command_line() {
    let Some(curl) = Curl::new() else { return };
    for target in ["/a%20b", "/a%2Fb", "/deep/er/key", "/%FF", "/plus+plus", "/q%3Fq", "/100%25", "//double", "/tail/"] {
        assert_eq!(curl.status(&format!("-L -X PUT -d value @{target}")), "201", "{target}");
        assert_eq!(curl.bytes(&format!("-L @{target}")), b"value", "{target}");
    }
    for target in ["/../up", "/a/../b", "/."] {
        assert_eq!(curl.status(&format!("-L --path-as-is -X PUT -d {} @{target}", target.len())), "201", "{target}");
        assert_eq!(curl.bytes(&format!("-L --path-as-is @{target}")), target.len().to_string().as_bytes(), "{target}");
    }
}

#[test]
fn a_script_can_rely_on_curls_exit_code() {
    let Some(curl) = Curl::new() else { return };
    assert_eq!(curl.run("-f -L @/absent").status.code(), Some(22));
    assert_eq!(curl.run("-f -L -X PUT -d v @/k").status.code(), Some(0));
    assert_eq!(curl.run("-f -L @/k").status.code(), Some(0));
    assert_eq!(curl.run("-f -L -X DELETE @/k").status.code(), Some(0));
}
