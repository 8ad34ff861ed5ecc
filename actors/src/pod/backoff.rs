//! How long a container that ended waits before it is started again.
//!
//! The first time not at all, then 10 s, 20 s, 40 s and so on up to 5 min. A container that stayed
//! up for 10 min has proven itself and starts over. All three are scaled together, so that a test
//! needs not wait.

use std::time::{Duration, Instant};

/// The three times that describe the backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffScale {
    /// The wait after the second end.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// How long a container must have run to be treated as if it had never failed.
    pub forgiven_after: Duration,
}

impl Default for BackoffScale {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(10),
            longest: Duration::from_mins(5),
            forgiven_after: Duration::from_mins(10),
        }
    }
}

/// The backoff of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    ends: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// The container ended, or could not be started, after running for `ran`.
    pub fn ended(&mut self, scale: &BackoffScale, ran: Duration, now: Instant) {
        if ran >= scale.forgiven_after {
            self.ends = 0;
        }
        self.until = self.ends.checked_sub(1).map(|doublings| now + wait(scale, doublings));
        self.ends = self.ends.saturating_add(1);
    }

    /// A container that ended `ends` times before this process knew of it.
    pub fn recovered(scale: &BackoffScale, ends: u32, now: Instant) -> Self {
        let until = ends.checked_sub(2).map(|doublings| now + wait(scale, doublings));
        Self { ends, until }
    }

    /// When the container may be started, if that is later than `now`.
    pub fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// The wait that is being served, for the message of `CrashLoopBackOff`.
    pub fn current(&self, scale: &BackoffScale) -> Duration {
        self.ends.checked_sub(2).map_or(Duration::ZERO, |doublings| wait(scale, doublings))
    }
}

fn wait(scale: &BackoffScale, doublings: u32) -> Duration {
    let factor = 2u32.checked_pow(doublings).unwrap_or(u32::MAX);
    scale.first.saturating_mul(factor).min(scale.longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;

    #[test]
    fn the_wait_doubles_from_ten_seconds_to_five_minutes() {
        let (scale, now) = (BackoffScale::default(), clock::now());
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.ended(&scale, Duration::from_secs(1), now);
            waits.push(backoff.blocked_until(now).map_or(0, |until| (until - now).as_secs()));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_container_that_ran_for_ten_minutes_starts_at_once_again() {
        let (scale, now) = (BackoffScale::default(), clock::now());
        let mut backoff = Backoff::recovered(&scale, 7, now);
        assert_eq!(backoff.current(&scale), Duration::from_mins(5));
        backoff.ended(&scale, Duration::from_mins(10), now);
        assert_eq!(backoff.blocked_until(now), None);
    }
}
