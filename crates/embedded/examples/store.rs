//! A store in a directory: `cargo run -p kvdb-embedded --example store -- my-store`, as often as you like.

use kvdb_embedded::{Error, Options, Store};
use std::io::Write as _;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "my-store".into());
    let store = Store::open(Options::key_value_ds().at(dir))?;
    let mut out = std::io::stdout();
    match store.create("user/1", r#"{"name":"Ada"}"#, None) {
        Err(Error::KeyExists(key)) => writeln!(out, "{key} is there from before")?,
        other => other?,
    }
    store.put("session", r#"{"token":"x"}"#, Some(Duration::from_secs(1800)))?;
    for key in store.keys("") {
        let key = key?;
        let value = store.get(key.as_bytes())?.unwrap_or_default();
        writeln!(out, "{} = {}", key.display(), String::from_utf8_lossy(&value))?;
    }
    Ok(())
}
