//! Work that runs to its end even if whoever waits for it goes away.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::Handle;

/// The work panicked; the log says where.
#[derive(Debug, thiserror::Error)]
#[error("it panicked; see the log")]
pub struct Panicked;

/// Work that goes on in a task of its own if it is dropped before its end.
///
/// A task from the beginning would do, too, at the price of two more wake-ups of other threads.
#[must_use = "it begins when it is awaited, or dropped"]
pub struct ToEnd<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    home: Handle,
}

/// Has work run to its end. To be called in the context of the runtime that it belongs to.
pub fn to_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> ToEnd<T> {
    ToEnd { work: Some(Box::pin(work)), home: Handle::current() }
}

impl<T: Send + 'static> Future for ToEnd<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Panicked)) };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Ok(value),
            Err(_) => Err(Panicked),
        };
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for ToEnd<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            drop(self.home.spawn(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_is_awaited_gives_its_result() {
        assert_eq!(to_end(async { 7 }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_is_dropped_half_way_goes_on_to_its_end() {
        let (go, gone) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut work = to_end(async {
            gone.await.unwrap();
            end.send("done").unwrap();
        });
        assert!(futures_util::poll!(&mut work).is_pending());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(ended.await.unwrap(), "done");
    }

    #[tokio::test]
    async fn what_is_dropped_before_it_began_is_done() {
        let (end, ended) = oneshot::channel();
        drop(to_end(async { end.send("done").unwrap() }));
        assert_eq!(ended.await.unwrap(), "done");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_whoever_waits() {
        let error = to_end(async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(error.to_string(), "it panicked; see the log");
    }
}
