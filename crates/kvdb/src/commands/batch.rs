//! `kvdb batch`.

use crate::args::{Batch, Common};
use crate::output;
use anyhow::Context;
use kvdb_client::{Applied, Change, Error};
use serde_json::json;
use std::io::{self, Read};

/// Longest document that is read: what a master takes at most, whatever its bounds, ends here too.
const MAX_DOCUMENT_BYTES: u64 = 4 << 30;

pub async fn run(common: &Common, args: Batch) -> anyhow::Result<()> {
    let mut document = Vec::new();
    let read = if args.file.as_os_str() == "-" {
        io::stdin().lock().take(MAX_DOCUMENT_BYTES).read_to_end(&mut document)
    } else {
        std::fs::File::open(&args.file).and_then(|file| file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut document))
    };
    read.with_context(|| format!("cannot read {}", args.file.display()))?;
    let applied = common.client()?.batch_document(document.into()).await;
    show(common, &named(applied)?)
}

/// Tells of the keys that are to blame, before the error itself.
pub fn named<T>(result: Result<T, Error>) -> Result<T, Error> {
    if let Err(Error::Problem { problem, .. }) = &result
        && let Some(keys) = &problem.keys
    {
        keys.0.iter().for_each(|key| eprintln!("kvdb: {}: {key}", problem.title));
    }
    result
}

/// Shows what became of each key.
pub fn show(common: &Common, applied: &[Applied]) -> anyhow::Result<()> {
    for one in applied {
        let change = match one.change {
            Change::Created => "created",
            Change::Replaced => "replaced",
            Change::Deleted => "deleted",
            Change::Absent => "absent",
        };
        let key = one.key.display();
        if common.json {
            let version = one.version.map(|v| v.to_string());
            output::line(&json!({"key": key, "change": change, "version": version, "etag": one.etag}).to_string())?;
        } else if !common.quiet {
            output::line(&format!("{change}\t{key}"))?;
        }
    }
    Ok(())
}
