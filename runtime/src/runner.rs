//! Runs one supervised actor through its lives.
//!
//! A life is an actix context driven here instead of by actix, so that a panic in a handler is seen as a failure and not
//! lost with its task. An actor that stops itself is not restarted. What waited in the mailbox of a failed life is lost,
//! and its askers are told so (`Stopped`).

use crate::{
    cell::{Cell, Cells},
    mailbox::Mailbox,
    supervise::{History, SpawnOptions, Verdict},
    watch::Reason,
};
use actix::{Actor, ActorContext, AsyncContext, Context, dev::channel, fut::ActorFuture};
use impresario_ambient::{clock, random};
use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

/// How one life ended.
enum Life {
    Finished,
    Panicked,
    /// The supervisor wants it to begin again, though it did not fail itself.
    Restarted,
    Stopped,
    Escalated,
}

pub(crate) struct Runner<A: Actor<Context = Context<A>>, F> {
    pub(crate) cells: Arc<Cells>,
    pub(crate) cell: Arc<Cell>,
    pub(crate) mailbox: Mailbox<A>,
    pub(crate) options: SpawnOptions,
    pub(crate) factory: F,
    /// The receiving half of the first life's mailbox, opened before the runner starts so that no early message is lost.
    pub(crate) first: channel::AddressReceiver<A>,
}

/// Ends the cell however the runner ends: also when its arbiter is stopped and its future dropped.
struct EndOnDrop<A: Actor> {
    cells: Arc<Cells>,
    cell: Arc<Cell>,
    mailbox: Mailbox<A>,
    reason: Reason,
}

impl<A: Actor> Drop for EndOnDrop<A> {
    fn drop(&mut self) {
        self.mailbox.close();
        self.cells.end(&self.cell, self.reason);
    }
}

impl<A: Actor<Context = Context<A>>, F: FnMut(&mut Context<A>) -> A> Runner<A, F> {
    pub(crate) async fn run(self) {
        let Self { cells, cell, mailbox, options, mut factory, first } = self;
        let mut end = EndOnDrop {
            cells,
            cell: cell.clone(),
            mailbox: mailbox.clone(),
            reason: Reason::Stopped,
        };
        let mut history = History::default();
        let mut receiver = first;
        loop {
            let life = live(&cell, &mailbox, &mut factory, receiver).await;
            mailbox.close();
            let wait = match life {
                Life::Finished | Life::Stopped => break,
                Life::Escalated => {
                    end.reason = Reason::Failed;
                    break;
                }
                Life::Restarted => Duration::ZERO,
                Life::Panicked => {
                    match history.failed(&options.restart, clock::now(), random::random()) {
                        Verdict::RestartAfter(wait) => {
                            tracing::warn!(actor = %cell.name, ?wait, "actor failed, restarting");
                            if let Some(group) = &options.group {
                                group.member_failed(&cell);
                            }
                            wait
                        }
                        Verdict::GiveUp => {
                            tracing::error!(actor = %cell.name, "actor failed too often, giving up");
                            end.reason = Reason::Failed;
                            break;
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = cell.orders.stop.notified() => break,
                () = cell.orders.fail.notified() => {
                    end.reason = Reason::Failed;
                    break;
                }
                () = tokio::time::sleep(wait) => {}
            }
            cell.starts_again();
            let (sender, next) = channel::channel(options.mailbox);
            mailbox.open(sender);
            receiver = next;
        }
        let reason = end.reason;
        drop(end);
        if let Some(group) = &options.group {
            group.escalate(&cell, reason);
        }
    }
}

/// Runs for as long as its actor: actix turns to what an actor has spawned when nothing is left in the mailbox, and not
/// while the actor waits for something ([`AsyncContext::wait`]).
struct Drained<A: Actor>(Mailbox<A>);

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Drained<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        _: &mut A,
        context: &mut Context<A>,
        _: &mut task::Context<'_>,
    ) -> Poll<()> {
        // What the last message began to wait for is not among what the context waits for yet.
        if !context.waiting() {
            self.0.is_drained();
        }
        Poll::Pending
    }
}

/// One life, from creation to its end.
async fn live<A, F>(
    cell: &Arc<Cell>,
    mailbox: &Mailbox<A>,
    factory: &mut F,
    receiver: channel::AddressReceiver<A>,
) -> Life
where
    A: Actor<Context = Context<A>>,
    F: FnMut(&mut Context<A>) -> A,
{
    let mut context = Context::with_receiver(receiver);
    let actor = match catch_unwind(AssertUnwindSafe(|| factory(&mut context))) {
        Ok(actor) => actor,
        Err(panic) => return panicked(cell, &*panic),
    };
    context.spawn(Drained(mailbox.clone()));
    let mut life = context.into_future(actor);
    let ran = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut life).poll(cx)));
        mailbox.has_run();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    let end = tokio::select! {
        biased;
        () = cell.orders.stop.notified() => Life::Stopped,
        () = cell.orders.fail.notified() => Life::Escalated,
        () = cell.orders.restart.notified() => Life::Restarted,
        ran = ran => match ran {
            Ok(()) => Life::Finished,
            Err(panic) => {
                // A context that is dropped alive polls its actor once more: not with state that a panic left behind.
                life.ctx().terminate();
                panicked(cell, &*panic)
            }
        },
    };
    // Dropping a live context lets the actor run `stopping` and `stopped`, which may panic as well.
    match catch_unwind(AssertUnwindSafe(|| drop(life))) {
        Ok(()) => end,
        Err(panic) => panicked(cell, &*panic),
    }
}

fn panicked(cell: &Cell, panic: &(dyn Any + Send)) -> Life {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    tracing::error!(actor = %cell.name, panic = text, "actor panicked");
    Life::Panicked
}
