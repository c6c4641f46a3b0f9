//! Where blob files are, and what is found when their directories are listed.

use super::{Context, DiskError, Op};
use kvdb_protocol::VersionId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The name.
    pub name: OsString,
    /// Whether it is a regular file (a link is none).
    pub is_file: bool,
    /// Whether it is a directory (a link is none).
    pub is_dir: bool,
}

/// Path of a version's blob file: the directories are its last two bytes, which the master gives alike to versions of
/// about the same time.
pub fn blob_path(blobs: &Path, version: VersionId) -> PathBuf {
    let [.., x, y] = *version.as_bytes();
    let mut path = blobs.join(hex(x));
    path.push(hex(y));
    path.push(version.to_string());
    path
}

fn hex(b: u8) -> String {
    format!("{b:02x}")
}

/// All names in a directory, sorted; none where there is no such directory.
///
/// # Errors
/// It cannot be listed.
pub fn list(path: &Path) -> Result<Vec<Found>, DiskError> {
    let dir = match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at(Op::List, path)?,
    };
    let mut found = Vec::new();
    for entry in dir {
        let entry = entry.at(Op::List, path)?;
        let kind = entry.file_type().at(Op::List, path)?;
        found.push(Found { name: entry.file_name(), is_file: kind.is_file(), is_dir: kind.is_dir() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The directories that hold blob files, in order, as their two bytes. What does not belong is told and left alone.
///
/// # Errors
/// A directory cannot be listed.
pub fn blob_dirs(blobs: &Path) -> Result<Vec<[u8; 2]>, DiskError> {
    let mut dirs = Vec::new();
    for x in hex_dirs(blobs)? {
        dirs.extend(hex_dirs(&blobs.join(hex(x)))?.into_iter().map(|y| [x, y]));
    }
    Ok(dirs)
}

fn hex_dirs(path: &Path) -> Result<Vec<u8>, DiskError> {
    let mut out = Vec::new();
    for found in list(path)? {
        let byte = found.name.to_str().and_then(|n| u8::from_str_radix(n, 16).ok().filter(|b| hex(*b) == n));
        match byte {
            Some(b) if found.is_dir => out.push(b),
            _ => stranger(path, &found),
        }
    }
    Ok(out)
}

/// The versions whose blob files are in one directory, in order. What does not belong is told and left alone.
///
/// # Errors
/// The directory cannot be listed.
pub fn list_blobs(blobs: &Path, dir: [u8; 2]) -> Result<Vec<VersionId>, DiskError> {
    let path = blobs.join(hex(dir[0])).join(hex(dir[1]));
    let mut out = Vec::new();
    for found in list(&path)? {
        let version = found.name.to_str().and_then(|n| n.parse::<VersionId>().ok().filter(|v| v.to_string() == n));
        match version {
            Some(v) if found.is_file && v.as_bytes().ends_with(&dir) => out.push(v),
            _ => stranger(&path, &found),
        }
    }
    Ok(out)
}

fn stranger(dir: &Path, found: &Found) {
    tracing::warn!(path = %dir.join(&found.name).display(), "this does not belong here and is ignored");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_the_name_of_a_version_of_the_directory_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path();
        let v = VersionId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xAB, 0x0C]);
        let path = blob_path(blobs, v);
        assert_eq!(path.strip_prefix(blobs).unwrap().to_str().unwrap(), "ab/0c/01020304-0506-0708-090a-0b0c0d0eab0c");
        let parent = path.parent().unwrap();
        std::fs::create_dir_all(parent).unwrap();
        std::fs::write(&path, b"").unwrap();
        std::fs::write(parent.join("readme"), b"").unwrap();
        std::fs::write(parent.join("01020304-0506-0708-090a-0b0c0d0eab0d"), b"").unwrap();
        std::fs::write(parent.join("01020304-0506-0708-090A-0B0C0D0EAB0C"), b"").unwrap();
        std::os::unix::fs::symlink(&path, parent.join("11020304-0506-0708-090a-0b0c0d0eab0c")).unwrap();
        std::fs::create_dir_all(blobs.join("zz")).unwrap();
        std::fs::create_dir_all(blobs.join("ab").join("0C")).unwrap();
        std::os::unix::fs::symlink(blobs.join("ab"), blobs.join("ac")).unwrap();
        assert_eq!(blob_dirs(blobs).unwrap(), [[0xAB, 0x0C]]);
        assert_eq!(list_blobs(blobs, [0xAB, 0x0C]).unwrap(), [v]);
        assert_eq!(list_blobs(blobs, [0, 0]).unwrap(), []);
    }
}
