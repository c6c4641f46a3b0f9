//! `kvdb get`.

use crate::args::{Common, Get};
use crate::{bar, output};
use anyhow::Context;
use kvdb_client::{Info, Key, Progress, Reader};
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
        let reader = client.get(&args.key).await?;
        let (len, name) = (reader.remaining(), args.key.display());
        return bar::while_showing(common.quiet || to_stdout && is_terminal(), name, Some(len), &progress, copy(reader, out, &progress))
            .await;
    }
    // Asked for only to have a length for the bar; the value's own answer is what counts.
    let len = if bar::is_shown(common.quiet) { client.stat(&args.key).await.ok().map(|i| i.len) } else { None };
    let work = client.get_to_file(&args.key, &args.file, progress.clone());
    let info = bar::while_showing(common.quiet, args.key.display(), len, &progress, work).await?;
    if common.json {
        output::line(&summary(&args.key, &info, &args.file))?;
    }
    Ok(())
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdout())
}

fn summary(key: &Key, info: &Info, file: &Path) -> String {
    json!({"key": key.display(), "len": info.len, "etag": info.etag, "file": file.display().to_string()}).to_string()
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

async fn copy(mut reader: Reader, mut out: File, progress: &Progress) -> anyhow::Result<()> {
    while let Some(chunk) = reader.chunk().await? {
        // The runtime has other threads for the socket meanwhile.
        tokio::task::block_in_place(|| out.write_all(&chunk))?;
        progress.add(chunk.len() as u64);
    }
    Ok(())
}
