//! What is known of one connection, and when it has to go.
//!
//! [`Connection::judge`] is a plain function of what was seen and the time; the task that serves the
//! connection does what it says.

use crate::authenticate::Certificate;
use crate::budget::Holder;
use crate::limits::{CANCEL_WINDOW, LEAST_RATE, Limits};
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

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its handshake is not over.
    Greeting,
    /// It has shown no credential that is good.
    Stranger,
    /// It has shown this user's.
    Known(Holder),
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Whether it carries many requests at a time, between which bytes come in that begin none.
    multiplexed: bool,
    /// Requests that are being answered.
    busy: usize,
    busy_since: Instant,
    idle_since: Instant,
    /// Since when the header of an HTTP/1 request has been coming.
    header_since: Option<Instant>,
    /// Answers that are being sent.
    answers: HashMap<u64, Sent>,
    next: u64,
    /// Requests that were taken back since then.
    cancelled: (usize, Instant),
    peer: Peer,
}

/// An answer that is being sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Since when a piece of it has been waiting to be read, if one has.
    waits: Option<Instant>,
    /// Whether it is no stream: then all of it has a least rate.
    paced: bool,
    /// How long its pieces before this one have waited. The time in which there was none is not its reader's.
    waited: Duration,
    /// Bytes that were given out.
    bytes: u64,
}

impl Sent {
    /// Until when a piece must be read: within so much time of its own, and of the whole as fast as
    /// the least rate.
    fn due(&self, write: Duration) -> Option<Instant> {
        let since = self.waits?;
        let whole = write + Duration::from_secs(self.bytes / LEAST_RATE);
        let left = if self.paced { whole.saturating_sub(self.waited).min(write) } else { write };
        Some(since + left)
    }
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
                stage: Stage::Greeting,
                multiplexed: false,
                busy: 0,
                busy_since: now,
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
    pub fn greeted(&self, shown: Option<&[CertificateDer<'_>]>, multiplexed: bool, now: Instant) {
        let mut state = self.state();
        (state.stage, state.multiplexed) = (Stage::Stranger, multiplexed);
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
        if let (Certificate::Of(user), Stage::Stranger) = (&*certificate, &state.stage) {
            state.stage = Stage::Known(Holder::of(user));
        }
        state.peer.examined = Some(found);
        certificate
    }

    /// How long the certificate is good; `None` where it does not end.
    pub fn certificate_ends_in(&self) -> Option<Duration> {
        let until = self.state().peer.examined.as_ref()?.until?;
        Some(Duration::from_secs(until.saturating_sub(UnixTime::now().as_secs())))
    }

    /// A request came with a good credential of this user; tells whether it was a stranger before.
    pub fn recognise(&self, user: &Holder) -> bool {
        let mut state = self.state();
        let stranger = state.stage == Stage::Stranger;
        if stranger {
            state.stage = Stage::Known(user.clone());
        }
        stranger
    }

    /// Bytes came in. Of HTTP/2 they may be anything: there the header has hyper's own bounds.
    pub fn received(&self, now: Instant) {
        let mut state = self.state();
        if !state.multiplexed && state.busy == 0 && state.header_since.is_none() {
            state.header_since = Some(now);
        }
    }

    /// A request's header has been read.
    pub fn ask(&self, now: Instant) {
        let mut state = self.state();
        if state.busy == 0 {
            state.busy_since = now;
        }
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

    /// An answer begins to be sent, which is no stream if it is `paced`; its number.
    pub fn sends(&self, paced: bool) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let sent = Sent { waits: None, paced, waited: Duration::ZERO, bytes: 0 };
        state.answers.insert(number, sent);
        number
    }

    /// From now on a piece of an answer, of so many bytes, waits to be read; or none does.
    pub fn sending(&self, answer: u64, piece: Option<u64>, now: Instant) {
        if let Some(sent) = self.state().answers.get_mut(&answer) {
            if let Some(since) = sent.waits {
                sent.waited += now.saturating_duration_since(since);
            }
            sent.waits = piece.map(|_| now);
            sent.bytes += piece.unwrap_or(0);
        }
    }

    /// An answer is not sent any more.
    pub fn sent(&self, answer: u64) {
        self.state().answers.remove(&answer);
    }

    /// Whether it is busy, and since when it has been so.
    pub fn since(&self) -> (bool, Instant) {
        let state = self.state();
        if state.busy > 0 { (true, state.busy_since) } else { (false, state.idle_since) }
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.state().stage.clone()
    }

    /// Whether its stage is such.
    pub fn is(&self, kind: impl Fn(&Stage) -> bool) -> bool {
        kind(&self.state().stage)
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
        let known = matches!(state.stage, Stage::Known(_));
        let write = if known { limits.write } else { limits.write.min(limits.stranger_answer) };
        if let Some(due) = state.answers.values().filter_map(|sent| sent.due(write)).min() {
            match due.checked_duration_since(now).filter(|rest| !rest.is_zero()) {
                Some(rest) => wait = wait.min(rest),
                None => return Verdict::Close("an answer was not read in time"),
            }
        }
        if state.busy > 0 {
            // Whatever begins to wait meanwhile is looked at within its own limit.
            return Verdict::Wait(wait.min(write));
        }
        let idle = if known { limits.idle } else { limits.stranger_idle };
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
    use impresario_runtime::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_does_nothing_goes_and_a_stranger_sooner() {
        let (limits, start) = (Limits::default(), clock::now());
        let connection = Connection::begin(start);
        let at = |after: Duration| connection.judge(&limits, start + after);
        assert_eq!(at(limits.stranger_idle), Verdict::Drain);
        connection.greeted(None, false, start);
        connection.recognise(&Holder::named("ann"));
        assert!(matches!(at(limits.stranger_idle), Verdict::Wait(_)));
        assert_eq!(at(limits.idle), Verdict::Drain);
        connection.ask(start);
        assert!(matches!(at(limits.idle * 9), Verdict::Wait(_)), "a watch may be silent");
        connection.answered(false, start + limits.idle * 9);
        assert!(matches!(at(limits.idle * 9 + SECOND), Verdict::Wait(_)));
    }

    #[test]
    fn a_header_has_its_time_from_its_first_byte_on() {
        let (limits, start) = (Limits::default(), clock::now());
        let connection = Connection::begin(start);
        connection.greeted(None, false, start);
        connection.recognise(&Holder::named("ann"));
        let first = start + limits.idle.saturating_sub(SECOND);
        connection.received(first);
        connection.received(first + limits.header.saturating_sub(SECOND));
        assert!(matches!(connection.judge(&limits, start + limits.idle), Verdict::Wait(_)));
        assert!(matches!(connection.judge(&limits, first + limits.header), Verdict::Close(_)));
        connection.ask(first);
        assert!(matches!(connection.judge(&limits, first + limits.header), Verdict::Wait(_)));
    }

    #[test]
    fn bytes_between_requests_of_http2_begin_no_header() {
        let (limits, start) = (Limits::default(), clock::now());
        let connection = Connection::begin(start);
        connection.greeted(None, true, start);
        connection.recognise(&Holder::named("ann"));
        connection.received(start + SECOND); // the answer to a ping
        let later = start + limits.header + SECOND * 2;
        assert!(matches!(connection.judge(&limits, later), Verdict::Wait(_)));
        assert_eq!(connection.judge(&limits, start + limits.idle), Verdict::Drain);
    }

    #[test]
    fn an_answer_is_read_at_the_least_rate_and_a_stream_as_it_comes() {
        let (limits, start) = (Limits::default(), clock::now());
        let reads_slowly = |paced: bool| {
            let connection = Connection::begin(start);
            connection.greeted(None, false, start);
            connection.recognise(&Holder::named("ann"));
            connection.ask(start);
            let answer = connection.sends(paced);
            let mut now = start;
            for _ in 0..4 {
                connection.sending(answer, Some(LEAST_RATE), now);
                now += limits.write.saturating_sub(SECOND);
            }
            connection.judge(&limits, now)
        };
        assert!(matches!(reads_slowly(true), Verdict::Close(_)));
        assert!(matches!(reads_slowly(false), Verdict::Wait(_)));
    }

    #[test]
    fn an_answer_that_is_made_slowly_is_not_its_readers_fault() {
        let (limits, start) = (Limits::default(), clock::now());
        let connection = Connection::begin(start);
        connection.greeted(None, false, start);
        connection.recognise(&Holder::named("ann"));
        connection.ask(start);
        let answer = connection.sends(true);
        connection.sending(answer, Some(1), start);
        connection.sending(answer, None, start + SECOND);
        // The second piece is found when the time for all of it would be over.
        let late = start + limits.write * 3;
        assert!(matches!(connection.judge(&limits, late), Verdict::Wait(_)));
        connection.sending(answer, Some(1), late);
        let soon = late + limits.write.saturating_sub(SECOND * 2);
        assert!(matches!(connection.judge(&limits, soon), Verdict::Wait(_)));
        assert!(matches!(connection.judge(&limits, late + limits.write), Verdict::Close(_)));
    }

    #[test]
    fn a_piece_that_waits_is_read_in_time_and_a_source_that_waits_has_all_of_it() {
        let (limits, start) = (Limits::default(), clock::now());
        let connection = Connection::begin(start);
        connection.greeted(None, false, start);
        connection.recognise(&Holder::named("ann"));
        connection.ask(start);
        let answer = connection.sends(false);
        connection.sending(answer, Some(1), start);
        assert!(matches!(connection.judge(&limits, start + limits.write), Verdict::Close(_)));
        connection.sending(answer, None, start + limits.write);
        assert!(matches!(connection.judge(&limits, start + limits.write * 99), Verdict::Wait(_)));
    }

    #[test]
    fn requests_that_are_taken_back_are_counted_by_the_window() {
        let (limits, start) = (Limits { cancelled: 2, ..Limits::default() }, clock::now());
        let connection = Connection::begin(start);
        let take_back = |after: Duration| {
            connection.ask(start);
            connection.answered(true, start + after);
            connection.judge(&limits, start + after)
        };
        for after in [Duration::ZERO, SECOND, CANCEL_WINDOW, CANCEL_WINDOW + SECOND] {
            assert!(matches!(take_back(after), Verdict::Wait(_)));
        }
        assert!(matches!(take_back(CANCEL_WINDOW + SECOND), Verdict::Close(_)));
    }
}
