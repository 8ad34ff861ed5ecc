//! What moves the bytes of a session between its transport and its [`Connection`], and keeps its deadlines.
//!
//! ```text
//!   Running ──the session is over──> Parting ──all is sent, the peer has closed, or `linger` has passed──> the result
//!      └──────the transport fails───────────────────────────────────────────────────────────────────────> the result
//! ```
//!
//! After its farewell it closes its own direction and waits for the peer to close the other: a socket that is closed
//! with something unread in it takes back what the peer has not read yet.

use crate::connection::Connection;
use crate::error::SessionError;
use crate::limits::Limits;
use impresario_ambient::clock;
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What is read at once: so much lies here beside what streams hold.
const INPUT_BYTES: usize = 16 << 10;

/// So many times in a row it reads or writes, before others on its thread have their turn.
const MOST_TURNS: usize = 64;

/// Does the work of a session: a future that whoever has it polls or spawns. Its result says how the session ended;
/// dropped before, it ends all streams.
#[must_use = "nothing is read or written unless it is polled"]
pub struct Driver<IO> {
    transport: Transport<IO>,
    connection: Arc<Mutex<Connection>>,
    limits: Limits,
    phase: Phase,
    /// Since when it has been told to close.
    closing: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy)]
enum Phase {
    Running,
    /// The farewell is sent, until then at the latest.
    Parting {
        until: Instant,
    },
}

/// What came of one turn.
enum Turn {
    Moved,
    Stuck,
    Over(Result<(), SessionError>),
}

impl<IO> Driver<IO> {
    pub(crate) fn new(io: IO, connection: Arc<Mutex<Connection>>, limits: Limits) -> Self {
        let transport = Transport {
            io,
            out: Vec::new(),
            sent: 0,
            is_unflushed: false,
            is_shut: false,
            input: vec![0; INPUT_BYTES],
            unread: 0..0,
            is_at_end: false,
            active: None,
        };
        let (phase, closing, timer) = (Phase::Running, None, None);
        Self { transport, connection, limits, phase, closing, timer }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = Result<(), SessionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for _ in 0..MOST_TURNS {
            let turn = match this.phase {
                Phase::Running => this.run(cx),
                Phase::Parting { until } => this.part(until, cx),
            };
            match turn {
                Turn::Moved => {}
                Turn::Stuck => return Poll::Pending,
                Turn::Over(result) => return Poll::Ready(result),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    fn run(&mut self, cx: &mut Context<'_>) -> Turn {
        let now = clock::now();
        let (is_over, is_closing, may_receive) = {
            let mut connection = self.connection.lock();
            connection.register_driver(cx);
            connection.conclude();
            self.transport.refill(&mut connection);
            (connection.end().is_some(), connection.is_closing(), connection.may_receive())
        };
        if is_over {
            self.phase = Phase::Parting { until: after(now, self.limits.linger) };
            return Turn::Moved;
        }
        let mut has_moved = match self.transport.send(now, cx) {
            Poll::Ready(Ok(moved)) => moved,
            Poll::Ready(Err(error)) => return self.fails(error),
            Poll::Pending => false,
        };
        if may_receive {
            match self.transport.receive(now, cx) {
                Poll::Ready(Ok(())) => {
                    has_moved = true;
                    self.transport.pass_on(&mut self.connection.lock());
                }
                Poll::Ready(Err(error)) => return self.fails(error),
                Poll::Pending => {}
            }
        }
        if has_moved {
            return Turn::Moved;
        }
        let (deadline, error) = self.deadline(now, is_closing);
        if self.is_late(deadline, cx) {
            self.connection.lock().fail(error);
            return Turn::Moved;
        }
        Turn::Stuck
    }

    /// When it is over if nothing moves before, and what it is then.
    fn deadline(&mut self, now: Instant, is_closing: bool) -> (Instant, SessionError) {
        let Limits { idle, linger, .. } = self.limits;
        let idle_at = after(*self.transport.active.get_or_insert(now), idle);
        if is_closing {
            let closed_at = after(*self.closing.get_or_insert(now), linger);
            if closed_at <= idle_at {
                return (closed_at, SessionError::Lingered { waited: linger });
            }
        }
        (idle_at, SessionError::Idle { waited: idle })
    }

    /// The transport has failed: nothing can be sent any more.
    fn fails(&mut self, error: io::Error) -> Turn {
        self.connection.lock().over(SessionError::Io(Arc::new(error)));
        Turn::Over(self.result())
    }

    /// Sends what is left to be said, closes, and waits for the peer to close.
    fn part(&mut self, until: Instant, cx: &mut Context<'_>) -> Turn {
        let now = clock::now();
        self.transport.refill(&mut self.connection.lock());
        let mut has_moved = false;
        let said = match self.transport.send(now, cx) {
            Poll::Ready(Ok(true)) => {
                has_moved = true;
                false
            }
            Poll::Ready(Ok(false)) => match self.transport.shut(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Turn::Over(self.result()),
                Poll::Pending => false,
            },
            // The peer is gone: there is nobody to take leave of.
            Poll::Ready(Err(_)) => return Turn::Over(self.result()),
            Poll::Pending => false,
        };
        if !self.transport.is_at_end {
            match self.transport.receive(now, cx) {
                Poll::Ready(Ok(())) => {
                    has_moved = true;
                    self.transport.unread = 0..0;
                }
                Poll::Ready(Err(_)) => self.transport.is_at_end = true,
                Poll::Pending => {}
            }
        }
        if said && self.transport.is_at_end {
            return Turn::Over(self.result());
        }
        // A peer that goes on sending does not hold it up.
        if self.is_late(until, cx) {
            return Turn::Over(self.result());
        }
        if has_moved { Turn::Moved } else { Turn::Stuck }
    }

    fn result(&self) -> Result<(), SessionError> {
        match self.connection.lock().end() {
            None | Some(SessionError::Closed) => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Whether that moment has come. If not, it wakes then.
    fn is_late(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let deadline = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // It may stand at an earlier moment, since each byte moves the deadline, and is set when it rings.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}

/// No limit is longer: a clock cannot count to the longest duration that there is.
const LONGEST: Duration = Duration::from_hours(24 * 365);

fn after(moment: Instant, wait: Duration) -> Instant {
    moment + wait.min(LONGEST)
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.connection.lock().over(SessionError::DriverGone);
    }
}

/// The transport, and what is on its way between it and the session.
struct Transport<IO> {
    io: IO,
    out: Vec<u8>,
    /// Of `out`.
    sent: usize,
    is_unflushed: bool,
    is_shut: bool,
    input: Vec<u8>,
    /// Of `input`.
    unread: std::ops::Range<usize>,
    /// The peer has closed.
    is_at_end: bool,
    /// When something moved last.
    active: Option<Instant>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Transport<IO> {
    /// Takes more to send, when all has been sent.
    fn refill(&mut self, connection: &mut Connection) {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            connection.fill(&mut self.out);
        }
    }

    /// Sends what there is; says whether there was something.
    fn send(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.sent < self.out.len() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.is_unflushed = true;
            self.active = Some(now);
            return Poll::Ready(Ok(true));
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(false))
    }

    /// Closes this direction.
    fn shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads, unless something lies here already.
    fn receive(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let mut buffer = ReadBuf::new(&mut self.input);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            self.unread = 0..buffer.filled().len();
            self.is_at_end = self.unread.is_empty();
            self.active = Some(now);
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on what was read, as far as the session takes it.
    fn pass_on(&mut self, connection: &mut Connection) {
        if self.is_at_end {
            connection.peer_closed();
            return;
        }
        let mut input = &self.input[self.unread.clone()];
        connection.receive(&mut input);
        self.unread.start = self.unread.end - input.len();
    }
}
