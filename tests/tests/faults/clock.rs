//! Clocks that are a year off, and change between starts: versions stay in order, tickets work, nothing is lost.

use crate::world::{World, short_tickets};
use kvdb_tests::Request;
use kvdb_tests::settled::until_settled;
use std::path::Path;

/// Replaces the clock that programs see; from Debian's package `libfaketime`.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const LEN: usize = 200_000;

#[test]
fn clocks_that_jump_a_year_between_starts_change_no_order_and_break_no_ticket() {
    if !Path::new(FAKETIME).exists() {
        eprintln!("\n*** SKIPPED: no clock was shifted, as this needs libfaketime\n");
        return;
    }
    let mut world = World::new(short_tickets(2).start());
    world.must_put("/first", LEN);
    let mut last = version(&world, "/first");
    for (master, volume) in [("+365d", "+0d"), ("-365d", "+365d"), ("+0d", "-365d"), ("+730d", "+0d"), ("+0d", "+0d")] {
        let of = |shift: &str| vec![("LD_PRELOAD".into(), FAKETIME.into()), ("FAKETIME".into(), shift.into())];
        world.cluster.stop_volume(0);
        world.cluster.stop_master();
        world.cluster.volume(0).set_env(of(volume));
        world.cluster.master().set_env(of(master));
        world.cluster.start_volume(0);
        world.cluster.start_master();
        world.cluster.wait_all_up();
        world.check(false);
        for target in ["/first", "/second"] {
            world.must_put(target, LEN);
            let next = version(&world, target);
            assert!(next > last, "master {master}, volume {volume}: version {next} after {last}");
            last = next;
        }
        assert_eq!(world.delete("/second"), crate::world::Ended::Done);
        until_settled(&world.cluster);
        world.check_settled();
    }
    // The clock did change: the master's never goes back, so it is where it was two years ahead.
    let year = 365 * 24 * 3600 * 1000;
    let machine = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(world.cluster.status()["time"].as_u64().unwrap() > machine + year, "the clocks were not shifted");
}

/// Versions sort as text.
fn version(world: &World, target: &str) -> String {
    let answer = world.cluster.follow(&Request::new("HEAD", target)).expect(200);
    answer.header("kvdb-version").unwrap().to_string()
}
