//! `kvdb token`: makes, removes and lists the tokens of a file that a master reads.

use crate::args::{Common, Rights, Token, TokenOrder};
use crate::output;
use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets};
use kvdb_master::tokens::Right;
use kvdb_master::tokens::file::{Entry, Grant, TokensFile};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The mode of a new file: the names of tokens are nobody else's business.
const MODE: u32 = 0o600;

pub fn run(common: &Common, args: Token) -> anyhow::Result<()> {
    match args.order {
        TokenOrder::New { name, rights } => new(common, &args.file, name, rights),
        TokenOrder::Remove { names } => remove(&args.file, &names),
        TokenOrder::List => list(common, &args.file),
    }
}

fn new(common: &Common, path: &Path, name: String, rights: Vec<Rights>) -> anyhow::Result<()> {
    let token = random()?;
    let rights = rights.into_iter().map(|r| Grant { prefix: r.prefix, allow: r.allow }).collect();
    let entry = Entry { name: name.clone(), hash: token.hash().to_hex().to_string(), rights };
    change(path, |file| {
        file.get_or_insert_default().tokens.push(entry);
        Ok(())
    })?;
    if common.json {
        return Ok(output::line(&json!({ "name": name, "token": token.expose() }).to_string())?);
    }
    output::line(token.expose())?;
    if !common.quiet {
        eprintln!("kvdb: {} has the hash of {name:?}; the token itself is shown here and nowhere else", path.display());
    }
    Ok(())
}

/// A token that nobody can guess.
fn random() -> anyhow::Result<kvdb_protocol::Token> {
    let mut bytes = [0; 32];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let filled = filled.context("the system gives no random bytes")?;
    ensure!(filled == bytes.len(), "the system gave {filled} random bytes of 32");
    Ok(kvdb_protocol::Token::of_random(bytes))
}

fn remove(path: &Path, names: &[String]) -> anyhow::Result<()> {
    change(path, |file| {
        let Some(file) = file else { bail!("there is no such file") };
        for name in names {
            let before = file.tokens.len();
            file.tokens.retain(|entry| entry.name != *name);
            ensure!(file.tokens.len() < before, "no token is called {name:?}; see `kvdb token list`");
        }
        Ok(())
    })
}

fn list(common: &Common, path: &Path) -> anyhow::Result<()> {
    let file = read(path)?.with_context(|| format!("there is no file {}", path.display()))?;
    if common.json {
        return file.tokens.iter().try_for_each(|e| Ok(output::line(&json!({ "name": e.name, "rights": e.rights }).to_string())?));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAME", "RIGHTS"]);
    for entry in &file.tokens {
        let of = |g: &Grant| format!("{}:{}", g.allow.iter().map(|r| Right::as_str(*r)).collect::<Vec<_>>().join(","), g.prefix);
        table.add_row([entry.name.clone(), entry.rights.iter().map(of).collect::<Vec<_>>().join(" ")]);
    }
    Ok(output::line(&table.to_string())?)
}

/// None where there is no file.
fn read(path: &Path) -> anyhow::Result<Option<TokensFile>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let file = TokensFile::parse(&bytes).map_err(anyhow::Error::msg);
    file.map(Some).with_context(|| format!("{} is no file of tokens", path.display()))
}

/// Reads the file, changes it and puts the new one in its place, in one step for whoever reads it. One process at a time.
fn change(path: &Path, change: impl FnOnce(&mut Option<TokensFile>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let wrong = || format!("cannot change {}", path.display());
    // Where it is a link, what it leads to is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let dir = match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => bail!("{} is no file", path.display()),
    };
    let dir = File::open(dir).with_context(wrong)?;
    flock(&dir, FlockOperation::LockExclusive).with_context(wrong)?;
    let mut file = read(path)?;
    change(&mut file).with_context(wrong)?;
    let mut text = serde_json::to_vec_pretty(&file.unwrap_or_default()).with_context(wrong)?;
    text.push(b'\n');
    TokensFile::parse(&text).map_err(anyhow::Error::msg).with_context(wrong)?;
    ensure!(text.len() as u64 <= kvdb_server::watched::MAX_BYTES, "{} would be longer than a master reads", path.display());
    replace(path, &text).and_then(|()| dir.sync_all()).with_context(wrong)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mode = std::fs::metadata(path).map_or(MODE, |m| m.permissions().mode() & 0o777);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // What a killed one left; nobody else writes it, as the directory is locked.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, n: u8) -> Entry {
        let hash = kvdb_protocol::Token::of_random([n; 32]).hash().to_hex().to_string();
        Entry { name: name.into(), hash, rights: vec![Grant { prefix: "a/".into(), allow: vec![Right::Read] }] }
    }

    fn add(path: &Path, entry: Entry) -> anyhow::Result<()> {
        change(path, |file| {
            file.get_or_insert_default().tokens.push(entry);
            Ok(())
        })
    }

    fn names(path: &Path) -> Vec<String> {
        read(path).unwrap().unwrap().tokens.into_iter().map(|e| e.name).collect()
    }

    #[test]
    fn a_file_is_made_changed_and_left_whole_by_what_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        add(&path, entry("a", 1)).unwrap();
        add(&path, entry("b", 2)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let twice = format!("{:#}", add(&path, entry("a", 3)).unwrap_err());
        assert!(twice.contains("two tokens have the name \"a\""), "{twice}");
        let absent = format!("{:#}", remove(&path, &["b".into(), "c".into()]).unwrap_err());
        assert!(absent.contains("no token is called \"c\""), "{absent}");
        assert_eq!(names(&path), ["a", "b"]);
        remove(&path, &["a".into()]).unwrap();
        assert_eq!(names(&path), ["b"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_something_else_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "my notes").unwrap();
        let refused = format!("{:#}", add(&path, entry("a", 1)).unwrap_err());
        assert!(refused.contains("no file of tokens"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"my notes");
        assert!(remove(&dir.path().join("none"), &["a".into()]).is_err());
    }

    #[test]
    fn the_mode_of_a_file_stays_and_what_a_link_leads_to_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("tokens.json"), dir.path().join("link"));
        add(&path, entry("a", 1)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, entry("b", 2)).unwrap();
        assert_eq!(names(&path), ["a", "b"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
