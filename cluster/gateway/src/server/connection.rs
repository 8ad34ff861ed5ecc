//! What is known of one connection, and when it has to go.
//!
//! [`Connection::judge`] is a plain function of what was seen and the time; the task that serves the
//! connection does what it says.

use crate::authenticate::Certificate;
use crate::limits::{CANCEL_WINDOW, Limits};
use crate::tls::{Examined, Tls};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
    /// Somebody else needs its place.
    evicted: Notify,
}

/// What has to happen to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before so much time has passed.
    Wait(Duration),
    /// It has nothing to do: it is asked to go.
    Drain,
    /// It is closed at once.
    Close(&'static str),
}

#[derive(Debug)]
struct State {
    /// Whether it has shown a credential that is good.
    known: bool,
    /// Requests that are being answered.
    busy: usize,
    idle_since: Instant,
    /// Since when the header of an HTTP/1 request has been coming.
    header_since: Option<Instant>,
    /// Answers that are being sent; since when a piece of theirs has been waiting to be read, if one
    /// has.
    answers: HashMap<u64, Option<Instant>>,
    next: u64,
    /// Requests that were taken back since then.
    cancelled: (usize, Instant),
    peer: Peer,
}

/// What the other side showed, and what it was found to be.
#[derive(Debug, Default)]
struct Peer {
    shown: Vec<CertificateDer<'static>>,
    examined: Option<Examined>,
}

impl Connection {
    /// A connection that begins now.
    pub fn begin(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                known: false,
                busy: 0,
                idle_since: now,
                header_since: None,
                answers: HashMap::new(),
                next: 0,
                cancelled: (0, now),
                peer: Peer::default(),
            }),
            evicted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handshake is over, and these certificates were shown in it.
    pub fn greeted(&self, shown: Option<&[CertificateDer<'_>]>, now: Instant) {
        let mut state = self.state();
        let shown = shown.unwrap_or_default();
        state.peer.shown = shown.iter().map(|one| one.clone().into_owned()).collect();
        state.idle_since = now;
    }

    /// Who the certificates say is there, as of now: they are looked at again when one of them has
    /// expired and when whom we trust has changed.
    pub fn certificate(&self, tls: &Tls) -> Arc<Certificate> {
        let (epoch, now) = (tls.epoch(), UnixTime::now());
        let mut state = self.state();
        let fresh = state.peer.examined.as_ref().filter(|found| found.holds(epoch, now));
        let found = fresh.cloned().unwrap_or_else(|| tls.examine(&state.peer.shown, now));
        let certificate = Arc::clone(&found.certificate);
        state.known |= matches!(*certificate, Certificate::Of(_));
        state.peer.examined = Some(found);
        certificate
    }

    /// How long the certificate is good; `None` where it does not end.
    pub fn certificate_ends_in(&self) -> Option<Duration> {
        let until = self.state().peer.examined.as_ref()?.until?;
        Some(Duration::from_secs(until.saturating_sub(UnixTime::now().as_secs())))
    }

    /// A request came with a credential that is good.
    pub fn recognise(&self) {
        self.state().known = true;
    }

    /// Bytes came in.
    pub fn received(&self, now: Instant) {
        let mut state = self.state();
        if state.busy == 0 && state.header_since.is_none() {
            state.header_since = Some(now);
        }
    }

    /// A request's header has been read.
    pub fn ask(&self) {
        let mut state = self.state();
        state.busy += 1;
        state.header_since = None;
    }

    /// A request has been answered, or taken back.
    pub fn answered(&self, taken_back: bool, now: Instant) {
        let mut state = self.state();
        state.busy -= 1;
        state.idle_since = now;
        if taken_back {
            let (count, since) = state.cancelled;
            let fresh = now.duration_since(since) < CANCEL_WINDOW;
            state.cancelled = if fresh { (count + 1, since) } else { (1, now) };
        }
    }

    /// An answer begins to be sent; its number.
    pub fn sends(&self) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.answers.insert(number, None);
        number
    }

    /// A piece of an answer waits to be read since then, or none does.
    pub fn sending(&self, answer: u64, since: Option<Instant>) {
        if let Some(waits) = self.state().answers.get_mut(&answer) {
            *waits = since;
        }
    }

    /// An answer is not sent any more.
    pub fn sent(&self, answer: u64) {
        self.state().answers.remove(&answer);
    }

    /// Since when it has nothing to do, where it is a stranger's.
    pub fn spare_since(&self) -> Option<Instant> {
        let state = self.state();
        (!state.known && state.busy == 0).then_some(state.idle_since)
    }

    /// Whether it is a stranger's.
    pub fn is_strangers(&self) -> bool {
        !self.state().known
    }

    /// Takes its place away.
    pub fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Resolves when its place was taken away.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// What has to happen now.
    pub fn judge(&self, limits: &Limits, now: Instant) -> Verdict {
        let state = self.state();
        let left = |since: Instant, limit: Duration| {
            let left = limit.saturating_sub(now.duration_since(since));
            (!left.is_zero()).then_some(left)
        };
        if state.cancelled.0 > limits.cancelled {
            return Verdict::Close("too many requests were taken back");
        }
        let mut wait = limits.idle;
        if let Some(since) = state.header_since {
            match left(since, limits.header) {
                Some(rest) => wait = wait.min(rest),
                None => return Verdict::Close("the header took too long"),
            }
        }
        if let Some(since) = state.answers.values().flatten().min() {
            match left(*since, limits.write) {
                Some(rest) => wait = wait.min(rest),
                None => return Verdict::Close("an answer was not read in time"),
            }
        }
        if state.busy > 0 {
            // Whatever begins to wait meanwhile is looked at within its own limit.
            return Verdict::Wait(wait.min(limits.write));
        }
        let idle = if state.known { limits.idle } else { limits.stranger_idle };
        match left(state.idle_since, idle) {
            // A header that begins meanwhile is looked at within its own limit too.
            Some(rest) => Verdict::Wait(wait.min(rest).min(limits.header)),
            None if state.header_since.is_some() => Verdict::Wait(wait),
            None => Verdict::Drain,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_does_nothing_goes_and_a_stranger_sooner() {
        let (limits, start) = (Limits::default(), Instant::now());
        let connection = Connection::begin(start);
        let at = |after: Duration| connection.judge(&limits, start + after);
        assert_eq!(at(limits.stranger_idle), Verdict::Drain);
        connection.recognise();
        assert!(matches!(at(limits.stranger_idle), Verdict::Wait(_)));
        assert_eq!(at(limits.idle), Verdict::Drain);
        connection.ask();
        assert!(matches!(at(limits.idle * 9), Verdict::Wait(_)), "a watch may be silent");
        connection.answered(false, start + limits.idle * 9);
        assert!(matches!(at(limits.idle * 9 + SECOND), Verdict::Wait(_)));
    }

    #[test]
    fn a_header_has_its_time_from_its_first_byte_on() {
        let (limits, start) = (Limits::default(), Instant::now());
        let connection = Connection::begin(start);
        connection.recognise();
        let first = start + limits.idle.saturating_sub(SECOND);
        connection.received(first);
        connection.received(first + limits.header.saturating_sub(SECOND));
        assert!(matches!(connection.judge(&limits, start + limits.idle), Verdict::Wait(_)));
        assert!(matches!(connection.judge(&limits, first + limits.header), Verdict::Close(_)));
        connection.ask();
        assert!(matches!(connection.judge(&limits, first + limits.header), Verdict::Wait(_)));
    }

    #[test]
    fn a_piece_that_waits_is_read_in_time_and_a_source_that_waits_has_all_of_it() {
        let (limits, start) = (Limits::default(), Instant::now());
        let connection = Connection::begin(start);
        connection.ask();
        let answer = connection.sends();
        connection.sending(answer, Some(start));
        assert!(matches!(connection.judge(&limits, start + limits.write), Verdict::Close(_)));
        connection.sending(answer, None);
        assert!(matches!(connection.judge(&limits, start + limits.write * 99), Verdict::Wait(_)));
    }

    #[test]
    fn requests_that_are_taken_back_are_counted_by_the_window() {
        let (limits, start) = (Limits { cancelled: 2, ..Limits::default() }, Instant::now());
        let connection = Connection::begin(start);
        let take_back = |after: Duration| {
            connection.ask();
            connection.answered(true, start + after);
            connection.judge(&limits, start + after)
        };
        for after in [Duration::ZERO, SECOND, CANCEL_WINDOW, CANCEL_WINDOW + SECOND] {
            assert!(matches!(take_back(after), Verdict::Wait(_)));
        }
        assert!(matches!(take_back(CANCEL_WINDOW + SECOND), Verdict::Close(_)));
    }
}
