//! `kvdb mget`, `kvdb newest`, `kvdb ls --values`.

use crate::args::{Common, Keys, Ls};
use crate::output;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_client::{Error, ListOptions, Valued};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// How often another key may turn out to be the newest while the value is asked for.
const MAX_TRIES: usize = 5;

pub async fn mget(common: &Common, args: Keys) -> anyhow::Result<()> {
    let page = common.client()?.get_many(&args.keys).await?;
    page.values.iter().try_for_each(|v| show(common, v))?;
    for key in &page.missing {
        if common.json {
            output::line(&json!({"key": key.display(), "missing": true}).to_string())?;
        } else if !common.quiet {
            eprintln!("there is no key {key}");
        }
    }
    // As with one key that is not there.
    page.missing.first().map_or(Ok(()), |key| Err(Error::NotFound(key.clone()).into()))
}

pub async fn newest(common: &Common, args: Keys) -> anyhow::Result<()> {
    let client = common.client()?;
    for _ in 0..MAX_TRIES {
        let Some(key) = client.newest(&args.keys).await? else { break };
        let mut reader = match client.get(&key).await {
            Ok(reader) => reader,
            // Deleted, or expired, since.
            Err(Error::NotFound(_)) => continue,
            Err(e) => return Err(e.into()),
        };
        if !common.quiet {
            eprintln!("{key}");
        }
        let mut out = io::stdout();
        while let Some(chunk) = reader.chunk().await? {
            tokio::task::block_in_place(|| out.write_all(&chunk))?;
        }
        return Ok(());
    }
    args.keys.into_iter().next().map_or(Ok(()), |key| Err(Error::NotFound(key).into()))
}

pub async fn list(common: &Common, args: Ls) -> anyhow::Result<()> {
    let client = common.client()?;
    let mut options = ListOptions { delimiter: args.delimiter.map(OsStringExt::into_vec), ..ListOptions::default() };
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        let page = client.list_values(args.prefix.as_bytes(), &options).await?;
        let mut lines: Vec<(Vec<u8>, Option<Valued>)> = page.prefixes.into_iter().map(|p| (p, None)).collect();
        lines.extend(page.values.into_iter().map(|v| (v.key.as_bytes().to_vec(), Some(v))));
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        for (bytes, value) in lines.into_iter().take(left) {
            left -= 1;
            match value {
                Some(v) => show(common, &v)?,
                None if common.json => output::line(&json!({"prefix": output::bytes(&bytes)}).to_string())?,
                None => output::line(&output::bytes(&bytes))?,
            }
        }
        match page.next {
            Some(next) if left > 0 => options.start = Some(next),
            _ => return Ok(()),
        }
    }
}

fn show(common: &Common, v: &Valued) -> io::Result<()> {
    if common.json {
        return output::line(&as_json(v).to_string());
    }
    let text = match &v.value {
        Some(bytes) => String::from_utf8_lossy(bytes).escape_debug().to_string(),
        None => format!("({} bytes)", v.detail.len),
    };
    output::line(&format!("{}\t{text}", v.key.display()))
}

fn as_json(v: &Valued) -> Value {
    let d = &v.detail;
    let (text, coded) = match v.value.as_deref().map(std::str::from_utf8) {
        Some(Ok(text)) => (Some(text), None),
        Some(Err(_)) => (None, v.value.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes))),
        None => (None, None),
    };
    json!({
        "key": v.key.display(), "len": d.len, "etag": d.etag, "content_type": d.content_type, "modified": output::time(d.modified),
        "expires": d.expires.map(output::time), "version": d.version.to_string(), "value": text, "base64": coded,
    })
}
