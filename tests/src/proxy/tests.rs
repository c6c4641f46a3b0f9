//! Against a server that sends back what it gets.

use super::*;
use crate::eventually;

struct Echo {
    address: String,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut out = stream.try_clone().unwrap();
                    std::io::copy(&mut &stream, &mut out).ok();
                    out.shutdown(Shutdown::Write).ok();
                });
            }
        });
        Self { address }
    }
}

fn open(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    stream
}

fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    back
}

/// Whether the connection has ended, by a close or a reset; false where nothing comes for a while.
fn ended(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(n) => n == 0,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

const A_WHILE: Duration = Duration::from_millis(200);

#[test]
fn bytes_and_ends_of_streams_pass_both_ways() {
    let (echo, bytes) = (Echo::start(), crate::values::value(300_000, 1));
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    let mut stream = open(&proxy);
    let mut out = stream.try_clone().unwrap();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            out.write_all(&bytes).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut back).unwrap();
    });
    assert!(back == bytes);
    assert_eq!((proxy.accepted(), proxy.passed(Way::Forth), proxy.passed(Way::Back)), (1, 300_000, 300_000));
    eventually("the connection is forgotten", || proxy.shared.lock().connections.is_empty().then_some(()));
}

#[test]
fn a_cut_ends_present_connections_and_takes_new_ones() {
    let echo = Echo::start();
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    let mut stream = open(&proxy);
    assert_eq!(echoed(&mut stream, b"abc"), b"abc");
    proxy.cut();
    assert!(ended(&mut stream, crate::PATIENCE));
    assert_eq!(echoed(&mut open(&proxy), b"def"), b"def");
    proxy.refuse(true);
    assert!(ended(&mut open(&proxy), crate::PATIENCE));
    proxy.heal();
    assert_eq!(echoed(&mut open(&proxy), b"ghi"), b"ghi");
}

#[test]
fn a_stalled_way_holds_bytes_back_until_it_is_healed() {
    let echo = Echo::start();
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    let mut stream = open(&proxy);
    assert_eq!(echoed(&mut stream, b"abc"), b"abc");
    for way in [Way::Forth, Way::Back] {
        proxy.stall(way);
        stream.write_all(b"def").unwrap();
        assert!(!ended(&mut stream, A_WHILE));
        proxy.heal();
        stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        let mut back = [0; 3];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"def");
    }
}

#[test]
fn a_half_open_connection_is_silent_until_it_is_healed() {
    let echo = Echo::start();
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    let mut stream = open(&proxy);
    assert_eq!(echoed(&mut stream, b"abc"), b"abc");
    proxy.leave_half_open();
    assert!(!ended(&mut stream, A_WHILE));
    proxy.heal();
    assert!(ended(&mut stream, crate::PATIENCE));
}

#[test]
fn bytes_wait_as_long_as_they_are_delayed() {
    let echo = Echo::start();
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    let mut stream = open(&proxy);
    proxy.delay(Way::Forth, A_WHILE);
    proxy.delay(Way::Back, A_WHILE);
    let since = std::time::Instant::now();
    assert_eq!(echoed(&mut stream, b"abc"), b"abc");
    assert!(since.elapsed() >= 2 * A_WHILE);
}

#[test]
fn a_connection_is_cut_at_the_very_byte() {
    let (echo, bytes) = (Echo::start(), crate::values::value(200_000, 1));
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    for at in [0, 1, 65_536, 123_457] {
        proxy.heal();
        proxy.cut_at(Way::Back, at);
        let before = proxy.passed(Way::Back);
        let mut stream = open(&proxy);
        let mut out = stream.try_clone().unwrap();
        let mut back = Vec::new();
        std::thread::scope(|scope| {
            // It is cut in the middle of this.
            scope.spawn(|| out.write_all(&bytes).ok());
            let mut portion = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut portion) {
                back.extend_from_slice(&portion[..n]);
            }
        });
        eventually("the cut is counted", || (proxy.passed(Way::Back) - before == at).then_some(()));
        // A reset may take away what was not read yet.
        assert!(back.len() as u64 <= at && bytes.starts_with(&back), "{} bytes instead of {at}", back.len());
    }
}

#[test]
fn exactly_the_chosen_bits_are_flipped() {
    let (echo, mut bytes) = (Echo::start(), crate::values::value(1_000, 1));
    let proxy = Proxy::start("127.0.0.1", &echo.address);
    proxy.flip(Way::Forth, 0, 0x80);
    proxy.flip(Way::Back, 999, 1);
    let back = echoed(&mut open(&proxy), &bytes);
    bytes[0] ^= 0x80;
    bytes[999] ^= 1;
    assert!(back == bytes);
    assert_eq!(proxy.flipped(), 2);
}

#[test]
fn another_server_gets_new_connections_and_one_that_is_down_ends_them() {
    let (first, second) = (Echo::start(), Echo::start());
    let proxy = Proxy::start("127.0.0.1", "127.0.0.1:1");
    assert!(ended(&mut open(&proxy), crate::PATIENCE));
    for echo in [first, second] {
        proxy.set_upstream(&echo.address);
        assert_eq!(echoed(&mut open(&proxy), b"abc"), b"abc");
    }
}
