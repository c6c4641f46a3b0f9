//! Threads that serve connections, each with an event loop of its own.
//!
//! A server of many tiny answers spends most of its time in wake-ups when the connections wander between the workers of one
//! runtime. Here a connection stays with a thread. Services are still called in the context of the runtime that called `serve`,
//! so that what they spawn, wait for or block on belongs there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Threads, ended by [`Threads::end`].
pub(crate) struct Threads(Vec<Worker>);

struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    /// Connections that it serves, or is about to.
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Threads {
    /// Starts `count` threads.
    pub fn start(name: &str, count: usize) -> io::Result<Self> {
        (0..count).map(|n| Worker::start(format!("{name}-{n}"))).collect::<Result<_, _>>().map(Self)
    }

    /// Has the thread with the fewest connections run one. The bound of connections at once bounds the queues, too.
    pub fn run(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(worker) = self.0.iter().min_by_key(|w| w.load.load(Ordering::Relaxed)) else { return };
        let load = Load::rise(&worker.load);
        let job = Box::pin(async move {
            connection.await;
            drop(load);
        });
        // It only fails if the thread is gone, which would be a bug; the connection is dropped then.
        if worker.jobs.send(job).is_err() {
            tracing::error!("a thread of connections has ended early");
        }
    }

    /// Waits for the threads; to be called when no connection is left. Blocks.
    pub fn end(self) {
        for worker in self.0 {
            drop(worker.jobs);
            if worker.thread.join().is_err() {
                tracing::error!("a thread of connections ended in a panic");
            }
        }
    }
}

impl Worker {
    fn start(name: String) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let serve = async move {
            while let Some(job) = waiting.recv().await {
                tokio::spawn(job);
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || runtime.block_on(serve))?;
        Ok(Self { jobs, load: Arc::default(), thread })
    }
}

/// One more connection, until it is dropped.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn rise(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
