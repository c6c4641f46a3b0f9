//! A master and its volumes, each a real process, in a temporary directory.
//!
//! Every cluster has a loopback address of its own, so that nobody takes a port while its server is down.

use crate::connection::Answer;
use crate::process::{Server, program};
use crate::request::{Request, Url};
use crate::{PATIENCE, eventually};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use tempfile::TempDir;

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    volumes: usize,
    master_args: Vec<String>,
    volume_args: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
    token: Option<String>,
}

impl Builder {
    /// Puts everything into this directory, which stays, instead of a temporary one.
    #[must_use]
    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The token by which the tests look at the master's state.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Adds arguments of the master.
    #[must_use]
    pub fn master_args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.master_args.extend(args.map(String::from));
        self
    }

    /// Adds arguments of each volume.
    #[must_use]
    pub fn volume_args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.volume_args.extend(args.map(String::from));
        self
    }

    /// Sets an environment variable of all processes.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts the volumes, then the master, and waits until all are in touch.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let mut cluster = self.start_volumes();
        cluster.start_master();
        cluster.wait_all_up();
        cluster
    }

    /// Starts the volumes only.
    #[track_caller]
    pub fn start_volumes(self) -> Cluster {
        let temporary = self.dir.is_none().then(|| tempfile::Builder::new().prefix("kvdb-tests-").tempdir().unwrap());
        let dir = self.dir.unwrap_or_else(|| temporary.as_ref().expect("there is one or the other").path().into());
        let ip = own_ip();
        let volumes: Vec<Server> = (0..self.volumes)
            .map(|i| {
                let mut args = vec![path_text(&volume_dir(&dir, i))];
                args.extend(self.volume_args.clone());
                let mut server = Server::new(&format!("volume{i}"), program("volume"), &ip, args, self.env.clone(), &dir);
                server.start();
                server
            })
            .collect();
        let master = Server::new("master", program("master"), &ip, Vec::new(), self.env.clone(), &dir);
        let mut cluster = Cluster { master, volumes, master_args: self.master_args, token: self.token, dir, _temporary: temporary };
        cluster.list_volumes();
        cluster
    }
}

/// A running cluster. Dropped, it is killed; if the test failed, the ends of its logs are printed.
#[derive(Debug)]
pub struct Cluster {
    master: Server,
    volumes: Vec<Server>,
    master_args: Vec<String>,
    token: Option<String>,
    dir: PathBuf,
    // Last: it is removed when all processes are gone.
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// A cluster of `n` volumes, to be refined.
    pub fn builder(n: usize) -> Builder {
        Builder { volumes: n, master_args: Vec::new(), volume_args: Vec::new(), env: Vec::new(), dir: None, token: None }
    }

    /// A cluster of `n` volumes, ready.
    #[track_caller]
    pub fn start(n: usize) -> Self {
        Self::builder(n).start()
    }

    /// The master's URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.master_addr())
    }

    /// The master's `ip:port`.
    pub fn master_addr(&self) -> String {
        self.master.address()
    }

    /// A volume's `ip:port`.
    pub fn volume_addr(&self, i: usize) -> String {
        self.volumes[i].address()
    }

    /// Number of volumes.
    pub fn volume_count(&self) -> usize {
        self.volumes.len()
    }

    /// Whether a volume's process was started and not stopped.
    pub fn is_started(&self, i: usize) -> bool {
        self.volumes[i].is_started()
    }

    /// The directory that holds everything of this cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A volume's directory.
    pub fn volume_dir(&self, i: usize) -> PathBuf {
        volume_dir(&self.dir, i)
    }

    /// The master's directory.
    pub fn db_dir(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// The master's process.
    pub fn master(&mut self) -> &mut Server {
        &mut self.master
    }

    /// A volume's process.
    pub fn volume(&mut self, i: usize) -> &mut Server {
        &mut self.volumes[i]
    }

    /// `kill -9` of one server, which is started again at once: 0 the master, `n` the volume `n - 1`.
    pub fn kill_and_start(&mut self, server: u64) {
        match usize::try_from(server).unwrap() {
            0 => {
                self.kill_master();
                self.start_master();
            }
            n => {
                self.kill_volume(n - 1);
                self.start_volume(n - 1);
            }
        }
    }

    /// `kill -9` of the master.
    pub fn kill_master(&mut self) {
        self.master.kill();
    }

    /// SIGTERM to the master; waits for its end.
    #[track_caller]
    pub fn stop_master(&mut self) -> ExitStatus {
        self.master.stop()
    }

    /// Starts the master, on the port it had.
    #[track_caller]
    pub fn start_master(&mut self) {
        self.master.start();
    }

    /// `kill -9` of a volume.
    pub fn kill_volume(&mut self, i: usize) {
        self.volumes[i].kill();
    }

    /// SIGTERM to a volume; waits for its end.
    #[track_caller]
    pub fn stop_volume(&mut self, i: usize) -> ExitStatus {
        self.volumes[i].stop()
    }

    /// Starts a volume, on the port it had.
    #[track_caller]
    pub fn start_volume(&mut self, i: usize) {
        self.volumes[i].start();
    }

    /// Adds arguments of the master, for its next start.
    pub fn add_master_args(&mut self, args: &[&str]) {
        self.master_args.extend(args.iter().map(ToString::to_string));
        self.list_volumes();
    }

    /// Puts the volumes' present addresses on the master's list, for its next start.
    pub fn list_volumes(&mut self) {
        self.list_addresses(&self.volumes.iter().map(Server::address).collect::<Vec<_>>());
    }

    /// Puts these addresses on the master's list, for its next start.
    pub fn list_addresses(&mut self, addresses: &[String]) {
        let mut args = vec![addresses.join(","), path_text(&self.db_dir())];
        args.extend(self.master_args.clone());
        self.master.set_args(args);
    }

    /// Waits until the master says that it can serve writes.
    #[track_caller]
    pub fn wait_ready(&self) {
        let address = self.master_addr();
        eventually("the master is ready", || Request::get("/-/health/ready").try_send(&address).ok().filter(|a| a.status == 200));
    }

    /// Waits until the master is ready and in touch with all volumes.
    #[track_caller]
    pub fn wait_all_up(&self) {
        self.wait_up(self.volumes.len());
        self.wait_ready();
    }

    /// Waits until exactly `n` volumes are up in the master's eyes.
    #[track_caller]
    pub fn wait_up(&self, n: usize) {
        let mut last = String::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            if let Ok(answer) = self.status_request().try_send(&self.master_addr()) {
                last = answer.text();
                let json = answer.json();
                let up = json["volumes"].as_array().map_or(0, |v| v.iter().filter(|v| v["up"] == true).count());
                if up == n {
                    return;
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{n} volumes are not up: {last}");
    }

    /// What `/-/status` says.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        self.status_request().send(&self.master_addr()).expect(200).json()
    }

    fn status_request(&self) -> Request {
        let request = Request::get("/-/status");
        match &self.token {
            Some(token) => request.header("Authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    /// A request to the master, redirects followed.
    #[track_caller]
    pub fn follow(&self, request: &Request) -> Answer {
        request.follow(&self.master_addr())
    }

    /// A request to the master, its own answer.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        request.send(&self.master_addr())
    }

    /// Stores a value (`PUT`), 200 or 201.
    #[track_caller]
    pub fn put(&self, target: &str, value: &[u8]) -> Answer {
        let answer = self.follow(&Request::put(target, value).expect_continue());
        assert!(matches!(answer.status, 200 | 201), "PUT {target}: {answer}");
        answer
    }

    /// Reads a value, redirects followed.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.follow(&Request::get(target))
    }

    /// Reads a value that must be there.
    #[track_caller]
    pub fn value(&self, target: &str) -> Vec<u8> {
        self.get(target).expect(200).body
    }

    /// Where the master redirects a read to.
    #[track_caller]
    pub fn read_url(&self, target: &str) -> Url {
        Url::of(&self.ask(&Request::get(target)).expect(302))
    }

    /// Where the master redirects a write to.
    #[track_caller]
    pub fn write_url(&self, target: &str, len: usize) -> Url {
        let request = Request::put(target, "").header("Kvdb-Content-Length", &len.to_string());
        Url::of(&self.ask(&request).expect(307))
    }

    /// The answer of each volume to a read of the key's present version.
    #[track_caller]
    pub fn copies(&self, target: &str) -> Vec<Answer> {
        let url = self.read_url(target);
        self.volumes.iter().filter(|v| v.is_started()).map(|v| Request::get(&url.target).send(&v.address())).collect()
    }

    /// Files in a volume's `blobs` directory: values too large for its index.
    pub fn blob_files(&self, i: usize) -> Vec<PathBuf> {
        files_below(&self.volume_dir(i).join("blobs"))
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let servers = std::iter::once(&self.master).chain(&self.volumes);
        servers.map(Server::log_tail).collect::<Vec<_>>().join("\n")
    }

    /// The master's log.
    pub fn master_log(&self) -> String {
        self.master.log_text()
    }

    /// A volume's log.
    pub fn volume_log(&self, i: usize) -> String {
        self.volumes[i].log_text()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// Regular files below a directory; none where it is not there.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|e| e.path());
    paths.flat_map(|p| if p.is_dir() { files_below(&p) } else { vec![p] }).collect()
}

fn volume_dir(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("volume{i}"))
}

/// Paths of temporary directories are text.
fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// One of sixteen million loopback addresses, by chance.
fn own_ip() -> String {
    let [a, b, c, ..] = RandomState::new().hash_one(std::process::id()).to_le_bytes();
    format!("127.{}.{}.{}", a.max(1), b, c.clamp(1, 254))
}
