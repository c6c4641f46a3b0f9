//! The client library against a cluster in trouble.

use crate::{LEN, World};
use kvdb_client::{Client, DownloadOptions, Downloaded, Error, Key};
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Request, Url, Way, eventually};
use std::path::PathBuf;
use std::time::Duration;

/// Reads the value while `meanwhile` is done, once so many bytes of it are right.
fn download(world: &mut World, after: u64, meanwhile: impl FnOnce(&mut World)) -> Result<Downloaded, Error> {
    let client = Client::builder(world.cluster.url()).no_proxy().stall_timeout(Duration::from_secs(1)).build().unwrap();
    let (target, options) = (file(world), DownloadOptions::default());
    let progress = options.progress.clone();
    let work = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(client.download(&Key::new("big").unwrap(), target, options))
    });
    eventually("the download is under way", || (progress.bytes() >= after || work.is_finished()).then_some(()));
    meanwhile(world);
    work.join().unwrap()
}

fn file(world: &World) -> PathBuf {
    world.cluster.dir().join("copy")
}

#[track_caller]
fn assert_file(world: &World, bytes: &[u8]) {
    assert_same(&std::fs::read(file(world)).unwrap(), bytes, "the file");
    assert!(!world.cluster.dir().join("copy.kvdb-part").exists());
}

#[test]
fn all_replicas_take_part() {
    let mut world = World::start();
    let before: Vec<u64> = world.proxies.iter().map(|p| p.passed(Way::Back)).collect();
    let done = download(&mut world, 0, |_| {}).unwrap();
    assert_file(&world, &world.bytes);
    assert_eq!((done.fetched, done.kept), (LEN as u64, 0));
    let took_part = world.proxies.iter().zip(before).filter(|(p, b)| p.passed(Way::Back) > b + (1 << 20)).count();
    assert_eq!(took_part, 3);
}

#[test]
fn two_of_three_replicas_may_be_killed_on_the_way() {
    let mut world = World::start();
    world.slow_down();
    let done = download(&mut world, 4 << 20, |w| {
        w.cluster.kill_volume(0);
        w.cluster.kill_volume(1);
    });
    assert_eq!(done.unwrap().fetched, LEN as u64, "no right byte is fetched twice");
    assert_file(&world, &world.bytes);
}

#[test]
fn a_replica_that_falls_silent_is_left() {
    let mut world = World::start();
    world.slow_down();
    download(&mut world, 4 << 20, |w| w.proxies[2].stall(Way::Back)).unwrap();
    assert_file(&world, &world.bytes);
}

#[test]
fn a_value_that_is_replaced_on_the_way_comes_whole_in_its_new_version() {
    let mut world = World::start();
    world.slow_down();
    let new = value(LEN + 99, 2);
    let url = world.cluster.read_url("/big");
    let done = download(&mut world, 4 << 20, |w| {
        // Nothing more comes until the old version is gone from everywhere.
        w.all(|p| p.stall(Way::Back));
        let to = w.cluster.write_url("/big", new.len());
        Request::put(&to.target, new.clone()).send(&w.past_proxy(&to)).expect(200);
        for i in 0..3 {
            let at = w.cluster.volume_addr(i);
            eventually("the old version is removed", || (Request::get(&url.target).send(&at).status == 302).then_some(()));
        }
        w.all(kvdb_tests::Proxy::heal);
    });
    assert_eq!(done.unwrap().info.len, LEN as u64 + 99);
    assert_file(&world, &new);
}

#[test]
fn a_value_that_is_deleted_on_the_way_leaves_nothing() {
    let mut world = World::start();
    world.slow_down();
    let url: Url = world.cluster.read_url("/big");
    let done = download(&mut world, 4 << 20, |w| {
        w.all(|p| p.stall(Way::Back));
        let to = Url::of(&w.cluster.ask(&Request::delete("/big")).expect(307));
        Request::delete(&to.target).send(&w.past_proxy(&to)).expect(200);
        for i in 0..3 {
            let at = w.cluster.volume_addr(i);
            eventually("it is removed", || (Request::get(&url.target).send(&at).status == 302).then_some(()));
        }
        w.all(kvdb_tests::Proxy::heal);
    });
    assert!(matches!(done, Err(Error::NotFound(_))), "{done:?}");
    assert!(!file(&world).exists() && !world.cluster.dir().join("copy.kvdb-part").exists());
}

#[test]
fn no_bit_that_flips_on_the_wire_is_ever_in_the_file() {
    let mut world = World::start();
    // Once on each connection, behind what heads and chaining values take.
    world.all(|p| p.flip(Way::Back, 3_000_000, 0x20));
    let done = download(&mut world, 0, |_| {}).unwrap();
    assert_file(&world, &world.bytes);
    assert_eq!(done.fetched, LEN as u64);
    assert!(world.proxies.iter().map(kvdb_tests::Proxy::flipped).sum::<u64>() > 0, "nothing was tried");
}

#[test]
fn connections_that_are_cut_over_and_over_only_take_longer() {
    let mut world = World::start();
    world.all(|p| p.cut_at(Way::Back, 3_000_000));
    let done = download(&mut world, 0, |_| {}).unwrap();
    assert_file(&world, &world.bytes);
    assert_eq!(done.fetched, LEN as u64);
}
