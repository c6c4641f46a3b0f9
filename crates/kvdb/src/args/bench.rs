//! The command line of `kvdb bench`.

use clap::{Args as ClapArgs, ValueEnum};
use std::time::Duration;

const BENCH_HELP: &str = "\
The server may be any that takes PUT, GET and DELETE over HTTP/1.1 and answers at once or redirects: kvDB's master,
or nginx with WebDAV. Key number i is PREFIX-i, and its content follows from the key, so that values put by one run
can be read by another. Each client is one thread that does one operation after the other over connections that it
keeps; an operation's time includes all redirects.

Without operations: put, get and delete, so that nothing is left over.

Examples:
  kvdb bench --size 1M --clients 8
  kvdb bench put get --size 64M --count 16 --clients 2 --verify
  kvdb bench lookup --count 1000 --seconds 5 --clients 16
  kvdb bench range --size 1G --count 1 --range 64K --requests 10000
  kvdb bench put --base http://localhost:8080 --expect never";

/// What to measure, of which server.
#[derive(ClapArgs, Clone)]
#[command(after_long_help = BENCH_HELP)]
pub struct Bench {
    /// What to do, one after the other
    #[arg(value_enum, value_name = "OPERATION")]
    pub operations: Vec<Operation>,
    /// Server to measure, as http://host:port with an optional path [default: the master]
    #[arg(long, value_name = "URL")]
    pub base: Option<String>,
    /// Length of a value; K, M and G are 1024s
    #[arg(long, default_value = "1M", value_parser = kvdb_server::args::size, value_name = "BYTES")]
    pub size: u64,
    /// Clients, each with one request at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=4096), value_name = "N")]
    pub clients: u64,
    /// Number of values
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub count: u64,
    /// Number of get, range and lookup requests, which go over the values in turn [default: the number of values]
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Go on for this long instead; get, range and lookup then take values at random, and puts go on past --count
    #[arg(long, value_parser = seconds, value_name = "S", conflicts_with = "requests")]
    pub seconds: Option<Duration>,
    /// What the keys begin with
    #[arg(long, default_value = "kvdb-bench", value_name = "TEXT")]
    pub prefix: String,
    /// Length of a range
    #[arg(long, default_value = "64K", value_parser = kvdb_server::args::size, value_name = "BYTES")]
    pub range: u64,
    /// Compare every byte that arrives; otherwise the kernel drops bodies, which leaves the processors to the server
    #[arg(long)]
    pub verify: bool,
    /// Whether to ask with `Expect: 100-continue` before a body is sent to the first server
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub expect: Expect,
}

/// One kind of measured work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Operation {
    /// Store the values
    Put,
    /// Read them whole
    Get,
    /// Read a random range of them
    Range,
    /// GET without following the redirect: what the master alone does
    Lookup,
    /// Delete them
    Delete,
    /// Put, get and delete a value: one operation of three
    Thrash,
    /// No server: a cached file sent by the kernel over loopback and dropped, the limit of a get
    LoopbackGet,
    /// No server: bytes written to loopback and read, the limit of a put without hash and disk
    LoopbackPut,
}

/// When to ask before sending a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Expect {
    /// For bodies over 64 KiB
    Auto,
    Always,
    Never,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.filter(|s| !s.is_zero()).ok_or_else(|| "a number of seconds, such as 5 or 0.5".into())
}
