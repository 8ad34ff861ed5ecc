//! Times and integers in the two forms that Kubernetes gives them.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Number, Value};

/// Reads an RFC 3339 time.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let separated = bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T';
    separated.then(|| text.parse().ok()).flatten()
}

/// `2006-01-02T15:04:05Z`, with six digits of fraction for a MicroTime.
pub(super) fn format_time(time: Timestamp, micro: bool) -> String {
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    time.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// The integer that a JSON number is, where it is one.
pub(super) fn integer(number: &Number) -> Option<i64> {
    number.as_i64()
}

/// Whether the value is one that Go writes for a field that nobody set.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0) || number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    }
}
