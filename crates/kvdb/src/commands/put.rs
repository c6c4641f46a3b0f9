//! `kvdb put`.

use crate::args::{Common, Put};
use crate::{bar, output};
use anyhow::Context;
use indicatif::HumanBytes;
use kvdb_client::{Condition, PutOptions, Source, Tags};
use serde_json::json;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::path::Path;

pub async fn run(common: &Common, args: Put) -> anyhow::Result<()> {
    let client = common.client()?;
    let (source, len) = open(&args.file)?;
    let condition = Condition { if_match: args.if_match.map(|h| Tags::Of(vec![h])), if_none_match: None };
    let options =
        PutOptions { create_only: args.create, content_type: args.content_type, condition, ttl: args.ttl, ..PutOptions::default() };
    let progress = options.progress.clone();
    let work = client.put(&args.key, source, options);
    let outcome = bar::while_showing(common.quiet, args.key.display(), len, &progress, work).await?;
    if common.json {
        let version = outcome.version.map(|v| v.to_string());
        let o = json!({"key": args.key.display(), "created": outcome.created, "len": progress.bytes(), "etag": outcome.etag, "version": version});
        output::line(&o.to_string())?;
    } else if !common.quiet {
        let verb = match outcome.created {
            Some(true) => "created",
            Some(false) => "replaced",
            None => "stored",
        };
        eprintln!("{verb} {} ({}, BLAKE3 {})", args.key, HumanBytes(progress.bytes()), outcome.etag);
    }
    Ok(())
}

/// The source, and its length when it is known.
fn open(file: &Path) -> anyhow::Result<(Source, Option<u64>)> {
    if file.as_os_str() != "-" {
        let meta = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok((Source::from(file), meta.is_file().then_some(meta.len())));
    }
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?);
    let len = rest_of_regular_file(&mut input).context("cannot read standard input")?;
    Ok((Source::reader(input, len), len))
}

/// `kvdb put k - < file`: then the length is known although it is standard input.
fn rest_of_regular_file(input: &mut File) -> io::Result<Option<u64>> {
    let meta = input.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    Ok(Some(meta.len().saturating_sub(input.stream_position()?)))
}
