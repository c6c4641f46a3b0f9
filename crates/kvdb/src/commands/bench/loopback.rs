//! What the loopback interface can do with nothing behind it: the limit of any server on one machine.

use super::connection::{drop_bytes, write_content};
use super::content::{PERIOD, Pattern};
use super::work::Outcome;
use crate::args::{Bench, Operation};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// Bytes that one call to receive or drop takes.
const RECEIVE_BYTES: usize = 4 << 20;

/// Sends `count` values to each of as many receivers as there are clients; a value is one operation.
pub fn run(operation: Operation, args: &Bench, pattern: &Arc<Pattern>) -> io::Result<Outcome> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (size, each) = (args.size, args.count.div_ceil(args.clients));
    let mut threads = Vec::new();
    for i in 0..args.clients {
        let to = TcpStream::connect(listener.local_addr()?)?;
        let (from, _) = listener.accept()?;
        let pattern = pattern.clone();
        let send = move || match operation {
            Operation::LoopbackGet => send_file(&to, size, each),
            _ => send_bytes(&to, &pattern, size, each),
        };
        let receive = move || match operation {
            Operation::LoopbackGet => receive(each, |room| skip(&from, room, size)),
            _ => receive(each, |room| read(&from, room, size)),
        };
        threads.push((spawn(format!("sender-{i}"), send)?, spawn(format!("receiver-{i}"), receive)?));
    }
    let started = Instant::now();
    let mut all = Outcome::default();
    for (sender, receiver) in threads {
        let fault = |_| io::Error::other("a thread ended by a fault of its own");
        sender.join().map_err(fault)??;
        all.times.extend(receiver.join().map_err(fault)??);
    }
    all.took = started.elapsed();
    all.bytes = size * all.times.len() as u64;
    all.times.sort_unstable();
    Ok(all)
}

fn spawn<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name).spawn(work)
}

/// As a server sends a cached file: without a copy.
fn send_file(to: &TcpStream, size: u64, count: u64) -> io::Result<()> {
    let file = File::from(memfd_create("kvdb-bench", MemfdFlags::CLOEXEC)?);
    let length = size.min(PERIOD as u64);
    (&file).write_all(&vec![1; PERIOD])?;
    for _ in 0..count {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left.min(length)).unwrap_or(PERIOD);
            match rustix::fs::sendfile(to, &file, Some(&mut 0), most)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => left -= sent as u64,
            }
        }
    }
    Ok(())
}

fn send_bytes(to: &TcpStream, pattern: &Pattern, size: u64, count: u64) -> io::Result<()> {
    (0..count).try_for_each(|_| write_content(to, pattern.content("loopback"), size))
}

/// The time that each of `count` values took to arrive.
fn receive(count: u64, mut one: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<Vec<std::time::Duration>> {
    let mut room = vec![0; RECEIVE_BYTES];
    let timed = |_| {
        let begun = Instant::now();
        one(&mut room).map(|()| begun.elapsed())
    };
    (0..count).map(timed).collect()
}

fn skip(from: &TcpStream, room: &mut [u8], size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        left -= drop_bytes(from, room, left)?;
    }
    Ok(())
}

fn read(mut from: &TcpStream, room: &mut [u8], size: u64) -> io::Result<()> {
    // What a server would take at a time.
    let portion = room.len().min(PERIOD);
    let mut left = size;
    while left > 0 {
        let most = portion.min(usize::try_from(left).unwrap_or(portion));
        match from.read(&mut room[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => left -= got as u64,
        }
    }
    Ok(())
}
