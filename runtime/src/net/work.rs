//! What actors do for a peer, with what that holds of its budget.
//!
//! The place among its asks, and what the message weighs, are the work's and not the asker's: they are held until the
//! work ends, though its deadline has passed, its stream is reset or its link is gone. An actor's work does not end
//! with any of these, so that who gives up at once and asks again would have any number of it done.
//!
//! Where an actor answers as it handles there is nothing to go on with. What waits in its mailbox when nobody waits for
//! it any more is let go, unless it weighs something: actix hands it to nobody, and an actor that is behind catches up.

use crate::budget::Hold;
use futures_util::{FutureExt, future::BoxFuture};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};

/// What work holds of its peer's budget until this is dropped.
pub(crate) struct Held {
    _place: Option<OwnedSemaphorePermit>,
    weight: Vec<Hold>,
}

/// Work that an actor does for a peer. Whoever drops it, what it holds is released when it has ended.
pub(crate) struct Work<T: Send + 'static> {
    tasks: Handle,
    /// Nothing once it has ended.
    runs: Option<(BoxFuture<'static, T>, Held)>,
    /// Whether the actor may go on with the message after it has handled it.
    goes_on: bool,
}

impl<T: Send + 'static> Work<T> {
    pub(crate) fn new(
        tasks: &Handle,
        outcome: BoxFuture<'static, T>,
        place: Option<OwnedSemaphorePermit>,
        weight: Vec<Hold>,
        goes_on: bool,
    ) -> Self {
        let held = Held { _place: place, weight };
        Self { tasks: tasks.clone(), runs: Some((outcome, held)), goes_on }
    }
}

impl<T: Send + 'static> Future for Work<T> {
    /// The outcome, and what may now be released.
    type Output = (T, Held);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((outcome, _)) = &mut self.runs else { return Poll::Pending };
        let outcome = ready!(outcome.poll_unpin(context));
        self.runs.take().map_or(Poll::Pending, |(_, held)| Poll::Ready((outcome, held)))
    }
}

impl<T: Send + 'static> Drop for Work<T> {
    fn drop(&mut self) {
        if let Some((outcome, held)) = self.runs.take()
            && (self.goes_on || !held.weight.is_empty())
        {
            self.tasks.spawn(async move {
                drop(outcome.await);
                drop(held);
            });
        }
    }
}
