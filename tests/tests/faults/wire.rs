//! Wires that flip bits and break: no wrong byte is stored that anyone could have noticed, and no write is half done.

use crate::number;
use crate::world::{World, short_tickets};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::{assert_same, content_md5, value};
use kvdb_tests::{Cluster, Proxy, Request, Way};

const LEN: usize = 300_000;

/// A cluster whose master, and so everyone else, reaches volumes 0 and 1 through proxies.
fn behind_proxies() -> (World, Vec<Proxy>) {
    let mut cluster: Cluster = short_tickets(2).start_volumes();
    let proxies: Vec<Proxy> = (0..2).map(|i| Proxy::start("127.0.0.1", &cluster.volume_addr(i))).collect();
    cluster.list_addresses(&proxies.iter().map(Proxy::address).collect::<Vec<_>>());
    cluster.start_master();
    cluster.wait_all_up();
    (World::new(cluster), proxies)
}

#[test]
fn flips_and_cuts_anywhere_in_a_write_end_in_the_old_value_or_the_right_one() {
    let (world, proxies) = behind_proxies();
    let rounds = number("KVDB_FAULT_ROUNDS", 60);
    let seed = number("KVDB_FAULT_SEED", u64::from(std::process::id()));
    println!("KVDB_FAULT_SEED={seed} KVDB_FAULT_ROUNDS={rounds}");
    let mut old = value(LEN, 1);
    world.cluster.put("/key", &old);
    let (mut flipped, mut refused) = (0, 0);
    for round in 0..rounds {
        let hash = blake3::hash(&[seed.to_le_bytes(), round.to_le_bytes()].concat());
        let random = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        let new = value(LEN, 100 + round);
        // Heads and frames are a few hundred bytes; half of the faults are there.
        let at = if random & 1 == 0 { (random >> 8) % 1500 } else { (random >> 8) % LEN as u64 };
        let way = if round % 4 == 3 { Way::Back } else { Way::Forth };
        // At both, or at one alone: what is found on the way to the first volume is never tried on the way to the second.
        let which = (random >> 40) as usize % 3;
        for (_, proxy) in proxies.iter().enumerate().filter(|(i, _)| which == 2 || which == *i) {
            if round % 3 == 2 { proxy.cut_at(way, at.max(1)) } else { proxy.flip(way, at, 1 << (random >> 4 & 7)) }
        }
        let before: u64 = proxies.iter().map(Proxy::flipped).sum();
        // The client's own digest: what changes on its way to the first volume cannot be found without.
        let request = Request::put("/key", new.clone()).expect_continue().header("Content-MD5", &content_md5(&new));
        let answer = request.try_follow(&world.cluster.master_addr());
        proxies.iter().for_each(Proxy::heal);
        proxies.iter().for_each(Proxy::cut);
        world.cluster.wait_all_up();
        until_settled(&world.cluster);
        flipped += u64::from(proxies.iter().map(Proxy::flipped).sum::<u64>() > before);
        let found = world.cluster.value("/key");
        match answer {
            Ok(answer) if matches!(answer.status, 200 | 201) => assert_same(&found, &new, "an acknowledged value"),
            // The answer itself may have been hit on its way back: only bytes decide then.
            _ => {
                refused += 1;
                assert!(found == old || found == new, "round {round}: neither the old value nor the new one");
            }
        }
        for copy in world.cluster.copies("/key").iter().filter(|c| c.status == 200) {
            assert_same(&copy.body, &found, "a copy");
        }
        old = found;
    }
    println!("{rounds} writes: in {flipped} a bit flipped, {refused} had no success");
    assert!(flipped > 0 && refused > 0, "nothing was tried");
}
