//! The parts of times and spans. Times are looked at in UTC.

use crate::cel::fault::Fault;
use crate::cel::function::{Function, no_overload};
use crate::cel::value::Value as V;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const TIME: &[&str] = &[".(timestamp) int"];
const BOTH: &[&str] = &[".(timestamp) int", ".(duration) int"];
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

macro_rules! of_time {
    ($name:literal, $part:expr) => {
        Function {
            name: $name,
            signatures: TIME,
            run: |_, arguments| time($name, arguments, $part),
        }
    };
}

macro_rules! of_both {
    ($name:literal, $part:expr, $unit:ident) => {
        Function {
            name: $name,
            signatures: BOTH,
            run: |_, arguments| match arguments {
                [V::Duration(nanos)] => Ok(V::Int(nanos / $unit)),
                _ => time($name, arguments, $part),
            },
        }
    };
}

pub static FUNCTIONS: &[Function] = &[
    of_time!("getFullYear", |t| t.year().into()),
    of_time!("getMonth", |t| i64::from(t.month()) - 1),
    of_time!("getDate", |t| t.day().into()),
    of_time!("getDayOfMonth", |t| i64::from(t.day()) - 1),
    of_time!("getDayOfWeek", |t| t.weekday().to_sunday_zero_offset().into()),
    of_time!("getDayOfYear", |t| i64::from(t.day_of_year()) - 1),
    of_both!("getHours", |t| t.hour().into(), HOUR),
    of_both!("getMinutes", |t| t.minute().into(), MINUTE),
    of_both!("getSeconds", |t| t.second().into(), SECOND),
    of_both!("getMilliseconds", |t| t.millisecond().into(), MILLISECOND),
];

fn time<'a>(name: &str, arguments: &[V<'a>], part: fn(DateTime) -> i64) -> Result<V<'a>, Fault> {
    match arguments {
        [V::Timestamp(time)] => Ok(V::Int(part(TimeZone::UTC.to_datetime(*time)))),
        _ => no_overload(name, arguments),
    }
}
