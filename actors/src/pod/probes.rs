//! Probes: whether a container has started, is ready, and is alive.
//!
//! [`Tally`] counts answers and decides (no IO); [`watch`] asks again and again, and tells only
//! what changes. What cannot be asked has no answer: it counts neither as good nor as bad.

use super::question::{Place, Question};
use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1;
use std::time::Duration;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Until it passes once, the other two wait.
    Startup,
    /// Whether the container gets traffic.
    Readiness,
    /// Whether it is to be started anew.
    Liveness,
}

/// What the answers so far add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As many answers in a row as it takes were good.
    Passes,
    /// As many answers in a row as it takes were bad.
    Fails,
}

/// Counts answers of one probe.
#[derive(Debug, Clone)]
pub struct Tally {
    good: u32,
    bad: u32,
    good_needed: u32,
    bad_needed: u32,
    verdict: Option<Verdict>,
}

impl Tally {
    /// A probe that was never asked.
    pub fn new(probe: &v1::Probe) -> Self {
        let count = |number: Option<i32>, default| {
            number.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
        };
        Self {
            good: 0,
            bad: 0,
            good_needed: count(probe.success_threshold, 1),
            bad_needed: count(probe.failure_threshold, 3),
            verdict: None,
        }
    }

    /// An answer came; the verdict, where it is another than before.
    pub fn answered(&mut self, is_good: bool) -> Option<Verdict> {
        let (same, other) =
            if is_good { (&mut self.good, &mut self.bad) } else { (&mut self.bad, &mut self.good) };
        (*same, *other) = (same.saturating_add(1), 0);
        let verdict = match is_good {
            true if self.good >= self.good_needed => Verdict::Passes,
            false if self.bad >= self.bad_needed => Verdict::Fails,
            _ => return None,
        };
        (self.verdict.replace(verdict) != Some(verdict)).then_some(verdict)
    }
}

/// Asks for as long as the stream is polled, and tells every verdict that is news, with the
/// reason of the last bad answer.
pub fn watch(
    probe: &v1::Probe,
    question: Question,
    place: Place,
) -> impl Stream<Item = (Verdict, String)> + use<> {
    let seconds = |number: Option<i32>, default: u64| {
        Duration::from_secs(number.and_then(|n| u64::try_from(n).ok()).unwrap_or(default))
    };
    let delay = seconds(probe.initial_delay_seconds, 0);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let start = (Tally::new(probe), question, place, Some(delay));
    stream::unfold(start, move |(mut tally, question, place, mut wait)| async move {
        loop {
            tokio::time::sleep(wait.take().unwrap_or(period)).await;
            let Some(answer) = question.ask(&place, limit).await else { continue };
            if let Some(verdict) = tally.answered(answer.is_ok()) {
                let detail = answer.err().unwrap_or_default();
                return Some(((verdict, detail), (tally, question, place, None)));
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_as_many_answers_in_a_row_as_it_says() {
        let probe = v1::Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            ..v1::Probe::default()
        };
        let mut tally = Tally::new(&probe);
        let told: Vec<_> = [true, false, true, true, true, false, true, false, false, false]
            .into_iter()
            .filter_map(|answer| tally.answered(answer))
            .collect();
        assert_eq!(told, [Verdict::Passes, Verdict::Fails]);
    }
}
