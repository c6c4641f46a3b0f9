//! A commit that is done, of which the volume hears nothing for longer than it asks: the value must not be given up.

use kvdb_tests::settled::until_settled;
use kvdb_tests::{Cluster, Proxy, Request, Way, eventually};

#[test]
fn a_commit_whose_answer_is_lost_with_the_master_leaves_the_value_where_the_record_says() {
    let mut cluster = Cluster::builder(2).start_volumes();
    let proxy = Proxy::start("127.0.0.1", "127.0.0.1:1");
    // Volumes reach the master through the proxy, clients and the master's own calls do not.
    let volumes = format!("{},{}", cluster.volume_addr(0), cluster.volume_addr(1));
    let db = cluster.db_dir().to_str().unwrap().to_string();
    let args = [&volumes, &db, "--start-seconds", "2", "--commit-seconds", "3"].map(String::from).to_vec();
    cluster.master().set_args([args.clone(), vec!["--address".into(), proxy.address()]].concat());
    cluster.start_master();
    proxy.set_upstream(&cluster.master_addr());
    cluster.wait_all_up();
    cluster.put("/k", b"old");
    let version = |cluster: &Cluster| cluster.ask(&Request::get("/?list&detail")).expect(200).json()["keys"][0]["version"].clone();
    let old = version(&cluster);

    proxy.stall(Way::Back);
    let address = cluster.master_addr();
    let writer = std::thread::spawn(move || Request::put("/k", "new").expect_continue().try_follow(&address));
    eventually("the new value is committed", || (version(&cluster) != old).then_some(()));
    // First the call breaks, then nobody is there to be asked again.
    cluster.kill_master();
    drop(proxy);
    writer.join().unwrap().unwrap().expect_problem(504, "outcome_unknown");
    cluster.master().set_args(args);
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(cluster.value("/k"), b"new", "the record's copies are there");
    until_settled(&cluster);
}
