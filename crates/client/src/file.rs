//! Reading a value into a file: all of it, or nothing is left.

use crate::client::Client;
use crate::error::Error;
use crate::get::Reader;
use crate::info::Info;
use crate::source::Progress;
use bytes::Bytes;
use kvdb_protocol::Key;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
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
        let (to, from) = mpsc::channel(WRITE_BEHIND);
        // The whole file is written in one go on a blocking thread; it ends when the channel does.
        let writer = tokio::task::spawn_blocking({
            let path = path.clone();
            move || write_file(&path, from)
        });
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

fn write_file(target: &Path, mut from: mpsc::Receiver<Message>) -> io::Result<()> {
    let mut partial = Partial::create(target)?;
    loop {
        match from.blocking_recv() {
            Some(Message::Bytes(b)) => partial.file.write_all(&b)?,
            Some(Message::Complete) => return partial.finish(target),
            // A closed channel without a word: the future was dropped.
            Some(Message::Discard) | None => return Ok(()),
        }
    }
}

/// The hidden file beside the target; removed unless it was finished.
struct Partial {
    file: File,
    path: PathBuf,
    finished: bool,
}

impl Partial {
    fn create(target: &Path) -> io::Result<Self> {
        let Some(name) = target.file_name() else { return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file")) };
        if target.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.part", std::hash::RandomState::new().build_hasher().finish()));
        let path = target.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, finished: false })
    }

    fn finish(mut self, target: &Path) -> io::Result<()> {
        // In this order, so that a power cut leaves the old file or the new one.
        self.file.sync_data()?;
        std::fs::rename(&self.path, target)?;
        self.finished = true;
        let directory = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what was received; remove it by hand");
        }
    }
}
