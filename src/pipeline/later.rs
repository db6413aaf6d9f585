//! A claim that is made when a handler reaches out for the first time.
//!
//! Most events concern no handler in the end, which shows when the handler has looked at them.
//! Until it makes a request nothing it has done lasts, so nothing has to be claimed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::Budget;
use super::ledger::{Answer, Ledger};
use crate::clients::Admission;
use crate::error::Result;
use crate::store::inbox::{Ask, RunKey};

/// A claim that may be made.
pub(super) struct Later {
    ledger: Arc<Ledger>,
    ask: Ask,
    key: RunKey,
    budget: Budget,
    /// Held by the request that asks; further ones wait for its answer.
    asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Set with the answer; cancelled when the run has no right to go on.
    answered: SetOnce<CancellationToken>,
}

enum State {
    /// No request was made so far.
    Open,
    Answered(Result<Answer>),
    /// The handler has ended; what it left running gets no right any more.
    Closed,
}

impl Later {
    pub(super) fn new(ledger: Arc<Ledger>, ask: Ask, key: RunKey, budget: Budget) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            ask,
            key,
            budget,
            asking: tokio::sync::Mutex::default(),
            state: Mutex::new(State::Open),
            answered: SetOnce::new(),
        })
    }

    /// Which run it is for.
    pub(super) fn key(&self) -> &RunKey {
        &self.key
    }

    /// Resolves when the run has no right to go on: the claim was refused, or is lost by now.
    pub(super) async fn refused(&self) {
        self.answered.wait().await.cancelled().await;
    }

    /// Says that the handler has ended; returns the answer if there was a request.
    pub(super) fn close(&self) -> Option<Result<Answer>> {
        match std::mem::replace(&mut *self.state(), State::Closed) {
            State::Answered(answer) => Some(answer),
            State::Open | State::Closed => None,
        }
    }

    async fn claim(&self) {
        let _one = self.asking.lock().await;
        if self.answered.initialized() || !matches!(*self.state(), State::Open) {
            return;
        }
        let answer = self.ledger.claim(self.ask.clone(), &self.budget).await;
        let lost = match &answer {
            Ok(Answer::Ours(lease)) => lease.lost(),
            Ok(Answer::Ended(_) | Answer::Running) | Err(_) => {
                let refused = CancellationToken::new();
                refused.cancel();
                refused
            }
        };
        let mut state = self.state();
        if matches!(*state, State::Open) {
            *state = State::Answered(answer);
            let _first = self.answered.set(lost);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission for Later {
    fn admitted(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if !self.answered.initialized() {
                self.claim().await;
            }
            let ours = matches!(&*self.state(), State::Answered(Ok(Answer::Ours(_))));
            if !ours {
                std::future::pending::<()>().await;
            }
        })
    }
}
