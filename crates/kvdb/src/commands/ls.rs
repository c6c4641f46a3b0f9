//! `kvdb ls`.

use crate::args::{Common, Ls};
use crate::output;
use futures_util::TryStreamExt;
use kvdb_client::{ListOptions, Listed, Page};
use serde_json::{Value, json};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::pin::pin;

/// One line of the list.
enum Line {
    Key(Listed),
    Prefix(Vec<u8>),
}

impl Line {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Key(k) => k.key.as_bytes(),
            Self::Prefix(p) => p,
        }
    }
}

pub async fn run(common: &Common, args: Ls) -> anyhow::Result<()> {
    if args.values {
        return super::several::list(common, args).await;
    }
    let client = common.client()?;
    let options = ListOptions {
        limit: args.limit,
        delimiter: args.delimiter.map(OsStringExt::into_vec),
        detail: args.long,
        ..ListOptions::default()
    };
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut pages = pin!(client.list_all(args.prefix.as_bytes(), options));
    while left > 0
        && let Some(page) = pages.try_next().await?
    {
        for line in in_order(page).into_iter().take(left) {
            output::line(&if common.json { as_json(&line).to_string() } else { as_text(&line, args.long) })?;
            left -= 1;
        }
    }
    Ok(())
}

fn in_order(page: Page) -> Vec<Line> {
    let mut lines: Vec<_> = page.keys.into_iter().map(Line::Key).chain(page.prefixes.into_iter().map(Line::Prefix)).collect();
    lines.sort_by(|a, b| a.bytes().cmp(b.bytes()));
    lines
}

fn as_text(line: &Line, long: bool) -> String {
    let name = output::bytes(line.bytes());
    match line {
        Line::Key(Listed { detail: Some(d), .. }) if long => {
            format!("{:>13} {} {} {name}", d.len, output::time(d.modified), d.etag)
        }
        _ if long => format!("{:>13} {:20} {:64} {name}", "-", "-", "-"),
        _ => name,
    }
}

fn as_json(line: &Line) -> Value {
    match line {
        Line::Prefix(p) => json!({"prefix": output::bytes(p)}),
        Line::Key(Listed { key, detail: None }) => json!({"key": key.display()}),
        Line::Key(Listed { key, detail: Some(d) }) => json!({
            "key": key.display(), "len": d.len, "etag": d.etag, "content_type": d.content_type,
            "modified": output::time(d.modified), "expires": d.expires.map(output::time), "version": d.version.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvdb_client::{ContentHash, Detail, Key, UnixMillis, VersionId};

    fn page() -> Page {
        let detail = Detail {
            len: 5,
            etag: ContentHash::of(b"x"),
            content_type: Some("a/b".into()),
            modified: UnixMillis(0),
            expires: None,
            version: VersionId::from_parts(0, 0),
        };
        let key = |k: &[u8]| Key::new(k).unwrap();
        let keys = vec![Listed { key: key(b"a"), detail: None }, Listed { key: key(b"z\n"), detail: Some(detail) }];
        Page { keys, prefixes: vec![b"m/".to_vec()], next: None }
    }

    #[test]
    fn keys_and_prefixes_stand_in_one_order() {
        let lines: Vec<_> = in_order(page()).iter().map(|l| as_text(l, false)).collect();
        assert_eq!(lines, ["a", "m/", "z%0A"], "a key cannot break a line");
    }

    #[test]
    fn long_lines_have_the_key_last_in_one_column() {
        let lines: Vec<_> = in_order(page()).iter().map(|l| as_text(l, true)).collect();
        let columns: Vec<_> = lines.iter().zip(["a", "m/", "z%0A"]).map(|(l, name)| l.rfind(name).unwrap()).collect();
        assert_eq!(columns, [100; 3], "{lines:#?}");
    }

    #[test]
    fn json_has_a_key_or_a_prefix() {
        let lines: Vec<_> = in_order(page()).iter().map(as_json).collect();
        assert_eq!(lines[0], json!({"key": "a"}));
        assert_eq!(lines[1], json!({"prefix": "m/"}));
        assert_eq!((lines[2]["len"].as_u64(), lines[2]["modified"].as_str()), (Some(5), Some("1970-01-01T00:00:00Z")));
    }
}
