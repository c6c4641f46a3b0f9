//! Large values read in parts, from several replicas at once, over wires that break, lie and stall.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod library;

use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Proxy, Url, Way};
use std::time::Duration;

/// More than is read in one piece, and not a whole number of subtrees.
const LEN: usize = (40 << 20) + 12_345;
/// Of each portion of 64 KiB on a slow wire.
const SLOW: Duration = Duration::from_millis(10);

/// Three volumes that clients reach through proxies, and servers do not, and a value on all of them.
struct World {
    cluster: Cluster,
    proxies: Vec<Proxy>,
    bytes: Vec<u8>,
}

impl World {
    fn start() -> Self {
        let mut cluster = Cluster::builder(3).master_args(["--replicas", "3"]).start_volumes();
        let proxies: Vec<Proxy> = (0..3).map(|i| Proxy::start("127.0.0.1", &cluster.volume_addr(i))).collect();
        for (i, proxy) in proxies.iter().enumerate() {
            let dir = cluster.volume_dir(i).to_str().unwrap().to_string();
            cluster.stop_volume(i);
            cluster.volume(i).set_args(vec![dir, "--public-url".into(), format!("http://{}", proxy.address())]);
            cluster.start_volume(i);
        }
        cluster.start_master();
        cluster.wait_all_up();
        let world = Self { cluster, proxies, bytes: value(LEN, 1) };
        world.cluster.put("/big", &world.bytes);
        world
    }

    fn all(&self, set: impl Fn(&Proxy)) {
        self.proxies.iter().for_each(set);
    }

    fn slow_down(&self) {
        self.all(|p| p.delay(Way::Back, SLOW));
    }

    /// Where a redirect leads to, past the proxy.
    fn past_proxy(&self, url: &Url) -> String {
        let at = self.proxies.iter().position(|p| p.address() == url.address).expect("clients are sent to proxies");
        self.cluster.volume_addr(at)
    }

    /// Bytes that came to clients so far.
    fn passed(&self) -> u64 {
        self.proxies.iter().map(|p| p.passed(Way::Back)).sum()
    }
}
