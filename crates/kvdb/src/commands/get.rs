//! `kvdb get`.

use crate::args::{Common, Get};
use crate::{bar, output};
use anyhow::Context;
use kvdb_client::{DownloadOptions, Downloaded, Key, PartsReader, Progress, part_path};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

pub async fn run(common: &Common, args: Get) -> anyhow::Result<()> {
    let client = common.client()?;
    let progress = Progress::default();
    let to_stdout = args.file.as_os_str() == "-";
    if let Some(out) = open_stream(&args.file)? {
        let reader = client.get_in_parts(&args.key, args.parallel).await?;
        let (len, name) = (reader.info().len, args.key.display());
        return bar::while_showing(common.quiet || to_stdout && is_terminal(), name, Some(len), &progress, copy(reader, out, &progress))
            .await;
    }
    // Asked for only to have a length for the bar; the value's own answer is what counts.
    let len = if bar::is_shown(common.quiet) { client.stat(&args.key).await.ok().map(|i| i.len) } else { None };
    let options = DownloadOptions { parallel: args.parallel, progress: progress.clone(), ..DownloadOptions::default() };
    let work = client.download(&args.key, &args.file, options);
    let done = bar::while_showing(common.quiet, args.key.display(), len, &progress, work).await;
    let left = part_path(&args.file).ok().filter(|p| p.exists());
    if let (Err(_), Some(path), false) = (&done, left, common.quiet) {
        eprintln!("kvdb: what was received is kept in {}; the same command goes on from there", path.display());
    }
    let done = done?;
    if common.json {
        output::line(&summary(&args.key, &done, &args.file))?;
    }
    Ok(())
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdout())
}

fn summary(key: &Key, done: &Downloaded, file: &Path) -> String {
    let Downloaded { info, fetched, kept } = done;
    let file = file.display().to_string();
    json!({"key": key.display(), "len": info.len, "etag": info.etag, "file": file, "fetched": fetched, "kept": kept}).to_string()
}

/// Standard output, or what is there and is no regular file, such as a pipe; none: a file that is to appear.
fn open_stream(file: &Path) -> anyhow::Result<Option<File>> {
    if file.as_os_str() == "-" {
        return Ok(Some(File::from(io::stdout().as_fd().try_clone_to_owned().context("cannot write to standard output")?)));
    }
    match std::fs::metadata(file) {
        Ok(m) if !m.is_file() && !m.is_dir() => {
            let opened = OpenOptions::new().write(true).open(file);
            opened.map(Some).with_context(|| format!("cannot write {}", file.display()))
        }
        _ => Ok(None),
    }
}

async fn copy(mut reader: PartsReader, mut out: File, progress: &Progress) -> anyhow::Result<()> {
    while let Some(chunk) = reader.chunk().await? {
        // The runtime has other threads for the socket meanwhile.
        tokio::task::block_in_place(|| out.write_all(&chunk))?;
        progress.add(chunk.len() as u64);
    }
    Ok(())
}
