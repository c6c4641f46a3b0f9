//! Power cuts, in truth: an ext4 file system on a loop device is shut down without writing its journal
//! out, under load, mounted again, and every acknowledged write must be there.
//!
//! Needs root and a free loop device; where these are missing the test says so and checks nothing.

#![allow(clippy::unwrap_used)] // All of it is a test.

use kvdb_master::catalog::{Catalog, CatalogOptions, CommitDelete, CommitPut};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const IMAGE_BYTES: u64 = 512 << 20;
const WRITERS: usize = 8;
const KEYS_PER_WRITER: usize = 40;
/// Acknowledged writes before the power goes, in each round.
const ROUNDS: [usize; 6] = [1, 50, 400, 1_500, 200, 3_000];

/// The one system call that has no safe form.
mod power {
    #![allow(unsafe_code)] // An ioctl that the kernel defines to read one u32; nothing else is touched.
    use std::fs::File;

    /// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, u32)`.
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
    /// Neither data nor journal are written out.
    const NO_LOG_FLUSH: u32 = 2;

    /// Cuts the power of the file system that this file is on.
    pub fn cut(on: &File) -> rustix::io::Result<()> {
        // SAFETY: the argument is a valid pointer to a u32 for the length of the call, as SHUTDOWN asks.
        unsafe { rustix::ioctl::ioctl(on, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
    }
}

/// A file system in a file, unmounted when dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))) }
}

impl Disk {
    fn new(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("image"), mount: dir.join("mount") };
        File::create(&disk.image).and_then(|f| f.set_len(IMAGE_BYTES)).map_err(|e| e.to_string())?;
        std::fs::create_dir(&disk.mount).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &disk.image.to_string_lossy()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.mount.to_string_lossy()])
    }

    fn cut_power(&self) {
        power::cut(&File::open(&self.mount).unwrap()).unwrap();
    }

    /// Without this process's files on it; the engine's last threads may need a moment to let go.
    fn unmount(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(e) = run("umount", &[&self.mount.to_string_lossy()]) {
            assert!(Instant::now() < until, "{e}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Only of use when a test failed half-way; "not mounted" is the good case.
        let _not_mounted = run("umount", &["-l", &self.mount.to_string_lossy()]);
    }
}

fn key(writer: usize, i: usize) -> Key {
    // Long keys, so that the database grows and its pages split.
    Key::new(format!("{writer}/{i}/{}", "k".repeat(200))).unwrap()
}

/// What may be under a key: the last acknowledged state, and every later one of unknown outcome.
type Possible = Vec<Option<VersionId>>;

/// Writes to its own keys, one after the other, until the catalog takes no more.
async fn write(catalog: Catalog, writer: usize, acknowledged: Arc<AtomicUsize>, mut keys: Vec<Possible>) -> Vec<Possible> {
    for n in 0.. {
        let i = (n * 7) % KEYS_PER_WRITER;
        let present = keys[i].last().copied().flatten();
        let (key, version) = (key(writer, i), catalog.next_version());
        let removes = n % 5 == 4 && present.is_some();
        let (next, answer) = if removes {
            let condition = Condition::default();
            let commit_by = UnixMillis(u64::MAX);
            (None, catalog.delete(CommitDelete { key, version: None, condition, commit_by, removed_at: None }).await)
        } else {
            (Some(version), catalog.commit(put(key, version)).await)
        };
        match answer {
            Ok(CommitAnswer::Committed(_)) => keys[i] = vec![next],
            Ok(CommitAnswer::Refused(p)) => panic!("refused: {p}"),
            Err(_) => {
                keys[i].push(next);
                return keys;
            }
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    keys
}

fn put(key: Key, version: VersionId) -> CommitPut {
    CommitPut {
        key,
        version,
        create: false,
        condition: Condition::default(),
        commit_by: UnixMillis(u64::MAX),
        len: 1,
        hash: ContentHash::of(version.as_bytes()),
        content_type: None,
        expires: None,
        replicas: vec![VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16])],
    }
}

#[test]
fn every_acknowledged_write_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let disk = match Disk::new(dir.path()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("\n*** SKIPPED: no power cut was tried, as this needs root, ext4 and loop devices: {why}\n"),
    };
    let mut keys = vec![vec![vec![None]; KEYS_PER_WRITER]; WRITERS];
    let mut version = VersionId::from_parts(0, 0);
    for writes in ROUNDS {
        (keys, version) = round(&disk, writes, keys, version);
        disk.unmount();
        disk.mount().unwrap();
        check(&disk, &mut keys);
    }
    disk.unmount();
}

fn options(disk: &Disk) -> CatalogOptions {
    CatalogOptions { dir: disk.mount.join("catalog"), cache_bytes: 8 << 20 }
}

/// Opens the catalog, writes, and cuts the power once enough writes are acknowledged.
fn round(disk: &Disk, writes: usize, keys: Vec<Vec<Possible>>, before: VersionId) -> (Vec<Vec<Possible>>, VersionId) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let catalog = Catalog::open(options(disk)).unwrap();
        assert!(catalog.next_version() > before, "a version was given out twice");
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = keys
            .into_iter()
            .enumerate()
            .map(|(w, keys)| tokio::spawn(write(catalog.clone(), w, Arc::clone(&acknowledged), keys)))
            .collect();
        while acknowledged.load(Ordering::SeqCst) < writes {
            assert!(!writers.iter().any(tokio::task::JoinHandle::is_finished), "a write failed before the power was cut");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        disk.cut_power();
        let mut keys = Vec::new();
        for writer in writers {
            keys.push(writer.await.unwrap());
        }
        (keys, catalog.next_version())
    })
}

/// Opens the catalog on what is left, and compares.
fn check(disk: &Disk, keys: &mut [Vec<Possible>]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let catalog = Catalog::open(options(disk)).unwrap();
        let mut present = 0;
        for (writer, keys) in keys.iter_mut().enumerate() {
            for (i, possible) in keys.iter_mut().enumerate() {
                let found = catalog.lookup(&key(writer, i)).await.unwrap().map(|r| r.version);
                assert!(possible.contains(&found), "writer {writer}, key {i}: found {found:?}, and only {possible:?} may be there");
                *possible = vec![found];
                present += u64::from(found.is_some());
            }
        }
        assert_eq!(catalog.stats().keys, present);
        catalog.close().await.unwrap();
    });
}
