//! A cluster all of whose connections go through proxies.

use kvdb_tests::{Cluster, Proxy};

pub const VOLUMES: usize = 3;

pub struct Network {
    pub cluster: Cluster,
    /// In front of each volume, for the master, the other volumes and clients.
    pub volumes: Vec<Proxy>,
    /// In front of the master, for the volumes.
    pub commits: Proxy,
    /// In front of the master, for clients.
    pub clients: Proxy,
}

impl Network {
    pub fn start() -> Self {
        // Leads nowhere until the master has a port.
        let [commits, clients] = [(); 2].map(|()| Proxy::start("127.0.0.1", "127.0.0.1:1"));
        let mut cluster = Cluster::builder(VOLUMES)
            .master_args(["--start-seconds", "4", "--commit-seconds", "6"])
            .master_args(["--address", &commits.address()])
            .start_volumes();
        let volumes: Vec<Proxy> = (0..VOLUMES).map(|i| Proxy::start("127.0.0.1", &cluster.volume_addr(i))).collect();
        cluster.list_addresses(&volumes.iter().map(Proxy::address).collect::<Vec<_>>());
        cluster.start_master();
        commits.set_upstream(&cluster.master_addr());
        clients.set_upstream(&cluster.master_addr());
        cluster.wait_all_up();
        Self { cluster, volumes, commits, clients }
    }

    /// Where clients reach the master.
    pub fn for_clients(&self) -> String {
        self.clients.address()
    }

    pub fn proxies(&self) -> Vec<&Proxy> {
        self.volumes.iter().chain([&self.commits, &self.clients]).collect()
    }

    /// Has the master reach the volumes without proxies from now on.
    pub fn take_proxies_out(&mut self) {
        self.cluster.stop_master();
        self.cluster.list_volumes();
        self.cluster.start_master();
        self.cluster.wait_all_up();
    }
}
