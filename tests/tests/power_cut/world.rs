//! A cluster on disks whose power can be cut, and numbers that a seed decides.

use kvdb_tests::Cluster;
use kvdb_tests::power::Disk;
use rustix::process::Signal;
use std::path::Path;
use tempfile::TempDir;

const VOLUMES: usize = 2;

/// Dropped in this order.
pub struct World {
    pub cluster: Cluster,
    disks: Vec<Disk>,
    _dir: TempDir,
}

impl World {
    /// None: it cannot be done on this machine, as was said.
    pub fn new() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("kvdb-power-").tempdir().unwrap();
        let disk = |name: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            Disk::new_or_skip(&image(dir.path(), name), &dir.path().join(name))
        };
        let mut disks = vec![disk("db")?, disk("volume0")?, disk("volume1")?];
        let mut cluster =
            Cluster::builder(VOLUMES).in_dir(dir.path()).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
        // A volume's directory must be its own from the start: its index moves when it is there.
        cluster.stop_master();
        for i in 0..VOLUMES {
            cluster.stop_volume(i);
            disks.push(Disk::under(&cluster.volume_dir(i).join("index"), &image(dir.path(), &format!("index{i}"))).unwrap());
            cluster.start_volume(i);
        }
        cluster.start_master();
        cluster.wait_all_up();
        Some(Self { cluster, disks, _dir: dir })
    }

    /// Cuts the power of all machines. The processes die first, in the middle of what they do: a sync under way during a cut
    /// may seem to succeed, and nobody must act on that.
    pub fn cut(&mut self, random: &mut Random) {
        let mut order: Vec<usize> = (0..=VOLUMES).collect();
        random.shuffle(&mut order);
        for i in order {
            let server = if i == VOLUMES { self.cluster.master() } else { self.cluster.volume(i) };
            server.signal(Signal::KILL);
        }
        self.disks.iter().for_each(Disk::cut);
        self.kill_all();
    }

    fn kill_all(&mut self) {
        self.cluster.kill_master();
        (0..VOLUMES).for_each(|i| self.cluster.kill_volume(i));
    }

    pub fn restart(&mut self) {
        // Those mounted last, on others, first.
        self.disks.iter().rev().for_each(Disk::unmount);
        self.disks.iter().for_each(Disk::mount);
        (0..VOLUMES).for_each(|i| self.cluster.start_volume(i));
        self.cluster.start_master();
        self.cluster.wait_all_up();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Processes hold the disks.
        self.kill_all();
        while let Some(disk) = self.disks.pop() {
            drop(disk);
        }
    }
}

fn image(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!("{name}.image"))
}

/// Numbers that a seed decides.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, usize::try_from(self.below(i as u64 + 1)).unwrap());
        }
    }
}
