//! The load generator against small servers that do what the test says.

use super::*;
use crate::args::{Args, Command};
use clap::Parser as _;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

/// A request as the server saw it.
struct Seen {
    method: String,
    target: String,
    head: String,
    range: Option<(usize, usize)>,
}

/// What the servers keep, and what they count.
#[derive(Default)]
struct World {
    values: Mutex<HashMap<String, Vec<u8>>>,
    connections: AtomicUsize,
    asked: AtomicUsize,
    requests: AtomicUsize,
}

type Serve = fn(&World, &Seen, &mut BufReader<TcpStream>) -> bool;

/// Serves until the process ends; `one` answers a request and says whether the connection goes on.
fn server(world: &Arc<World>, one: Serve) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, world) = (listener.local_addr().unwrap(), world.clone());
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let world = world.clone();
            world.connections.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut socket = BufReader::new(socket);
                while let Some(seen) = request(&mut socket) {
                    world.requests.fetch_add(1, Ordering::SeqCst);
                    if !one(&world, &seen, &mut socket) {
                        break;
                    }
                }
            });
        }
    });
    at
}

fn request(socket: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if socket.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
    let range = field(&head, "Range")
        .and_then(|r| r.strip_prefix("bytes=")?.split_once('-'))
        .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    Some(Seen { method, target, range, head: head.clone() })
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
}

/// A volume, or a WebDAV server.
fn keeps(world: &World, seen: &Seen, socket: &mut BufReader<TcpStream>) -> bool {
    let key = seen.target.split('?').next().unwrap().to_string();
    let answer = |status: u16, body: &[u8]| {
        let mut all = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        all.extend_from_slice(body);
        all
    };
    let bytes = match seen.method.as_str() {
        "PUT" => {
            if field(&seen.head, "Expect").is_some() {
                world.asked.fetch_add(1, Ordering::SeqCst);
                socket.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            let mut body = vec![0; field(&seen.head, "Content-Length").unwrap().parse().unwrap()];
            socket.read_exact(&mut body).unwrap();
            world.values.lock().unwrap().insert(key, body);
            answer(201, b"")
        }
        "DELETE" => answer(if world.values.lock().unwrap().remove(&key).is_some() { 200 } else { 404 }, b"gone"),
        _ => match (world.values.lock().unwrap().get(&key), seen.range) {
            (Some(value), Some((from, to))) => answer(206, &value[from..=to]),
            (Some(value), None) => answer(200, value),
            (None, _) => answer(404, b"no such key"),
        },
    };
    socket.get_mut().write_all(&bytes).is_ok()
}

/// A master: sends clients to where a header of the world's first value says.
fn redirects(world: &World, seen: &Seen, socket: &mut BufReader<TcpStream>) -> bool {
    let to = String::from_utf8(world.values.lock().unwrap()["volume"].clone()).unwrap();
    let mut rest =
        vec![0; field(&seen.head, "Content-Length").filter(|_| field(&seen.head, "Expect").is_none()).map_or(0, |n| n.parse().unwrap())];
    socket.read_exact(&mut rest).unwrap();
    let status = if seen.method == "GET" { 302 } else { 307 };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\nLocation: http://{to}{}?ticket=t\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        seen.target
    );
    socket.get_mut().write_all(answer.as_bytes()).is_ok()
}

fn cluster() -> (Arc<World>, SocketAddr) {
    let world = Arc::new(World::default());
    let volume = server(&world, keeps);
    world.values.lock().unwrap().insert("volume".into(), volume.to_string().into_bytes());
    let master = server(&world, redirects);
    (world, master)
}

/// Runs one operation as the command line asks for it.
fn bench(at: SocketAddr, line: &[&str]) -> Outcome {
    let base = format!("http://{at}");
    let args = Args::try_parse_from([&["kvdb", "bench", "--base", &base], line].concat()).unwrap();
    let Command::Bench(args) = args.command else { panic!("another command") };
    let base = Base::parse(&base, None).unwrap();
    let (pattern, stop) = (Arc::new(Pattern::new()), Arc::new(AtomicBool::new(false)));
    work::run(&Arc::new(Shared::new(args.operations[0], &args, base, pattern, stop))).unwrap()
}

fn done(outcome: &Outcome) -> (usize, u64, u64) {
    (outcome.times.len(), outcome.bytes, outcome.failures)
}

#[test]
fn redirects_are_followed_with_method_and_body_and_contents_compared() {
    let (world, master) = cluster();
    assert_eq!(done(&bench(master, &["put", "--size", "3M", "--count", "3", "--clients", "2"])), (3, 9 << 20, 0));
    assert_eq!(world.asked.load(Ordering::SeqCst), 0, "the master redirects before the body, and the volume need not be asked");
    assert_eq!(done(&bench(master, &["get", "--size", "3M", "--count", "3", "--verify"])), (3, 9 << 20, 0));
    let ranges = ["range", "--size", "3M", "--count", "3", "--range", "100K", "--requests", "20", "--verify"];
    assert_eq!(done(&bench(master, &ranges)), (20, 20 * (100 << 10), 0));
    assert_eq!(done(&bench(master, &["delete", "--count", "3"])), (3, 0, 0));
    assert_eq!(done(&bench(master, &["get", "--size", "3M", "--count", "3"])), (0, 0, 3), "they are gone");
}

#[test]
fn connections_are_kept_and_one_that_was_closed_is_replaced() {
    let (world, master) = cluster();
    bench(master, &["put", "--size", "16", "--count", "50", "--clients", "1"]);
    assert_eq!(world.connections.load(Ordering::SeqCst), 2, "one to the master and one to the volume");
    let once: Serve = |world, seen, socket| {
        keeps(world, seen, socket);
        false
    };
    let closes = server(&world, once);
    assert_eq!(done(&bench(closes, &["put", "--size", "16", "--count", "5", "--clients", "1"])), (5, 80, 0));
}

#[test]
fn a_lookup_ends_at_the_redirect() {
    let (world, master) = cluster();
    assert_eq!(done(&bench(master, &["lookup", "--count", "7", "--requests", "20"])), (20, 0, 0));
    assert_eq!(world.requests.load(Ordering::SeqCst), 20);
}

#[test]
fn a_cycle_leaves_nothing_behind() {
    let (world, master) = cluster();
    assert_eq!(done(&bench(master, &["thrash", "--size", "16", "--count", "20", "--verify"])), (20, 20 * 32, 0));
    assert_eq!(world.values.lock().unwrap().len(), 1, "the volume's address");
}

#[test]
fn a_server_without_a_master_is_asked_when_that_is_wished() {
    let world = Arc::new(World::default());
    let at = server(&world, keeps);
    bench(at, &["put", "--size", "100K", "--count", "2"]);
    bench(at, &["put", "--size", "64K", "--count", "2"]);
    bench(at, &["put", "--size", "100K", "--count", "2", "--expect", "never"]);
    assert_eq!(world.asked.load(Ordering::SeqCst), 2);
    bench(at, &["put", "--size", "1", "--count", "2", "--expect", "always"]);
    assert_eq!(world.asked.load(Ordering::SeqCst), 4);
}

#[test]
fn wrong_content_and_wrong_length_are_failures() {
    let world = Arc::new(World::default());
    let at = server(&world, keeps);
    bench(at, &["put", "--size", "1M", "--count", "2"]);
    world.values.lock().unwrap().get_mut("/kvdb-bench-1").unwrap()[700_000] ^= 1;
    assert_eq!(done(&bench(at, &["get", "--count", "2", "--verify"])).2, 1);
    assert_eq!(done(&bench(at, &["get", "--count", "2"])).2, 0, "it is not compared");
    assert_eq!(done(&bench(at, &["get", "--count", "2", "--size", "2M"])).2, 2);
}

#[test]
fn an_answer_to_a_body_that_is_not_wanted_is_heard() {
    let world = Arc::new(World::default());
    let full: Serve = |_, _, socket| {
        socket.get_mut().write_all(b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        false
    };
    let at = server(&world, full);
    assert_eq!(done(&bench(at, &["put", "--size", "16", "--count", "3"])), (0, 0, 3));
}

#[test]
fn time_ends_the_work_too() {
    let (_world, master) = cluster();
    let outcome = bench(master, &["thrash", "--size", "16", "--seconds", "0.05", "--clients", "2"]);
    assert!(outcome.failures == 0 && outcome.took.as_secs_f64() >= 0.05);
}

#[test]
fn loopback_moves_what_was_asked_for() {
    let args = Args::try_parse_from(["kvdb", "bench", "--size", "3M", "--count", "4", "--clients", "2"]).unwrap();
    let Command::Bench(args) = args.command else { panic!("another command") };
    for operation in [Operation::LoopbackGet, Operation::LoopbackPut] {
        assert_eq!(done(&loopback::run(operation, &args, &Arc::new(Pattern::new())).unwrap()), (4, 12 << 20, 0));
    }
}
