//! The only file I/O of a volume, apart from its index: synchronous, on `std::fs` and rustix.

mod buffer;
mod direct;
mod resident;
mod walk;
mod writer;
mod writers;

pub use buffer::{AlignedBuffer, BLOCK_BYTES, BUFFER_BYTES, BufferPool, LAST_WRITE_BYTES};
pub use direct::DiskReader;
pub use resident::{HUGE_PAGE_BYTES, bring_in, is_absent, is_known, is_resident, no_read_ahead};
pub use walk::{blob_dirs, blob_path, list, list_blobs};
pub use writer::BlobWriter;
pub use writers::{Seat, Writers};

use kvdb_protocol::lab::{self, Bug};
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What was tried when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a file or directory.
    Create,
    /// Open a file or directory.
    Open,
    /// Reserve space.
    Reserve,
    /// Write.
    Write,
    /// Set a file's length.
    Truncate,
    /// Make a file durable.
    Sync,
    /// Make the names in a directory durable.
    SyncDir,
    /// Give a file its name.
    Rename,
    /// Remove a file.
    Remove,
    /// List a directory.
    List,
    /// Read.
    Read,
    /// Ask for properties.
    Stat,
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Reserve => "reserve space for",
            Self::Write => "write",
            Self::Truncate => "set the length of",
            Self::Sync => "sync",
            Self::SyncDir => "sync the directory",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Read => "read",
            Self::Stat => "examine",
        })
    }
}

/// An operation that the operating system refused.
#[derive(Debug, Error)]
#[error("cannot {op} {}: {source}", path.display())]
pub struct DiskError {
    /// What was tried.
    pub op: Op,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Whether there is no room: bytes, quota or inodes.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether a name is taken already.
    pub fn is_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether a sync failed for another reason than room: what is on the disk is not known then.
    pub fn is_failed_sync(&self) -> bool {
        matches!(self.op, Op::Sync | Op::SyncDir) && !self.is_no_space()
    }

    /// Whether the process or the system has no file descriptor left.
    pub fn is_no_descriptor(&self) -> bool {
        matches!(self.source.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::MFILE | Errno::NFILE))
    }

    /// Whether the disk fails there, or holds something else than a file: trying again is of no use.
    pub fn is_unreadable(&self) -> bool {
        is_unreadable(&self.source)
    }

    /// Whether the directory takes no writes.
    pub fn is_read_only(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    }
}

/// Whether an error tells of the disk's state, and not of the system's or the process's.
pub fn is_unreadable(e: &io::Error) -> bool {
    const FAILING: [Errno; 7] = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::REMOTEIO, Errno::ILSEQ, Errno::LOOP];
    match e.raw_os_error() {
        Some(code) => FAILING.contains(&Errno::from_raw_os_error(code)),
        // What `open_regular` says of what is no file.
        None => e.kind() == io::ErrorKind::InvalidInput,
    }
}

/// Adds what was tried, and on what, to an error of the operating system.
pub trait Context<T> {
    /// Adds it.
    ///
    /// # Errors
    /// The error that it was given.
    fn at(self, op: Op, path: &Path) -> Result<T, DiskError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn at(self, op: Op, path: &Path) -> Result<T, DiskError> {
        self.map_err(|e| DiskError { op, path: path.to_path_buf(), source: e.into() })
    }
}

/// Whether [`publish`] may take the place of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It may.
    Replace,
    /// It must not: the answer is then an error of kind `AlreadyExists`.
    Keep,
}

/// Gives a written file its name, durably: sync, rename, sync of the directory. All files that must
/// survive a power cut come through here, so that no step can be forgotten.
///
/// # Errors
/// Of [`Op::Sync`] or [`Op::SyncDir`]: nothing is known of what is on the disk; it must not be tried again.
/// Of [`Op::SyncDir`] alone the file has its new name already, if only in memory.
pub fn publish(file: &File, from: &Path, to: &Path, existing: Existing) -> Result<(), DiskError> {
    if !lab::has(Bug::BlobNotSynced) {
        file.sync_data().at(Op::Sync, from)?;
    }
    match existing {
        Existing::Replace => std::fs::rename(from, to).at(Op::Rename, to)?,
        Existing::Keep => rename_beside(from, to)?,
    }
    if lab::has(Bug::NameNotSynced) { Ok(()) } else { sync_parent(to) }
}

/// Renames, unless the new name is taken.
fn rename_beside(from: &Path, to: &Path) -> Result<(), DiskError> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system has this flag. Nobody else makes files here: looking first is as good.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if to.symlink_metadata().is_ok() => Err(Errno::EXIST).at(Op::Rename, to),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(from, to).at(Op::Rename, to),
        other => other.at(Op::Rename, to),
    }
}

/// Writes a small file whole and durably, in place of what was there.
///
/// # Errors
/// The old content stands, unless it is an error of a sync.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DiskError> {
    let temporary = temporary_name(path);
    remove_if_there(&temporary)?;
    let mut file = create_new(&temporary, mode)?;
    let written = file.write_all(bytes).at(Op::Write, &temporary);
    let published = written.and_then(|()| publish(&file, &temporary, path, Existing::Replace));
    if published.is_err() {
        // The first error is the one to tell; a leftover is dropped the next time.
        let _ = std::fs::remove_file(&temporary);
    }
    published
}

/// The name under which [`replace_file`] writes before it renames.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Makes a file that must not exist, for writing.
///
/// # Errors
/// It exists, or cannot be made.
pub fn create_new(path: &Path, mode: u32) -> Result<File, DiskError> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).at(Op::Create, path)
}

/// Opens a regular file for reading. Symbolic links are not followed, and nothing else is waited for.
///
/// # Errors
/// It is not there, is not a regular file, or cannot be opened.
pub fn open_regular(path: &Path) -> Result<File, DiskError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at(Op::Open, path)?;
    if !file.metadata().at(Op::Stat, path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")).at(Op::Open, path);
    }
    Ok(file)
}

/// Makes a directory where there is none yet. Returns whether it was made; the caller syncs its parent.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn ensure_dir(path: &Path) -> Result<bool, DiskError> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::symlink_metadata(path).at(Op::Stat, path)?;
            if found.is_dir() {
                return Ok(false);
            }
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory")).at(Op::Create, path)
        }
        Err(e) => Err(e).at(Op::Create, path),
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// As of [`publish`].
pub fn sync_dir(path: &Path) -> Result<(), DiskError> {
    File::open(path).at(Op::Open, path)?.sync_all().at(Op::SyncDir, path)
}

/// Makes the name of a file durable.
///
/// # Errors
/// As of [`publish`].
pub fn sync_parent(path: &Path) -> Result<(), DiskError> {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => sync_dir(p),
        _ => sync_dir(Path::new(".")),
    }
}

/// Removes a file; that it is not there is fine.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at(Op::Remove, path),
        _ => Ok(()),
    }
}

/// Moves a file, durably as to where it is gained; a name that is taken is not replaced.
///
/// # Errors
/// It cannot be moved.
pub fn move_file(from: &Path, to: &Path) -> Result<(), DiskError> {
    rename_beside(from, to)?;
    sync_parent(to)?;
    sync_parent(from)
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its size.
    pub total: u64,
    /// What an ordinary user may still take.
    pub available: u64,
}

/// Room on the file system of `path`.
///
/// # Errors
/// The path is gone.
pub fn room(path: &Path) -> Result<Room, DiskError> {
    let s = rustix::fs::statvfs(path).at(Op::Stat, path)?;
    Ok(Room { total: s.f_blocks.saturating_mul(s.f_frsize), available: s.f_bavail.saturating_mul(s.f_frsize) })
}

/// Fails as making a file would where the file system of `path` has no inode left for one.
///
/// # Errors
/// There is none left, or the path is gone.
pub fn room_for_a_file(path: &Path) -> Result<(), DiskError> {
    let s = rustix::fs::statvfs(path).at(Op::Stat, path)?;
    // Some file systems do not count them, and say 0 of 0.
    if s.f_files > 0 && s.f_favail == 0 { Err(Errno::NOSPC).at(Op::Create, path) } else { Ok(()) }
}

/// Makes everything on the file system of `path` durable.
///
/// # Errors
/// As of [`publish`].
pub fn sync_file_system(path: &Path) -> Result<(), DiskError> {
    let dir = File::open(path).at(Op::Open, path)?;
    rustix::fs::syncfs(&dir).at(Op::Sync, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace_file(&path, b"one", 0o600).unwrap();
        std::fs::write(temporary_name(&path), b"left over").unwrap();
        replace_file(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn publishing_beside_a_file_that_is_kept_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&to, b"old").unwrap();
        let file = create_new(&from, 0o600).unwrap();
        let e = publish(&file, &from, &to, Existing::Keep).unwrap_err();
        assert!(e.is_exists(), "{e}");
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
    }

    #[test]
    fn links_pipes_and_directories_are_not_opened_as_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        std::fs::write(at("file"), b"x").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("dirlink")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(open_regular(&at("file")).is_ok());
        for name in ["link", "pipe", "nothing"] {
            assert!(open_regular(&at(name)).is_err(), "{name}");
        }
        assert!(open_regular(dir.path()).is_err());
        for name in ["link", "dirlink", "file", "pipe"] {
            assert!(ensure_dir(&at(name)).is_err(), "{name}");
        }
        assert!(ensure_dir(&at("new")).unwrap());
        assert!(!ensure_dir(&at("new")).unwrap());
    }
}
