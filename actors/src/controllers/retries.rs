//! What failed for one object is tried again later and later, while all others go on.

use super::control::LookError;
use impresario_runtime::{Backoff, random};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Pauses after failures of one object.
const FAILED: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(300) };
/// Pauses where a mirror does not show yet what the registry has: that takes a moment, nearly always.
const POSTPONED: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(300) };

/// Which objects failed, and when they are tried again. Holds one small record for each that failed of
/// late, by its uid.
#[derive(Debug, Default)]
pub(super) struct Retries(Mutex<HashMap<String, Retry>>);

#[derive(Debug)]
struct Retry {
    failures: u32,
    due: Instant,
}

impl Retries {
    /// Whether the object of this uid may be tried.
    pub(super) fn may_try(&self, uid: &str, now: Instant) -> bool {
        self.0.lock().get(uid).is_none_or(|retry| retry.due <= now)
    }

    /// Takes note of how an action went. A failure of this one object, `what` in words, is logged and
    /// remembered; one that the next would have too is given back.
    pub(super) fn note<T>(
        &self,
        uid: &str,
        what: impl Display,
        outcome: Result<T, LookError>,
        now: Instant,
    ) -> Result<Option<T>, LookError> {
        let error = match outcome {
            Ok(done) => {
                self.0.lock().remove(uid);
                return Ok(Some(done));
            }
            Err(error) if !error.is_of_one_object() => return Err(error),
            Err(error) => error,
        };
        let (failures, wait) = self.put_off(uid, FAILED, now);
        tracing::warn!(%what, %error, failures, again_in = ?wait, "not done");
        Ok(None)
    }

    /// Nothing failed, but the object cannot be dealt with yet.
    pub(super) fn postpone(&self, uid: &str, now: Instant) {
        self.put_off(uid, POSTPONED, now);
    }

    fn put_off(&self, uid: &str, backoff: Backoff, now: Instant) -> (u32, Duration) {
        let mut all = self.0.lock();
        let retry = all.entry(uid.to_owned()).or_insert(Retry { failures: 0, due: now });
        let wait = backoff.wait(retry.failures, random::random());
        retry.failures = retry.failures.saturating_add(1);
        retry.due = now + wait;
        (retry.failures, wait)
    }

    /// At the end of a look that began `now`, how long until the next object may be tried. Those that
    /// might have been tried in this look and were not are gone, or well without us: they are forgotten.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let mut all = self.0.lock();
        all.retain(|_, retry| retry.due > now);
        all.values().map(|retry| retry.due.duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_api::status::Status;
    use impresario_runtime::clock;

    #[test]
    fn who_fails_waits_longer_each_time_and_nobody_else_does() {
        let (retries, mut now) = (Retries::default(), clock::now());
        let refused = || Err::<(), _>(LookError::Refused(Status::bad_request("no")));
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert!(retries.may_try("a", now));
            assert_eq!(retries.note("a", "a", refused(), now).unwrap(), None);
            assert!(!retries.may_try("a", now) && retries.may_try("b", now));
            waits.push(retries.next(now).unwrap());
            now += waits[waits.len() - 1];
        }
        assert!(waits[3] > waits[0] * 2, "{waits:?}");
        assert_eq!(retries.note("a", "a", Ok(()), now).unwrap(), Some(()));
        assert_eq!(retries.next(now), None);
    }

    #[test]
    fn who_is_not_tried_when_it_might_be_is_forgotten() {
        let (retries, now) = (Retries::default(), clock::now());
        retries.postpone("a", now);
        let due = now + retries.next(now).unwrap();
        assert_eq!(retries.next(due), None, "nobody is woken for what is gone");
    }

    #[test]
    fn what_everybody_would_suffer_is_given_back() {
        let away = Err::<(), _>(LookError::Refused(Status::unavailable("away", 1)));
        let now = clock::now();
        let retries = Retries::default();
        assert!(retries.note("a", "a", away, now).is_err());
        assert!(retries.may_try("a", now));
    }
}
