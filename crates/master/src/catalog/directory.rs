//! The catalog's directory: its lock, its format file, its secret, and the making of a new one.
//!
//! A new database is built as `db.new`, synced, and then renamed to `db`: a creation that was cut short
//! leaves only `db.new`, which holds nothing that was ever promised and is removed.

use super::error::CatalogError;
use super::keyspace::{CATALOG_FORMAT, OLDEST_FORMAT};
use super::sled_engine::sync_tree;
use kvdb_protocol::ClusterSecret;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const SECRET: &str = "secret";
const MARK: &str = "committed";
const DATABASE: &str = "db";
const NEW_DATABASE: &str = "db.new";
/// What may be in a directory that counts as empty.
const NOTHING: [&str; 4] = [LOCK, SECRET, NEW_DATABASE, "lost+found"];
const FORMAT_WORDS: &str = "kvdb catalog ";
/// Longest file of ours that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// A locked directory.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    /// Keeps the lock; the system drops it with the process.
    _lock: File,
}

impl Directory {
    /// Makes the directory where there is none, and locks it.
    pub(super) fn lock(dir: &Path) -> Result<Self, CatalogError> {
        if !dir.is_dir() {
            std::fs::create_dir_all(dir).and_then(|()| sync_parent(dir)).map_err(|e| CatalogError::file(dir, e))?;
        }
        let path = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| CatalogError::file(&path, e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_path_buf(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CatalogError::Locked(dir.to_path_buf())),
            Err(e) => Err(CatalogError::file(&path, e.into())),
        }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// Whether there is a database, whose format is checked first.
    pub(super) fn has_database(&self) -> Result<bool, CatalogError> {
        let format = self.format()?;
        let there = self.database().is_dir();
        if format.is_some() && !there {
            return Err(self.odd("its database (db) is missing; restore it, or make a new catalog with `kvdb rebuild`"));
        }
        Ok(there)
    }

    fn format(&self) -> Result<Option<u32>, CatalogError> {
        let Some(text) = self.read(FORMAT)? else { return Ok(None) };
        let number = text.trim_end().strip_prefix(FORMAT_WORDS).and_then(|n| n.parse::<u32>().ok());
        let found = number.ok_or_else(|| self.odd("its file `format` is not one of a kvDB catalog; give another directory"))?;
        self.check_format(found)?;
        Ok(Some(found))
    }

    pub(super) fn check_format(&self, found: u32) -> Result<(), CatalogError> {
        match found {
            OLDEST_FORMAT..=CATALOG_FORMAT => Ok(()),
            newer if newer > CATALOG_FORMAT => Err(CatalogError::NewerFormat { dir: self.dir.clone(), found, known: CATALOG_FORMAT }),
            older => Err(self.odd(&format!("its format {older} is not known"))),
        }
    }

    /// A place for a new database, empty.
    pub(super) fn new_database(&self) -> Result<PathBuf, CatalogError> {
        let path = self.dir.join(NEW_DATABASE);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CatalogError::file(&path, e)),
            _ => Ok(path),
        }
    }

    /// Makes the finished new database the catalog's.
    pub(super) fn take_new_database(&self) -> Result<(), CatalogError> {
        let (new, path) = (self.dir.join(NEW_DATABASE), self.database());
        sync_tree(&new).map_err(|e| CatalogError::file(&new, e))?;
        std::fs::rename(&new, &path).and_then(|()| sync_dir(&self.dir)).map_err(|e| CatalogError::file(&path, e))
    }

    /// Writes the format file where there is none, or one of an older format.
    pub(super) fn note_format(&self) -> Result<(), CatalogError> {
        match self.format()? {
            Some(CATALOG_FORMAT) => Ok(()),
            _ => self.write(FORMAT, &format!("{FORMAT_WORDS}{CATALOG_FORMAT}\n"), 0o644),
        }
    }

    /// Refuses a directory that holds anything.
    pub(super) fn must_be_empty(&self) -> Result<(), CatalogError> {
        let failed = |e| CatalogError::file(&self.dir, e);
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let found = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !NOTHING.contains(&found.as_str()) {
                return Err(CatalogError::NotEmpty { dir: self.dir.clone(), found });
            }
        }
        Ok(())
    }

    pub(super) fn secret(&self) -> Result<Option<ClusterSecret>, CatalogError> {
        let Some(text) = self.read(SECRET)? else { return Ok(None) };
        ClusterSecret::new(&text).map(Some).map_err(|e| self.odd(&format!("its file `secret` is not usable: {e}")))
    }

    /// Up to which commit the database was known to be durable. One that cannot be understood proves nothing.
    pub(super) fn mark(&self) -> Result<Option<u64>, CatalogError> {
        let Some(text) = self.read(MARK)? else { return Ok(None) };
        let seq = text.trim_end().parse().ok();
        if seq.is_none() {
            tracing::warn!(dir = %self.dir.display(), "its file `committed` is damaged and is made anew");
        }
        Ok(seq)
    }

    pub(super) fn marker(&self) -> Marker {
        Marker { dir: self.dir.clone() }
    }

    pub(super) fn store_secret(&self, secret: &ClusterSecret) -> Result<(), CatalogError> {
        self.write(SECRET, &format!("{}\n", secret.expose()), 0o600)
    }

    fn odd(&self, what: &str) -> CatalogError {
        CatalogError::NotACatalog { dir: self.dir.clone(), what: what.into() }
    }

    fn read(&self, name: &str) -> Result<Option<String>, CatalogError> {
        let path = self.dir.join(name);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| CatalogError::file(&path, e))?,
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|e| CatalogError::file(&path, e))?;
        Ok(Some(text))
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), CatalogError> {
        write_durably(&self.dir, name, text.as_bytes(), mode).map_err(|e| CatalogError::file(&self.dir.join(name), e))
    }
}

/// Notes outside of the database how far it has come: sled takes damage in its log for the log's end, and goes on from there.
#[derive(Debug)]
pub(super) struct Marker {
    dir: PathBuf,
}

impl Marker {
    /// The commits up to this one are durable.
    pub(super) fn note(&self, seq: u64) -> Result<(), CatalogError> {
        write_durably(&self.dir, MARK, format!("{seq}\n").as_bytes(), 0o644).map_err(|e| CatalogError::file(&self.dir.join(MARK), e))
    }
}

/// Write, sync, rename, sync the directory: the file is the old or the new one whole, whatever happens.
fn write_durably(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = File::options().create_new(true).write(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Syncs the parents of a directory that was just made.
fn sync_parent(dir: &Path) -> io::Result<()> {
    for parent in dir.ancestors().skip(1) {
        sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_holder_of_the_directory_is_refused_and_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::lock(dir.path()).unwrap();
        let error = Directory::lock(dir.path()).unwrap_err();
        assert!(matches!(error, CatalogError::Locked(_)) && error.to_string().contains("another master"), "{error}");
        drop(first);
        Directory::lock(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_or_foreign_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let d = Directory::lock(dir.path()).unwrap();
        std::fs::write(dir.path().join(FORMAT), "kvdb catalog 3\n").unwrap();
        let error = d.has_database().unwrap_err();
        assert!(matches!(error, CatalogError::NewerFormat { found: 3, known: 2, .. }), "{error}");
        std::fs::write(dir.path().join(FORMAT), "other\n").unwrap();
        assert!(matches!(d.has_database(), Err(CatalogError::NotACatalog { .. })));
        for old in ["kvdb catalog 0\n", "kvdb catalog 1\n", "kvdb catalog 2\n"] {
            std::fs::write(dir.path().join(FORMAT), old).unwrap();
            assert!(matches!(d.has_database(), Err(CatalogError::NotACatalog { .. })), "its database is missing, or its format is unknown");
        }
    }

    #[test]
    fn the_mark_is_the_last_one_noted_and_a_damaged_one_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let d = Directory::lock(dir.path()).unwrap();
        assert_eq!(d.mark().unwrap(), None);
        d.marker().note(41).unwrap();
        d.marker().note(42).unwrap();
        assert_eq!(d.mark().unwrap(), Some(42));
        std::fs::write(dir.path().join(MARK), "4\u{0}2\n").unwrap();
        assert_eq!(d.mark().unwrap(), None);
    }

    #[test]
    fn the_secret_is_kept_for_its_owner_alone_and_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let d = Directory::lock(dir.path()).unwrap();
        assert_eq!(d.secret().unwrap(), None);
        for secret in [ClusterSecret::random(), ClusterSecret::random()] {
            d.store_secret(&secret).unwrap();
            assert_eq!(d.secret().unwrap(), Some(secret));
        }
        let mode = std::fs::metadata(dir.path().join(SECRET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn only_a_directory_with_nothing_of_use_in_it_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let d = Directory::lock(dir.path()).unwrap();
        d.store_secret(&ClusterSecret::random()).unwrap();
        d.must_be_empty().unwrap();
        std::fs::write(dir.path().join("notes"), "").unwrap();
        assert!(matches!(d.must_be_empty(), Err(CatalogError::NotEmpty { found, .. }) if found == "notes"));
    }
}
