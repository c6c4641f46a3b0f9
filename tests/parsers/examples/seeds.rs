//! Writes the seeds of a target into a directory: `seeds TARGET DIR`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(dir)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        return Err(std::io::Error::other("usage: seeds TARGET DIR"));
    };
    std::fs::create_dir_all(&dir)?;
    for (n, seed) in (kvdb_parsers::target(&name).seeds)().iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{n}")), seed)?;
    }
    Ok(())
}
