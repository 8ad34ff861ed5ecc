//! Which time of a schedule is due, and when the next one is.

use impresario_api::cron::Schedule;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// More times than so many that went by are told.
const MANY: i64 = 100;

/// What a schedule says at a time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// The last time that came and was not used, if it is not too late for it.
    pub(super) due: Option<Timestamp>,
    /// The same, if it is.
    pub(super) missed: Option<Timestamp>,
    /// Whether very many have come since one was used.
    pub(super) many: bool,
    /// The first that is to come; none where there is none any more.
    pub(super) next: Option<Timestamp>,
}

impl Times {
    /// Of a schedule whose time was used last at `begin`, and that is given up so many seconds after it came.
    pub(super) fn of(
        schedule: &Schedule,
        zone: &TimeZone,
        begin: Timestamp,
        deadline: Option<i64>,
        now: Timestamp,
    ) -> Self {
        let last = schedule.last(begin, now, zone);
        let next = schedule.next(last.unwrap_or(begin), zone);
        let Some(last) = last else { return Self { next, ..Self::default() } };
        // A deadline so long that there is no such time is none.
        let late =
            deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        if late.is_some_and(|late| last < late) {
            return Self { missed: Some(last), next, ..Self::default() };
        }
        let from = late.map_or(begin, |late| late.max(begin));
        Self { due: Some(last), missed: None, many: missed(schedule, zone, from, now) > MANY, next }
    }
}

/// About how many times have come: as many as there would be if all were as far apart as the first two. They are not
/// counted one by one, since there may be millions.
fn missed(schedule: &Schedule, zone: &TimeZone, from: Timestamp, now: Timestamp) -> i64 {
    let Some(first) = schedule.next(from, zone).filter(|first| *first <= now) else { return 0 };
    let Some(second) = schedule.next(first, zone) else { return 1 };
    let apart = second.duration_since(first).as_secs().max(1);
    now.duration_since(first).as_secs() / apart + 1
}
