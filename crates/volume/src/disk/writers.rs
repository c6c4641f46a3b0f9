//! Threads that write blocks of files beside those that receive them: a single upload keeps several writes in flight, and who
//! receives waits for no call to the disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many there are, and so how many writes are in flight. Each holds one buffer, so this bounds the memory, too.
pub const WRITER_THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of a store. Only who has a seat gives them work, so that none of it waits. They end when this is dropped.
pub struct Writers {
    jobs: Option<Sender<Job>>,
    seats: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

/// An idle thread, kept for one job.
pub struct Seat<'a> {
    writers: &'a Writers,
    permit: OwnedSemaphorePermit,
}

impl Writers {
    /// Starts them.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let start = |n| {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(format!("write-{n}")).spawn(move || work(&waiting))
        };
        let threads = (0..WRITER_THREADS).map(start).collect::<io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), seats: Arc::new(Semaphore::new(WRITER_THREADS)), threads })
    }

    /// Waits for an idle thread; first come, first served. None only if there will never be one.
    pub async fn seat(&self) -> Option<Seat<'_>> {
        let permit = Arc::clone(&self.seats).acquire_owned().await.ok()?;
        Some(Seat { writers: self, permit })
    }

    /// An idle thread, if there is one now.
    pub fn idle_seat(&self) -> Option<Seat<'_>> {
        let permit = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        Some(Seat { writers: self, permit })
    }
}

impl Seat<'_> {
    /// Has the thread do it.
    pub fn run(self, job: impl FnOnce() + Send + 'static) {
        let Self { writers, permit } = self;
        let job = move || {
            job();
            drop(permit);
        };
        if let Some(jobs) = &writers.jobs {
            // The threads live as long as this sender.
            let _ = jobs.send(Box::new(job));
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that writes ended in a panic");
            }
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever waits for its outcome learns that there is none; the thread is needed for other files.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a write of a block panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_has_one_job_at_a_time_and_outlives_one_that_panics() {
        let writers = Writers::start().unwrap();
        let (done, outcomes) = mpsc::channel();
        for round in 0..3 {
            let (hold, held) = mpsc::channel::<()>();
            let held = Arc::new(Mutex::new(held));
            for n in 0..WRITER_THREADS {
                let (done, held) = (done.clone(), Arc::clone(&held));
                writers.seat().await.unwrap().run(move || {
                    // Until there is no more to wait for.
                    let _ = held.lock().unwrap().recv();
                    done.send(n).unwrap();
                    assert!(round != 1, "a job that panics");
                });
            }
            assert!(writers.idle_seat().is_none());
            drop(hold);
            let mut all: Vec<_> = outcomes.iter().take(WRITER_THREADS).collect();
            all.sort_unstable();
            assert_eq!(all, (0..WRITER_THREADS).collect::<Vec<_>>());
        }
    }
}
