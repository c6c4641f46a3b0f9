//! A process that is out of descriptors. It is alone in this file, because the bound is the process's.

mod common;

use common::{Client, PATIENCE, Server, get};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::AsRawFd;

#[tokio::test]
async fn a_server_without_descriptors_waits_and_goes_on_when_it_has_some() {
    let server = Server::plain().await;
    let mut known = server.connect().await;
    known.send(get("/target")).await;
    assert_eq!(known.answer().await.status, 200);
    // The client's own descriptor is taken before there are no more.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let limit = getrlimit(Resource::Nofile);
    let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free.try_into().unwrap()), maximum: limit.maximum }).unwrap();

    let mut client = Client::over(socket.connect(server.address).await.unwrap());
    client.send(get("/target")).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), client.stream.readable()).await;
    assert!(early.is_err(), "it was served without a descriptor");
    known.send(get("/target")).await;
    assert_eq!(known.answer().await.status, 200);

    setrlimit(Resource::Nofile, limit).unwrap();
    let answer = tokio::time::timeout(PATIENCE, client.answer()).await.expect("the server does not accept again");
    assert_eq!(answer.status, 200);
}
