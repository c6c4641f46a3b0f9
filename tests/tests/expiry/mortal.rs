//! Values with a time to live under faults: none is seen after its time, and none that was acknowledged is lost before.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lives that end before, among and after the faults, in milliseconds.
pub const LIVES: [u64; 4] = [300, 1_500, 4_000, 3_600_000];

/// The machine's time, which is what values expire by here.
pub fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// An acknowledged write: its key and value, and between which times of the clock it expires.
pub struct Written {
    target: String,
    value: Vec<u8>,
    not_before: u64,
    not_after: u64,
}

/// How much the master's clock may be ahead of the wall clock, in milliseconds: it adds up two clocks that are both cut to whole
/// milliseconds and goes on at the greater sum, and the wall clock may be slowed down meanwhile.
const CLOCK_AHEAD: u64 = 5;

/// Writes until it is told to stop, now and then by a batch; gives what was acknowledged.
pub fn write(master: &str, writer: u64, stop: &AtomicBool) -> Vec<Written> {
    let (mut written, mut n) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let life = LIVES[usize::try_from(n % 4).unwrap()];
        let value = value(if n % 3 == 0 { 70_000 } else { 200 }, writer << 32 | n);
        let (target, began) = (format!("/w{writer}/{n}"), now());
        let (request, done) = if n % 5 == 0 {
            let put = json!({"put": target[1..], "base64": BASE64_STANDARD.encode(&value), "ttl": format!("{life}ms")});
            let other = json!({"put": format!("w{writer}/other"), "value": n.to_string()});
            (Request::post("/?batch", json!({ "operations": [put, other] }).to_string()), 200)
        } else {
            (Request::put(&format!("{target}?ttl={life}ms"), value.clone()).expect_continue(), 201)
        };
        if request.try_follow(master).is_ok_and(|a| a.status == done) {
            written.push(Written { target, value, not_before: began + life, not_after: now() + life });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    written
}

/// Reads one, and judges the answer by the clock before and after it.
pub fn check(cluster: &Cluster, w: &Written) -> bool {
    let began = now();
    let answer = cluster.get(&w.target);
    match answer.status {
        200 => assert!(began <= w.not_after && answer.body == w.value, "{} is seen {} ms after its time", w.target, began - w.not_after),
        404 => {
            let now = now() + CLOCK_AHEAD;
            assert!(now >= w.not_before, "{} is lost {} ms before its time", w.target, w.not_before + CLOCK_AHEAD - now);
        }
        _ => panic!("{answer}"),
    }
    answer.status == 200
}
