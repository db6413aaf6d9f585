//! Group commit: what comes while the database is busy goes along with the next batch.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};
use crate::store::away;

/// An item, and who waits for its answer.
type Queued<A, R> = (A, Option<oneshot::Sender<Result<R>>>);

/// Hands items to a few loops that work off whatever has gathered, many at a time.
///
/// Nothing waits for a batch to fill: an item that comes alone goes alone.
pub(super) struct Batcher<A, R> {
    queue: mpsc::Sender<Queued<A, R>>,
    /// Items handed over and not answered.
    open: Arc<AtomicUsize>,
}

impl<A: Send + 'static, R: Send + 'static> Batcher<A, R> {
    /// Starts `loops` loops on `tasks`, which end when the batcher is dropped. `work` gets at most
    /// `most` items and answers each in its place.
    pub(super) fn start<W, F>(tasks: &TaskTracker, loops: usize, most: usize, work: W) -> Self
    where
        W: Fn(Vec<A>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<R>>> + Send + 'static,
    {
        let (queue, items) = mpsc::channel(most * 4);
        let items = Arc::new(Mutex::new(items));
        let open = Arc::new(AtomicUsize::new(0));
        let working = Arc::new(Working::default());
        for _ in 0..loops {
            tasks.spawn(turn(
                Arc::clone(&items),
                Arc::clone(&open),
                Arc::clone(&working),
                most,
                work.clone(),
            ));
        }
        Self { queue, open }
    }

    /// Waits for an item's answer.
    ///
    /// # Errors
    /// What went wrong with the whole batch.
    pub(super) async fn ask(&self, item: A) -> Result<R> {
        let (sender, answer) = oneshot::channel();
        let Ok(place) = self.queue.reserve().await else {
            return Err(away("shutting_down"));
        };
        self.open.fetch_add(1, Ordering::Relaxed);
        place.send((item, Some(sender)));
        answer.await.unwrap_or_else(|_| Err(away("shutting_down")))
    }

    /// Hands over an item nobody waits for; dropped when there is no room.
    pub(super) fn tell(&self, item: A) {
        if let Ok(place) = self.queue.try_reserve() {
            self.open.fetch_add(1, Ordering::Relaxed);
            place.send((item, None));
        }
    }

    /// Waits until every item handed over has been worked off.
    pub(super) async fn idle(&self) {
        while self.open.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// How long a loop leaves what comes to the one that is at work. A transaction has its price, so
/// few large batches beat many small ones; but one that takes long must not hold up the rest.
const PATIENCE: Duration = Duration::from_millis(5);

/// Which loops are at work.
#[derive(Default)]
struct Working {
    loops: AtomicUsize,
    done: Notify,
}

impl Working {
    /// Waits until no loop is at work, for a while.
    async fn others(&self) {
        let none = async {
            while self.loops.load(Ordering::Acquire) > 0 {
                self.done.notified().await;
            }
        };
        let _patience_is_over = tokio::time::timeout(PATIENCE, none).await;
    }

    fn begin(&self) {
        self.loops.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        self.loops.fetch_sub(1, Ordering::AcqRel);
        // Kept for the next who waits; there is one at most.
        self.done.notify_one();
    }
}

async fn turn<A, R, W, F>(
    items: Arc<Mutex<mpsc::Receiver<Queued<A, R>>>>,
    open: Arc<AtomicUsize>,
    working: Arc<Working>,
    most: usize,
    work: W,
) where
    W: Fn(Vec<A>) -> F,
    F: Future<Output = Result<Vec<R>>>,
{
    let mut batch = Vec::new();
    loop {
        let got = {
            // Held while waiting: the other loops are busy or wait their turn.
            let mut items = items.lock().await;
            working.others().await;
            let first = items.recv_many(&mut batch, most).await;
            // Whoever is about to hand something over may do so; when nobody is, this takes no time.
            tokio::task::yield_now().await;
            let rest = most.saturating_sub(first).min(items.len());
            let more = match rest {
                0 => 0,
                rest => items.recv_many(&mut batch, rest).await,
            };
            working.begin();
            first + more
        };
        if got == 0 {
            return;
        }
        // Who gave up waiting has said so to others already, and the item comes again.
        batch.retain(|(_, sender)| sender.as_ref().is_none_or(|one| !one.is_closed()));
        if batch.is_empty() {
            open.fetch_sub(got, Ordering::Relaxed);
            working.end();
            continue;
        }
        let (asks, senders): (Vec<A>, Vec<_>) = batch.drain(..).unzip();
        let answers = work(asks).await;
        open.fetch_sub(got, Ordering::Relaxed);
        working.end();
        match answers {
            Ok(answers) => {
                for (sender, answer) in senders.into_iter().zip(answers) {
                    let _gone = sender.map(|sender| sender.send(Ok(answer)));
                }
            }
            Err(error) => {
                for sender in senders.into_iter().flatten() {
                    let _gone = sender.send(Err(same(&error)));
                }
            }
        }
    }
}

/// Says the same to each of those who wait.
fn same(error: &Error) -> Error {
    match error {
        Error::Credentials { service, code } => Error::Credentials {
            service,
            code: code.clone(),
        },
        other => Error::Unavailable {
            service: "database",
            code: other.code(),
            retry_after: None,
            source: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_while_a_batch_is_worked_on_goes_along_with_the_next() {
        let tasks = TaskTracker::new();
        let sizes = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let batcher = Batcher::start(&tasks, 1, 100, move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.len());
            async move {
                tokio::task::yield_now().await;
                Ok(items.into_iter().map(|n| n * 2).collect())
            }
        });
        let asks = (0..50).map(|n| batcher.ask(n));
        let answers = futures_util::future::join_all(asks).await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap() as usize, n * 2);
        }
        assert!(sizes.lock().unwrap().len() < 50, "{sizes:?}");
        drop(batcher);
        tasks.close();
        tasks.wait().await;
    }
}
