//! The bytes of the journal: see `docs/format-catalog.md`.

use super::engine::Batch;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Records begin at multiples of this.
pub const SECTOR: usize = 512;
const FILE_MAGIC: [u8; 8] = *b"kvdbjrn1";
const RECORD_MAGIC: [u8; 8] = *b"kvdbjrec";
const SALT_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
/// Magic, number, first, length.
const FIXED_BYTES: usize = 8 + 8 + 8 + 4;
const HEAD_BYTES: usize = FIXED_BYTES + HASH_BYTES;

/// What makes the records of one file its own: no key or value of a client can look like a record.
pub type Salt = [u8; SALT_BYTES];

/// What a batch writes: for each key its new value, or none where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writes(pub Vec<(Vec<u8>, Option<Vec<u8>>)>);

#[derive(Serialize)]
struct WritesOf<'a>(Vec<(&'a [u8], Option<&'a [u8]>)>);

/// Batches that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of the first.
    pub first: u64,
    /// All of them.
    pub batches: Vec<Writes>,
}

/// Why a file of the journal cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JournalDamage {
    /// Its first sector.
    #[error("its head is not that of a journal")]
    Head,
    /// A record that is followed by later ones.
    #[error("a record in its middle is damaged")]
    Middle,
    /// A record that is whole says what no record says.
    #[error("a record cannot be understood")]
    Record,
}

/// The first sector of a file.
pub fn file_head(salt: &Salt) -> Vec<u8> {
    let mut head = [FILE_MAGIC.as_slice(), salt].concat();
    let hash = blake3::hash(&head);
    head.extend_from_slice(hash.as_bytes());
    head.resize(SECTOR, 0);
    head
}

pub(super) fn salt(file: &[u8]) -> Result<Salt, JournalDamage> {
    let salt = file.get(FILE_MAGIC.len()..).and_then(|rest| rest.first_chunk()).ok_or(JournalDamage::Head)?;
    if file.starts_with(&file_head(salt)) { Ok(*salt) } else { Err(JournalDamage::Head) }
}

/// A record of a batch, up to the end of its last sector. None: it is too long.
pub(super) fn record(salt: &Salt, number: u64, first: u64, batch: &Batch) -> Option<Vec<u8>> {
    framed(salt, number, first, &postcard::to_allocvec(&WritesOf(batch.writes().collect())).ok()?)
}

/// A record of what a batch writes, which is encoded already.
pub fn framed(salt: &Salt, number: u64, first: u64, payload: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity((HEAD_BYTES + payload.len()).next_multiple_of(SECTOR));
    bytes.extend_from_slice(&RECORD_MAGIC);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    let hash = hash(salt, &bytes, payload);
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    Some(bytes)
}

fn hash(salt: &Salt, fixed: &[u8], payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(salt);
    hasher.update(fixed).update(payload);
    hasher.finalize()
}

struct Found<'a> {
    number: u64,
    first: u64,
    payload: &'a [u8],
}

/// The record that begins here, if it is whole.
fn whole<'a>(salt: &Salt, bytes: &'a [u8]) -> Option<Found<'a>> {
    let (fixed, rest) = bytes.split_at_checked(FIXED_BYTES)?;
    let (given, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
    let (magic, numbers) = fixed.split_first_chunk::<8>()?;
    let (number, numbers) = numbers.split_first_chunk::<8>()?;
    let (first, len) = numbers.split_first_chunk::<8>()?;
    let len = usize::try_from(u32::from_le_bytes(*len.first_chunk()?)).ok()?;
    let payload = rest.get(..len)?;
    if *magic != RECORD_MAGIC || hash(salt, fixed, payload) != *given {
        return None;
    }
    Some(Found { number: u64::from_le_bytes(*number), first: u64::from_le_bytes(*first), payload })
}

/// What one file holds.
struct Holds {
    /// The run that begins where runs begin.
    run: Result<Option<Run>, JournalDamage>,
    /// Number of the first batch of the last run of which it has anything.
    latest: Option<u64>,
}

fn holds(file: &[u8]) -> Result<Holds, JournalDamage> {
    let salt = salt(file)?;
    let mut held = Holds { run: Ok(None), latest: None };
    let (mut at, mut in_run) = (SECTOR, true);
    while let Some(rest) = file.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(found) = whole(&salt, rest) else {
            in_run = false;
            at += SECTOR;
            continue;
        };
        held.latest = held.latest.max(Some(found.first));
        held.run = held.run.and_then(|run| take(run, &found, &mut in_run));
        at += (HEAD_BYTES + found.payload.len()).next_multiple_of(SECTOR);
    }
    Ok(held)
}

/// Adds a record to the run, if it is its next one.
fn take(run: Option<Run>, found: &Found<'_>, in_run: &mut bool) -> Result<Option<Run>, JournalDamage> {
    let (first, begun) = run.as_ref().map_or((found.number, 0), |r| (r.first, r.batches.len() as u64));
    if *in_run && found.first == first && first.checked_add(begun) == Some(found.number) {
        let (batch, rest) = postcard::take_from_bytes(found.payload).map_err(|_| JournalDamage::Record)?;
        if !rest.is_empty() {
            return Err(JournalDamage::Record);
        }
        let mut run = run.unwrap_or(Run { first, batches: Vec::new() });
        run.batches.push(batch);
        return Ok(Some(run));
    }
    *in_run = false;
    // Something between the run and this record of it is gone. Records of earlier runs, which were longer, do no harm.
    if run.as_ref().is_some_and(|r| r.first == found.first) { Err(JournalDamage::Middle) } else { Ok(run) }
}

/// The last run of a journal of these files, and in which of them it is. What was being written when the machine went down, and
/// never answered, is not in it.
///
/// # Errors
/// What should be there is damaged.
pub fn last_run(files: &[&[u8]]) -> Result<Option<(usize, Run)>, JournalDamage> {
    let held = files.iter().map(|file| holds(file)).collect::<Result<Vec<_>, _>>()?;
    let Some((at, last)) = held.into_iter().enumerate().max_by_key(|(_, h)| h.latest) else { return Ok(None) };
    match (last.latest, last.run?) {
        (None, _) => Ok(None),
        (Some(latest), Some(run)) if run.first == latest => Ok(Some((at, run))),
        // Its first record is gone, and a later one is there.
        (Some(_), _) => Err(JournalDamage::Middle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = [7; SALT_BYTES];

    fn batch(n: u64) -> Batch {
        let mut batch = Batch::default();
        batch.put(n.to_le_bytes(), vec![n as u8; 700]);
        batch.delete(b"gone".as_slice());
        batch
    }

    fn writes(n: u64) -> Writes {
        Writes(batch(n).writes().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect())
    }

    /// A file with these runs, from the first batch to before the last, one written over the other.
    fn file(runs: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = file_head(&SALT);
        bytes.resize(64 << 10, 0);
        for (first, end) in runs.iter().copied() {
            let mut at = SECTOR;
            for n in first..end {
                let record = record(&SALT, n, first, &batch(n)).unwrap();
                bytes[at..at + record.len()].copy_from_slice(&record);
                at += record.len();
            }
        }
        bytes
    }

    fn run(numbers: std::ops::Range<u64>) -> Run {
        Run { first: numbers.start, batches: numbers.map(writes).collect() }
    }

    #[test]
    fn the_last_run_is_found_whatever_is_left_of_those_before() {
        let empty = file(&[]);
        assert_eq!(last_run(&[&empty, &empty]), Ok(None));
        assert_eq!(last_run(&[&file(&[(1, 5)]), &empty]), Ok(Some((0, run(1..5)))));
        assert_eq!(last_run(&[&file(&[(1, 5)]), &file(&[(5, 7)])]), Ok(Some((1, run(5..7)))));
        assert_eq!(last_run(&[&file(&[(1, 5), (7, 8)]), &file(&[(5, 7)])]), Ok(Some((0, run(7..8)))));
    }

    #[test]
    fn a_last_record_that_is_cut_off_is_as_if_it_had_never_been_and_any_other_is_damage() {
        let record_bytes = record(&SALT, 1, 1, &batch(1)).unwrap().len();
        for lost in 0..4 {
            let mut cut = file(&[(1, 3), (7, 11)]);
            cut[SECTOR + lost * record_bytes + 40] ^= 1;
            let left = last_run(&[&cut, &file(&[(3, 7)])]);
            let want = if lost < 3 { Err(JournalDamage::Middle) } else { Ok(Some((0, run(7..10)))) };
            assert_eq!(left, want, "record {lost}");
        }
        let mut old = file(&[(1, 5)]);
        old[SECTOR + record_bytes + 40] ^= 1;
        assert_eq!(last_run(&[&old, &file(&[(5, 7)])]), Ok(Some((1, run(5..7)))), "what is not needed any more");
        let mut begun = file(&[(1, 5), (7, 8)]);
        begun[SECTOR + 40] ^= 1;
        assert_eq!(last_run(&[&begun, &file(&[(5, 7)])]), Ok(Some((1, run(5..7)))), "the first record of a new run was cut off");
    }

    #[test]
    fn a_value_that_holds_a_record_of_another_journal_is_no_record() {
        let forged = record(&[8; SALT_BYTES], 1 << 40, 1 << 40, &batch(3)).unwrap();
        let mut holding = Batch::default();
        // As it lies in the file, with the forged record at the begin of a sector.
        let before = HEAD_BYTES + 1 + 1 + b"k".len() + 1 + 2;
        holding.put(b"k".as_slice(), [vec![0; SECTOR - before], forged.clone()].concat());
        let holding = record(&SALT, 2, 1, &holding).unwrap();
        assert_eq!(holding[SECTOR..][..8], RECORD_MAGIC);
        let mut bytes = file(&[(1, 2)]);
        let at = SECTOR + record(&SALT, 1, 1, &batch(1)).unwrap().len();
        bytes[at..at + holding.len()].copy_from_slice(&holding);
        bytes[at + 40] ^= 1;
        assert_eq!(last_run(&[&bytes]), Ok(Some((0, run(1..2)))));
    }

    #[test]
    fn a_head_that_is_not_whole_is_refused() {
        let good = file(&[(1, 2)]);
        for at in [0, 8, 39, 40, 71] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(last_run(&[&bad]), Err(JournalDamage::Head), "byte {at}");
        }
        assert_eq!(last_run(&[&[]]), Err(JournalDamage::Head));
    }
}
