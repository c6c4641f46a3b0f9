//! Power cuts of a store, after and during every short sequence of its operations.
//!
//! Blob files and index are on disks of their own, so that a sync of one makes nothing of the other durable. By default a
//! seed chooses some of the sequences; `KVDB_POWER_ROUNDS` is their number, or `all`. `KVDB_POWER_SEED` makes the same choices again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // All of it is a test.

use kvdb_protocol::message::{Deleted, ReclaimItem};
use kvdb_protocol::{Key, UnixMillis, VersionId, VolumeId};
use kvdb_tests::cluster::files_below;
use kvdb_tests::power::Disk;
use kvdb_tests::values::value;
use kvdb_volume::store::{NewValue, Store, StoreOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sequences, each with two cuts, where no number is given.
const ROUNDS: usize = 60;
/// In the index.
const SMALL: usize = 5_000;
/// In a file, written in two parts.
const LARGE: usize = (1 << 20) + 70_001;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    PutSmall,
    /// Into directories that are new as long as there are such.
    PutLarge,
    /// Into a new directory beside that of the large value before.
    PutBeside,
    /// Marks the last value as committed.
    Commit,
    /// Removes the last value; the volume forgets it.
    Remove,
    /// Removes the last value and leaves a tombstone.
    Delete,
}

const STEPS: [Step; 6] = [Step::PutSmall, Step::PutLarge, Step::PutBeside, Step::Commit, Step::Remove, Step::Delete];

impl Step {
    fn is_put(self) -> bool {
        matches!(self, Self::PutSmall | Self::PutLarge | Self::PutBeside)
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Stored,
    /// A put or removal without an answer.
    InDoubt,
    /// Removed: it may come back as a file without an entry, which is then in doubt for the volume as well.
    Removed,
    Deleted,
}

struct Value {
    new: NewValue,
    len: usize,
    known: Known,
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        value(self.len, self.new.version.unix_millis())
    }
}

/// Puts come first: there is nothing else to do to an empty store. A value that is gone is not touched again.
fn sequences() -> Vec<Vec<Step>> {
    let longer = |s: &Vec<Step>| STEPS.map(|step| [s.as_slice(), &[step]].concat());
    let one = longer(&Vec::new()).to_vec();
    let two: Vec<_> = one.iter().flat_map(longer).collect();
    let three: Vec<_> = two.iter().flat_map(longer).collect();
    let sensible = |s: &Vec<Step>| s[0].is_put() && s.windows(2).all(|w| w[1].is_put() || !matches!(w[0], Step::Remove | Step::Delete));
    [one, two, three].concat().into_iter().filter(sensible).collect()
}

struct World {
    store: Option<Store>,
    options: StoreOptions,
    disks: [Disk; 2],
    values: Vec<Value>,
    /// What is answered from now on proves nothing: see [`Disk::cut`].
    cutting: AtomicBool,
}

impl World {
    fn new(dir: &Path) -> Option<Self> {
        let volume = dir.join("volume");
        std::fs::create_dir(&volume).unwrap();
        let disk = Disk::new_or_skip(&dir.join("image"), &volume)?;
        let options = StoreOptions { keep_free_bytes: 0, ..StoreOptions::new(volume) };
        drop(Store::open(options.clone()).unwrap());
        let index = Disk::under(&options.dir.join("index"), &dir.join("index.image")).unwrap();
        let store = Some(Store::open(options.clone()).unwrap());
        Some(Self { store, options, disks: [disk, index], values: Vec::new(), cutting: AtomicBool::new(false) })
    }

    fn begin(&mut self, step: Step) {
        let n = self.values.len() as u64 + 1;
        let large = self.values.iter().rev().find(|v| v.len == LARGE);
        // The directories are named by the last two bytes.
        let parent = match (step, large) {
            (Step::PutBeside, Some(v)) => (u128::from(v.new.version.as_bytes()[14]) << 8) | u128::from(n % 128 + 128),
            _ => (u128::from(n % 256) << 8) | u128::from(n / 256 % 128),
        };
        let len = if step == Step::PutSmall { SMALL } else { LARGE };
        let new = NewValue {
            key: Key::new(format!("key {n}")).unwrap(),
            version: VersionId::from_parts(1_700_000_000_000 + n, (u128::from(n) << 16) | parent),
            len: Some(len as u64),
            max_len: len as u64,
            content_type: None,
            expires: None,
            commit_by: UnixMillis(1 + n),
            replicas: vec![VolumeId::from_bytes([1; 16])],
        };
        self.values.push(Value { new, len, known: Known::InDoubt });
    }

    /// Whether it was done, by the store's answer.
    fn act(&self, step: Step) -> bool {
        let (store, last) = (self.store.as_ref().unwrap(), self.values.last().unwrap());
        let (key, version) = (last.new.key.clone(), last.new.version);
        let put = || {
            let mut staged = store.begin(last.new.clone())?;
            last.bytes().chunks(300_007).try_for_each(|part| staged.write(part))?;
            staged.finish()
        };
        let remove = |deleted| store.remove(&[ReclaimItem { key: key.clone(), version, deleted }]).is_ok();
        match step {
            Step::PutSmall | Step::PutLarge | Step::PutBeside => put().is_ok(),
            Step::Commit => store.mark_committed(&key, version, 7).is_ok(),
            Step::Remove => remove(None),
            Step::Delete => remove(Some(Deleted { seq: 8, time: UnixMillis(u64::MAX / 2) })),
        }
    }

    fn note(&mut self, step: Step, done: bool) {
        let last = self.values.last_mut().unwrap();
        last.known = match step {
            // A mark may be lost; the value must not be.
            Step::Commit => last.known,
            _ if !done => Known::InDoubt,
            Step::PutSmall | Step::PutLarge | Step::PutBeside => Known::Stored,
            Step::Remove => Known::Removed,
            Step::Delete => Known::Deleted,
        };
    }

    /// Takes the steps and cuts the power: once the last is answered, or, given a time, so long after its beginning.
    fn run(&mut self, steps: &[Step], within: Option<Duration>) {
        for (i, &step) in steps.iter().enumerate() {
            if step.is_put() {
                self.begin(step);
            }
            let cut = within.filter(|_| i + 1 == steps.len());
            let done = std::thread::scope(|scope| {
                let acting = scope.spawn(|| self.act(step) && !self.cutting.load(Ordering::SeqCst));
                if let Some(wait) = cut {
                    std::thread::sleep(wait);
                    self.cut();
                }
                acting.join().unwrap()
            });
            assert!(done || cut.is_some(), "{step:?} failed with the power on");
            self.note(step, done);
        }
        if within.is_none() {
            self.cut();
        }
    }

    fn cut(&self) {
        self.cutting.store(true, Ordering::SeqCst);
        self.disks.iter().for_each(Disk::cut);
    }

    fn restart(&mut self) {
        drop(self.store.take());
        self.disks.iter().rev().for_each(Disk::unmount);
        self.disks.iter().for_each(Disk::mount);
        self.cutting.store(false, Ordering::SeqCst);
        self.store = Some(Store::open(self.options.clone()).unwrap());
    }

    /// All values from `first` on are what they may be, and so are those that were removed before; nothing else is there.
    fn check(&mut self, steps: &[Step], first: usize) {
        let store = self.store.as_ref().unwrap();
        // The removal of a file is not durable by itself: it may come back more than once.
        let looked_at = |(i, v): &(usize, &mut Value)| *i >= first || v.known == Known::Removed;
        for (_, v) in self.values.iter_mut().enumerate().filter(looked_at) {
            let what = format!("{steps:?}: {} of {} bytes, {:?}", v.new.key, v.len, v.known);
            let found = store.get(&v.new.key, v.new.version).unwrap_or_else(|e| panic!("{what}: {e}"));
            if let Some(stored) = &found {
                let parts = (0..stored.subtree_count()).map(|i| stored.read_subtree(i).unwrap_or_else(|e| panic!("{what}: {e}")));
                assert!(parts.collect::<Vec<_>>().concat() == v.bytes(), "{what}: other bytes");
                store.verify(&v.new.key, v.new.version).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            v.known = match (v.known, found) {
                (Known::Stored, None) => panic!("{what}: it is gone"),
                (Known::Deleted, Some(_)) => panic!("{what}: it came back"),
                (Known::Removed, Some(stored)) => {
                    assert_eq!(stored.entry.seq, None, "{what}: it came back as committed");
                    store.remove(&[ReclaimItem { key: v.new.key.clone(), version: v.new.version, deleted: None }]).unwrap();
                    Known::Removed
                }
                (_, Some(_)) => Known::Stored,
                (Known::Deleted, None) => Known::Deleted,
                (_, None) => Known::Removed,
            };
        }
        let stored: Vec<&Value> = self.values.iter().filter(|v| v.known == Known::Stored).collect();
        let status = store.status();
        assert_eq!((status.values, status.quarantined), (stored.len() as u64, 0), "{steps:?}");
        let (files, large) = (files_below(&self.options.dir.join("blobs")).len(), stored.iter().filter(|v| v.len == LARGE).count());
        assert_eq!(files, large, "{steps:?}: files without a value, or values without a file");
        assert!(files_below(&self.options.dir.join("tmp")).is_empty(), "{steps:?}: temporary files");
        assert!(!self.options.dir.join("index.damaged-1").exists(), "{steps:?}: the index was taken for damaged");
    }

    /// Makes room.
    fn clear(&mut self) {
        let store = self.store.as_ref().unwrap();
        for v in self.values.iter_mut().filter(|v| v.known == Known::Stored) {
            store.remove(&[ReclaimItem { key: v.new.key.clone(), version: v.new.version, deleted: None }]).unwrap();
            v.known = Known::Removed;
        }
    }
}

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[test]
fn what_the_store_acknowledged_survives_a_power_cut_at_any_point_of_short_sequences() {
    let seed = std::env::var("KVDB_POWER_SEED").map_or(u64::from(std::process::id()), |t| t.parse().expect("a number"));
    let rounds = std::env::var("KVDB_POWER_ROUNDS").unwrap_or_else(|_| ROUNDS.to_string());
    println!("KVDB_POWER_SEED={seed} KVDB_POWER_ROUNDS={rounds}");
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let dir = tempfile::tempdir().unwrap();
    let Some(mut world) = World::new(dir.path()) else { return };
    let (mut sequences, since) = (sequences(), Instant::now());
    for i in (1..sequences.len()).rev() {
        sequences.swap(i, usize::try_from(random.below(i as u64 + 1)).unwrap());
    }
    if rounds != "all" {
        sequences.truncate(rounds.parse().expect("a number or all"));
    }
    let mut undone = 0;
    for (n, steps) in sequences.iter().enumerate() {
        for cut_within in [false, true] {
            // A step takes up to some ten milliseconds, most often less.
            let longest = 1 << (6 + random.below(9));
            let within = Duration::from_micros(random.below(longest));
            let first = world.values.len();
            world.run(steps, cut_within.then_some(within));
            world.restart();
            undone += world.values[first..].iter().filter(|v| v.known == Known::InDoubt).count();
            world.check(steps, first);
        }
        if n % 32 == 31 {
            world.check(&[], 0);
            world.clear();
        }
    }
    world.check(&[], 0);
    drop(world.store.take());
    println!("{} power cuts in {:?}, {undone} of them before an answer", 2 * sequences.len(), since.elapsed());
}
