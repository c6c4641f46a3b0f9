//! A journal before the database: a batch is durable after one write and one sync of a file that does not grow, where sled would
//! wake its threads several times and sync twice. The database catches up now and then.
//!
//! Two files take turns. Whoever begins one anew has made the database durable up to there, so what the other one holds is not
//! needed any more, and is kept until the new one has a record.

use super::engine::{Batch, EngineError};
use super::journal_format::{self as format, Run, SECTOR, Salt};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const FILES: [&str; 2] = ["journal.0", "journal.1"];
/// Length of a file, in bytes: what the database may be behind, and a large batch. A file that must be longer grows.
const FILE_BYTES: usize = 256 << 10;
/// Longest file that is read, in bytes: a batch has far less.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Whether a journal was made in a directory, whole.
pub(super) fn is_there(dir: &Path) -> bool {
    FILES.iter().all(|name| dir.join(name).exists())
}

/// The files of a journal.
pub(super) struct Journal {
    files: [(File, Salt); 2],
    /// The file in use.
    turn: usize,
    /// Where the next record goes; none: the other file begins anew.
    at: Option<u64>,
    /// Number of the first record of the file in use.
    first: u64,
    /// Number of the next record.
    next: u64,
}

impl Journal {
    /// Makes one in a directory; what is left of an earlier try is replaced. Durable on return.
    pub(super) fn create(dir: &Path) -> Result<(), EngineError> {
        for name in FILES {
            let path = dir.join(name);
            let new = dir.join(format!("{name}.new"));
            let salt: Salt = rand::random();
            let mut bytes = format::file_head(&salt);
            bytes.resize(FILE_BYTES, 0);
            let made = File::options().create(true).truncate(true).write(true).mode(0o640).open(&new);
            made.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
                .and_then(|()| std::fs::rename(&new, &path))
                .map_err(|e| failed(&path, &e))?;
        }
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| failed(dir, &e))
    }

    /// Opens it, with what the database may lack, given the number of the last batch that the database has.
    pub(super) fn open(dir: &Path, last: u64) -> Result<(Self, Option<Run>), EngineError> {
        let [a, b] = FILES.map(|name| read(&dir.join(name)));
        let ((a, a_bytes), (b, b_bytes)) = (a?, b?);
        let damaged = |e: format::JournalDamage| EngineError::Corrupt(format!("its journal: {e}"));
        let (turn, run) = format::last_run(&[&a_bytes, &b_bytes]).map_err(damaged)?.map_or((0, None), |(at, run)| (at, Some(run)));
        if let Some(run) = run.as_ref().filter(|run| run.first > last.saturating_add(1)) {
            let what = format!("batch {} was durable, and it ends at {last}", run.first.saturating_sub(1));
            return Err(EngineError::Corrupt(what));
        }
        let end = run.as_ref().map_or(0, |run| run.first.saturating_add(run.batches.len() as u64));
        let files = [(a, format::salt(&a_bytes).map_err(damaged)?), (b, format::salt(&b_bytes).map_err(damaged)?)];
        Ok((Self { files, turn, at: None, first: 0, next: end.max(last.saturating_add(1)) }, run))
    }

    /// Number of the last batch, which may be one before the first.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// The database has all batches so far, durably.
    pub(super) fn caught_up(&mut self) {
        self.at = None;
    }

    /// Makes a batch durable.
    pub(super) fn write(&mut self, batch: &Batch, sync: bool) -> Result<(), EngineError> {
        let at = match self.at {
            Some(at) => at,
            None => {
                self.turn = 1 - self.turn;
                self.first = self.next;
                SECTOR as u64
            }
        };
        let [a, b] = &self.files;
        let (file, salt) = if self.turn == 0 { a } else { b };
        let record = format::record(salt, self.next, self.first, batch).ok_or_else(|| EngineError::Io("a batch is too large".into()))?;
        file.write_all_at(&record, at)
            .and_then(|()| if sync { file.sync_data() } else { Ok(()) })
            .map_err(|e| EngineError::Io(format!("the journal: {e}")))?;
        self.at = Some(at + record.len() as u64);
        self.next += 1;
        Ok(())
    }
}

fn read(path: &Path) -> Result<(File, Vec<u8>), EngineError> {
    let file = File::options().read(true).write(true).open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => EngineError::Corrupt(format!("its {} is missing", name(path))),
        _ => failed(path, &e),
    })?;
    let len = file.metadata().map_err(|e| failed(path, &e))?.len();
    if len > MAX_FILE_BYTES {
        return Err(EngineError::Corrupt(format!("its {} has {len} bytes", name(path))));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(|e| failed(path, &e))?;
    Ok((file, bytes))
}

fn name(path: &Path) -> String {
    path.file_name().map(PathBuf::from).unwrap_or_default().display().to_string()
}

fn failed(path: &Path, e: &io::Error) -> EngineError {
    EngineError::Io(format!("{}: {e}", name(path)))
}
