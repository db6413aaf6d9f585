//! Work that goes on when whoever waits for it goes away.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

/// Work that runs on its caller's task, and on a task of its own once the caller is dropped.
///
/// A client that hangs up must not cut a handler in half. A task for every event would do, too,
/// but costs an event that has little to do more than the event itself.
pub(super) struct Detach<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    tasks: TaskTracker,
    /// Counts the work as one of the tasks while it runs on its caller's.
    _token: TaskTrackerToken,
}

impl<T: Send + 'static> Detach<T> {
    /// Makes `work` ready to be awaited; from then on it runs to its end.
    pub(super) fn new(tasks: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Some(work.boxed()),
            tasks: tasks.clone(),
            _token: tasks.token(),
        }
    }
}

impl<T: Send + 'static> Future for Detach<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else {
            return Poll::Pending; // polled after its end, which `await` never does
        };
        let result = ready!(work.poll_unpin(cx));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Detach<T> {
    fn drop(&mut self) {
        // Without a runtime the process is at its end, and the work with it.
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            self.tasks.spawn(work.in_current_span());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_whose_caller_goes_away_is_done_all_the_same() {
        let tasks = TaskTracker::new();
        let (start, started) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut work = Detach::new(&tasks, async move {
            started.await.ok();
            end.send("done").ok();
        });
        assert!(futures_util::poll!(&mut work).is_pending());
        assert_eq!(tasks.len(), 1);

        drop(work);
        assert_eq!(tasks.len(), 1);
        start.send(()).unwrap();

        assert_eq!(ended.await, Ok("done"));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn work_that_is_awaited_needs_no_task() {
        let tasks = TaskTracker::new();
        assert_eq!(Detach::new(&tasks, async { 7 }).await, 7);
        assert!(tasks.is_empty());
    }
}
