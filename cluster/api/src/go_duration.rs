//! Spans of time as Go writes them: `1h30m`, `1.5s`, `-2ms`.

use std::fmt::Write as _;

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The nanoseconds of a span, where the text is one and fits 64 bits.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 256 {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(*scale)?)?;
        let kept = &fraction[..fraction.len().min(18)];
        if !kept.is_empty() {
            let part: i128 = kept.parse().ok()?;
            sum = sum.checked_add(part * scale / 10_i128.pow(kept.len() as u32))?;
        }
        rest = after;
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

/// A span in seconds, as CEL prints it: `90s`, `1.5s`.
pub fn in_seconds(nanos: i64) -> String {
    let (whole, part) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).unsigned_abs());
    let mut text = if whole == 0 && nanos < 0 { "-0".to_owned() } else { whole.to_string() };
    if part > 0 {
        let digits = format!("{part:09}");
        _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_go_reads_it() {
        let rows = [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("0", Some(0)),
            (".5s", Some(500_000_000)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("9999999h", None),
            ("1d", None),
        ];
        for (text, nanos) in rows {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
        assert_eq!(in_seconds(5_400_000_000_000), "5400s");
        assert_eq!(in_seconds(-1_500_000_000), "-1.5s");
        assert_eq!(in_seconds(-500_000_000), "-0.5s");
    }
}
