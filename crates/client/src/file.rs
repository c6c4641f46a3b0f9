//! Reading a value into a file: all of it, or nothing is left.

use crate::client::Client;
use crate::error::Error;
use crate::get::Reader;
use crate::info::Info;
use crate::source::Progress;
use bytes::Bytes;
use kvdb_protocol::Key;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Chunks that may wait for the disk.
const WRITE_BEHIND: usize = 8;

impl Client {
    /// Reads a value into a file, which appears, or is replaced, when all of it was received and found right
    /// and is on stable storage. Until then the bytes are in a hidden file beside it; a failure, or dropping
    /// the future, removes that.
    pub async fn get_to_file(&self, key: &Key, target: impl AsRef<Path>, progress: Progress) -> Result<Info, Error> {
        let reader = self.get(key).await?;
        let info = reader.info().clone();
        let path = target.as_ref().to_path_buf();
        let failed = |error| Error::Target { path: path.clone(), error };
        // Before the first byte is read, so that a target that cannot be written is told of at once.
        let create = {
            let path = path.clone();
            move || Partial::create(&path)
        };
        let partial = tokio::task::spawn_blocking(create).await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(failed)?;
        let (to, from) = mpsc::channel(WRITE_BEHIND);
        // The whole file is written in one go on a blocking thread; it ends when the channel does.
        let writer = tokio::task::spawn_blocking(move || write_file(partial, from));
        let sent = forward(reader, &to, &progress).await;
        let message = if sent.is_ok() { Message::Complete } else { Message::Discard };
        // Whether it is still there is what `writer` answers below.
        let gone = to.send(message).await.is_err();
        let written = writer.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        match (sent, written) {
            (Err(Some(e)), _) => Err(e),
            (_, Err(e)) => Err(failed(e)),
            (Ok(()), Ok(())) if !gone => Ok(info),
            _ => Err(failed(io::Error::other("the writer ended early"))),
        }
    }
}

/// What the writing thread is told.
enum Message {
    Bytes(Bytes),
    Complete,
    Discard,
}

/// Hands the value to the writer. `Err(None)`: the writer is gone, and knows why.
async fn forward(mut reader: Reader, to: &mpsc::Sender<Message>, progress: &Progress) -> Result<(), Option<Error>> {
    let total = reader.remaining();
    progress.set(0);
    while let Some(chunk) = reader.chunk().await.map_err(Some)? {
        to.send(Message::Bytes(chunk)).await.map_err(|_| None)?;
        progress.set(total - reader.remaining());
    }
    Ok(())
}

fn write_file(mut partial: Partial, mut from: mpsc::Receiver<Message>) -> io::Result<()> {
    loop {
        match from.blocking_recv() {
            Some(Message::Bytes(b)) => partial.file.write_all(&b)?,
            Some(Message::Complete) => return partial.finish(),
            // A closed channel without a word: the future was dropped.
            Some(Message::Discard) | None => return Ok(()),
        }
    }
}

/// The hidden file beside the target; removed unless it was finished.
struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Partial {
    fn create(target: &Path) -> io::Result<Self> {
        let (target, permissions) = resolve(target)?;
        let Some(name) = target.file_name() else { return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file")) };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.part", std::hash::RandomState::new().build_hasher().finish()));
        let path = target.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let partial = Self { file, path, target, finished: false };
        if let Some(p) = permissions {
            partial.file.set_permissions(p)?;
        }
        Ok(partial)
    }

    fn finish(mut self) -> io::Result<()> {
        put_in_place(&self.file, &self.path, &self.target)?;
        self.finished = true;
        Ok(())
    }
}

/// Makes a file durable and gives it its name, in this order, so that a power cut leaves the old file or the new one.
pub(crate) fn put_in_place(file: &File, path: &Path, target: &Path) -> io::Result<()> {
    file.sync_data()?;
    std::fs::rename(path, target)?;
    let directory = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()
}

/// The file that a rename would replace: behind symbolic links, and never a device or the like.
pub(crate) fn resolve(target: &Path) -> io::Result<(PathBuf, Option<Permissions>)> {
    match std::fs::metadata(target) {
        Ok(m) if m.is_file() => Ok((target.canonicalize()?, Some(m.permissions()))),
        Ok(m) if m.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((target.into(), None)),
        Err(e) => Err(e),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what was received; remove it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn store(target: &Path) -> io::Result<()> {
        let mut partial = Partial::create(target)?;
        partial.file.write_all(b"new")?;
        partial.finish()
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions_and_links_to_it_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("f"), dir.path().join("l"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        store(&link).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(link.is_symlink());
    }

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for target in [dir.path(), Path::new("/dev/null"), Path::new("/")] {
            assert!(store(target).is_err(), "{}", target.display());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_partial_file_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Partial::create(&dir.path().join("f")).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
