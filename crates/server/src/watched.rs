//! A file of settings that is read at the start, and again when it changes or on SIGHUP.
//!
//! What cannot be read or understood at the start is an error. Later it is a line of the log, and what was read last stays.

use kvdb_protocol::ContentHash;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Most bytes of such a file: 4 MiB.
pub const MAX_BYTES: u64 = 4 << 20;
/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// A file that was written this recently may be written once more without a trace in its times, so it is read again.
const UNSETTLED: Duration = Duration::from_secs(2);

/// Makes settings of a file's bytes, or says what is wrong with them.
pub type Parse<T> = fn(&[u8]) -> Result<T, String>;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the file of {what} {path}: {why}", path = .path.display())]
pub struct WatchedError {
    what: &'static str,
    path: PathBuf,
    why: String,
}

/// Settings out of a file, as they were read last.
pub struct Watched<T> {
    what: &'static str,
    path: PathBuf,
    parse: Parse<T>,
    current: watch::Sender<Arc<T>>,
    seen: Mutex<Seen>,
}

/// What was found at the last look.
struct Seen {
    stamp: Option<Stamp>,
    /// The content, or why it could not be read.
    content: Result<ContentHash, String>,
    settled: bool,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            inode: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the file. `what` names its content in errors and logs, as in "tokens".
    pub fn open(path: &Path, what: &'static str, parse: Parse<T>) -> Result<Arc<Self>, WatchedError> {
        let (seen, bytes) = look_at(path);
        let parsed = bytes.and_then(|b| parse(&b));
        let value = parsed.map_err(|why| WatchedError { what, path: path.into(), why })?;
        let current = watch::Sender::new(Arc::new(value));
        Ok(Arc::new(Self { what, path: path.into(), parse, current, seen: Mutex::new(seen) }))
    }

    /// The settings as of now.
    pub fn get(&self) -> Arc<T> {
        self.current.borrow().clone()
    }

    /// Tells of each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        self.current.subscribe()
    }

    /// Looks at the file once a second and at each SIGHUP, until the task is aborted. To be called inside a runtime.
    pub fn follow(self: &Arc<Self>) -> JoinHandle<()> {
        let watched = Arc::clone(self);
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::error!(%error, "cannot handle SIGHUP; changed files are still seen"))
            .ok();
        tokio::spawn(async move {
            loop {
                let asked = async {
                    match &mut hangup {
                        Some(hangup) => drop(hangup.recv().await),
                        None => std::future::pending().await,
                    }
                };
                let asked = tokio::time::timeout(PERIOD, asked).await.is_ok();
                let watched = Arc::clone(&watched);
                if let Err(error) = tokio::task::spawn_blocking(move || watched.look(asked)).await {
                    tracing::error!(%error, "a task that looks at a file died");
                }
            }
        })
    }

    /// Takes what is there if it changed since the last look; `asked`: or if somebody wants it read anew.
    fn look(&self, asked: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = std::fs::metadata(&self.path).ok().map(|m| Stamp::of(&m));
        if !asked && seen.settled && stamp == seen.stamp {
            return;
        }
        let (now, bytes) = look_at(&self.path);
        let same = now.content == seen.content;
        *seen = now;
        if same && !asked {
            return;
        }
        match bytes.and_then(|b| (self.parse)(&b)) {
            Ok(value) => {
                self.current.send_replace(Arc::new(value));
                tracing::info!(path = %self.path.display(), what = self.what, "a file was read anew");
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), what = self.what, error, "a file cannot be used; what was read before stays");
            }
        }
    }
}

fn look_at(path: &Path) -> (Seen, Result<Vec<u8>, String>) {
    let read = read(path);
    let now = SystemTime::now();
    let settled = |m: &Metadata| m.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > UNSETTLED));
    match read {
        Ok((meta, bytes)) => {
            let seen = Seen { stamp: Some(Stamp::of(&meta)), content: Ok(ContentHash::of(&bytes)), settled: settled(&meta) };
            (seen, Ok(bytes))
        }
        Err(error) => {
            let why = error.to_string();
            (Seen { stamp: None, content: Err(why.clone()), settled: false }, Err(why))
        }
    }
}

fn read(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    // Before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok((meta, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<String, String> {
        String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())
    }

    fn opened(content: &[u8]) -> (tempfile::TempDir, PathBuf, Arc<Watched<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        let watched = Watched::open(&path, "words", parse).unwrap();
        (dir, path, watched)
    }

    #[test]
    fn a_change_is_taken_even_if_size_and_times_stay_as_they_were() {
        let (_dir, path, watched) = opened(b"one");
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let told = watched.subscribe();
        std::fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        watched.look(false);
        assert_eq!(*watched.get(), "two");
        assert!(told.has_changed().unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_what_was_there() {
        let (_dir, path, watched) = opened(b"one");
        std::fs::write(&path, b"\xff").unwrap();
        watched.look(false);
        watched.look(true);
        assert_eq!(*watched.get(), "one");
        std::fs::remove_file(&path).unwrap();
        watched.look(false);
        assert_eq!(*watched.get(), "one");
        std::fs::write(&path, "three").unwrap();
        watched.look(false);
        assert_eq!(*watched.get(), "three");
    }

    #[test]
    fn a_file_that_is_replaced_by_another_is_read() {
        let (dir, path, watched) = opened(b"one");
        let new = dir.path().join("new");
        std::fs::write(&new, "two").unwrap();
        std::fs::rename(&new, &path).unwrap();
        watched.look(false);
        assert_eq!(*watched.get(), "two");
    }

    #[test]
    fn what_is_no_file_is_missing_or_too_large_cannot_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let why = |path: &Path| Watched::open(path, "words", parse).err().unwrap().to_string();
        assert!(why(&path).contains("file of words"), "{}", why(&path));
        assert!(why(dir.path()).contains("not a regular file"));
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(why(&path).contains("more than"));
    }
}
