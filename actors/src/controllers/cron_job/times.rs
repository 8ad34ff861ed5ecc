//! Which time of a schedule is due, and when the next one is.

use impresario_api::cron::Schedule;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// More times than so many that went by are told.
const MANY: i64 = 100;

/// A minute, which is what the names of jobs tell apart.
const MINUTE: i64 = 60;

/// From when on times come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// One was used then.
    Used(Timestamp),
    /// None was used yet; the cron job is there since then.
    Created(Timestamp),
}

/// What a schedule says at a time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// The last time that came and was not used, if it is not too late for it.
    pub(super) due: Option<Timestamp>,
    /// The same, if it is.
    pub(super) missed: Option<Timestamp>,
    /// Whether very many have come since one was used.
    pub(super) many: bool,
    /// The first that is to come for which a job can have a name; none where there is none any more.
    pub(super) next: Option<Timestamp>,
}

impl Times {
    /// Of a schedule from `begin` on, of which a time is given up so many seconds after it came. Of the times in one minute one is
    /// used, since one job can have its name.
    pub(super) fn of(
        schedule: &Schedule,
        zone: &TimeZone,
        begin: Begin,
        deadline: Option<i64>,
        now: Timestamp,
    ) -> Self {
        let begin = match begin {
            Begin::Used(used) => last_in_its_minute(schedule, zone, used),
            Begin::Created(created) => created,
        };
        let last = schedule.last(begin, now, zone);
        let from = last.map_or(begin, |last| last_in_its_minute(schedule, zone, last));
        let next = schedule.next(from, zone);
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

/// The last time of those in the minute of this one.
fn last_in_its_minute(schedule: &Schedule, zone: &TimeZone, at: Timestamp) -> Timestamp {
    let minute = at.as_second().div_euclid(MINUTE);
    let end = Timestamp::from_second(minute * MINUTE + MINUTE - 1).unwrap_or(at);
    schedule.last(at, end, zone).unwrap_or(at)
}

/// About how many times have come, of those in one minute one: as many as there would be if all were as far apart as the first two. They are not
/// counted one by one, since there may be millions.
fn missed(schedule: &Schedule, zone: &TimeZone, from: Timestamp, now: Timestamp) -> i64 {
    let Some(first) = schedule.next(from, zone).filter(|first| *first <= now) else { return 0 };
    let Some(second) = schedule.next(first, zone) else { return 1 };
    let apart = second.duration_since(first).as_secs().max(MINUTE);
    now.duration_since(first).as_secs() / apart + 1
}
