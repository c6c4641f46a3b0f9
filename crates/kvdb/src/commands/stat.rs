//! `kvdb stat`.

use crate::args::{Common, Stat};
use crate::output;
use serde_json::json;

pub async fn run(common: &Common, args: &Stat) -> anyhow::Result<()> {
    let info = common.client()?.stat(&args.key).await?;
    let (version, modified) = (info.version.map(|v| v.to_string()), info.modified.map(output::time));
    let (expires, ttl) = (info.expires.map(output::time), info.ttl.map(|t| t.as_millis()));
    if common.json {
        let o = json!({
            "key": args.key.display(), "len": info.len, "etag": info.etag, "content_type": info.content_type,
            "modified": modified, "expires": expires, "ttl_ms": ttl, "version": version, "volume": info.volume,
        });
        return Ok(output::line(&o.to_string())?);
    }
    let lines = [
        ("key", args.key.display()),
        ("length", info.len.to_string()),
        ("blake3", info.etag.to_hex()),
        ("type", info.content_type.unwrap_or_else(|| "-".into())),
        ("modified", modified.unwrap_or_else(|| "-".into())),
        ("expires", expires.zip(ttl).map_or_else(|| "-".into(), |(at, left)| format!("{at} (in {left} ms)"))),
        ("version", version.unwrap_or_else(|| "-".into())),
        ("volume", info.volume),
    ];
    for (name, value) in lines {
        output::line(&format!("{name:9} {value}"))?;
    }
    Ok(())
}
