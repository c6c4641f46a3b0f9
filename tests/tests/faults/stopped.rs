//! Servers that are halted past every deadline, and go on: what they do late is refused, and nothing of it stays.

use crate::world::{Ended, World, short_tickets};
use kvdb_tests::connection::Connection;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Request, eventually};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Large enough to go to its file as it comes.
const LEN: usize = 1_100_000;
/// More than a ticket lives: two seconds to start, three to commit, seventeen for its bytes at 64 KiB/s.
const PAST_COMMIT_BY: Duration = Duration::from_secs(23);

#[test]
fn a_volume_halted_in_the_midst_of_a_write_past_its_ticket_leaves_nothing_and_the_old_value_stands() {
    let mut world = World::new(short_tickets(2).start());
    world.must_put("/key", LEN);
    world.must_put("/other", 1000);
    let bytes = value(LEN, 77);
    let url = world.cluster.write_url("/key", LEN);
    let first = (0..2).find(|i| world.cluster.volume_addr(*i) == url.address).unwrap();
    let mut connection = Connection::open(&url.address);
    let head = format!("PUT {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {LEN}\r\n\r\n", url.target, url.address);
    connection.send(head.as_bytes());
    connection.send(&bytes[..LEN / 2]);
    let tmp = world.cluster.volume_dir(first).join("tmp");
    eventually("the write has begun", || (std::fs::read_dir(&tmp).unwrap().count() > 0).then_some(()));
    let since = Instant::now();
    world.cluster.volume(first).signal(Signal::STOP);
    world.cluster.wait_up(1);
    // Reads go to the other one, and new writes find too few volumes.
    world.check(false);
    assert_eq!(world.put("/other", 1000), Ended::Refused(503));
    std::thread::sleep(PAST_COMMIT_BY.saturating_sub(since.elapsed()));
    world.cluster.volume(first).signal(Signal::CONT);
    // Whatever it says now, it is no success.
    if connection.try_send(&bytes[LEN / 2..]).is_ok()
        && let Ok(answer) = connection.try_answer()
    {
        assert!(!matches!(answer.status, 200 | 201), "{answer}");
    }
    drop(connection);
    world.cluster.wait_all_up();
    println!("nothing is left {:?} after it went on", until_settled(&world.cluster));
    world.check_settled();
    world.must_put("/key", LEN);
}

#[test]
fn a_halted_master_delays_writes_or_leaves_them_open_and_they_settle_when_it_goes_on() {
    let mut world = World::new(short_tickets(2).start());
    world.must_put("/key", LEN);
    let bytes = value(LEN, 78);
    let url = world.cluster.write_url("/key", LEN);
    world.cluster.master().signal(Signal::STOP);
    // The commit gets no answer: its outcome is unknown after ten seconds of asking.
    let answer = Request::put(&url.target, bytes.clone()).send(&url.address);
    assert_eq!(answer.status, 504, "{answer}");
    world.cluster.master().signal(Signal::CONT);
    world.cluster.wait_all_up();
    until_settled(&world.cluster);
    world.also("/key", bytes);
    world.check_settled();
    world.must_put("/key", LEN);
}
