//! The formats of texts and numbers that Kubernetes checks; all others are words for people.

use crate::go_duration::parse_duration;
use crate::names;
use base64::Engine as _;
use serde_json::{Number, Value};
use std::net::IpAddr;

/// Whether a text has the form that the format asks for; none for a format that asks for none.
pub fn fits(format: &str, text: &str) -> Option<bool> {
    Some(match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<IpAddr>().is_ok(),
        "cidr" => names::cidr(text).is_empty(),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_card(text),
        "ssn" => is_ssn(text),
        "hexcolor" => is_hex_color(text),
        "rgbcolor" => is_rgb(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|c| c.is_ascii_hexdigit()),
        "k8s-short-name" => names::dns_label(text).is_empty(),
        "k8s-long-name" => names::dns_subdomain(text).is_empty(),
        _ => return None,
    })
}

/// Whether a number is within the range of its format.
pub fn in_range(format: &str, number: &Number) -> bool {
    match format {
        "int32" => {
            number.as_f64().is_some_and(|n| (-2_147_483_648.0..=2_147_483_647.0).contains(&n))
        }
        "int64" => number.as_i64().is_some() || number.is_f64(),
        "uint32" => number.as_f64().is_some_and(|n| (0.0..=4_294_967_295.0).contains(&n)),
        "uint64" => number.as_u64().is_some() || number.is_f64(),
        "float" => number.as_f64().is_some_and(|n| n.abs() <= f64::from(f32::MAX)),
        _ => true,
    }
}

/// A moment of RFC 3339.
pub fn is_date_time(text: &str) -> bool {
    let joined = text.as_bytes().get(10).is_some_and(|c| matches!(c, b'T' | b't'));
    joined && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_duration(text: &str) -> bool {
    if parse_duration(text).is_some() {
        return true;
    }
    let units = [
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "second", "m", "min",
        "minute", "h", "hr", "hour", "d", "day", "w", "wk", "week",
    ];
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[digits..].trim_start();
    digits > 0 && (units.contains(&unit) || units.contains(&unit.trim_end_matches('s')))
}

fn is_uri(text: &str) -> bool {
    let clean = !text.chars().any(|c| c.is_control() || c == ' ');
    let has_scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    clean && (text.starts_with('/') || has_scheme)
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        let fits = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && !part.ends_with('.')
                && !part.contains("..")
                && !part
                    .chars()
                    .any(|c| c.is_whitespace() || c.is_control() || "@<>(),;:\\\"[]".contains(c))
        };
        fits(local) && fits(domain)
    })
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 255
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        })
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts
                .iter()
                .all(|part| part.len() == width && part.bytes().all(|c| c.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let dashes = text.len() - plain.len();
    let at = [8, 13, 18, 23];
    let placed = text.char_indices().filter(|(_, c)| *c == '-').all(|(i, _)| at.contains(&i));
    let hex = plain.len() == 32 && plain.bytes().all(|c| c.is_ascii_hexdigit());
    let form = hex && (dashes == 0 || (dashes == 4 && placed));
    let variant = |c: Option<char>| c.is_some_and(|c| "89abAB".contains(c));
    form && match version {
        None => true,
        Some('3') => plain.chars().nth(12) == Some('3'),
        Some(version) => plain.chars().nth(12) == Some(version) && variant(plain.chars().nth(16)),
    }
}

fn digits_of(text: &str) -> String {
    text.chars().filter(|c| *c != '-' && *c != ' ').collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = digits_of(text);
    let mut sum = 0;
    for (i, c) in digits.chars().enumerate() {
        let value = match (c, i) {
            ('X' | 'x', 9) => 10,
            (c, _) => match c.to_digit(10) {
                Some(value) => value,
                None => return false,
            },
        };
        sum += value * (i as u32 + 1);
    }
    digits.len() == 10 && sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits_of(text);
    let values: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let sum: u32 =
            values.iter().enumerate().map(|(i, v)| if i % 2 == 0 { *v } else { v * 3 }).sum();
        values.len() == 13 && sum.is_multiple_of(10)
    })
}

fn is_card(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits_of(text).chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let sum: u32 = values
            .iter()
            .rev()
            .enumerate()
            .map(|(i, v)| if i % 2 == 1 { v * 2 / 10 + v * 2 % 10 } else { *v })
            .sum();
        (12..=19).contains(&values.len()) && sum.is_multiple_of(10)
    })
}

fn is_ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    let widths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    widths == [3, 2, 4] && parts.iter().all(|part| part.bytes().all(|c| c.is_ascii_digit()))
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|c| c.is_ascii_hexdigit())
}

fn is_rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

/// What a value of the schema's type is, in the word that a refusal names.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if crate::json_equality::is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_takes_what_it_should_and_refuses_the_rest() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            (
                "date-time",
                &["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5+02:00"],
                &["2024-01-01", "x"],
            ),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-1", ""]),
            ("duration", &["1h30m", "5 days", "3s"], &["1", "x", "1 fortnight"]),
            ("byte", &["YQ==", ""], &["YQ=", "*"]),
            ("uri", &["https://a/b", "/a", "urn:x"], &["a b", "a", ""]),
            ("email", &["a@b.c"], &["a", "@b", "a@", "a b@c"]),
            ("hostname", &["a-b.c"], &["-a", "a..b", ""]),
            ("ipv4", &["1.2.3.4"], &["1.2.3", "::1"]),
            ("ipv6", &["::1"], &["1.2.3.4"]),
            ("cidr", &["10.0.0.0/8"], &["10.0.0.0", "10.0.0.0/33"]),
            ("mac", &["00:11:22:aa:bb:cc"], &["00:11:22", "zz:11:22:aa:bb:cc"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123", ""]),
            (
                "uuid4",
                &["123e4567-e89b-42d3-a456-426614174000"],
                &["123e4567-e89b-12d3-a456-426614174000"],
            ),
            ("isbn10", &["0306406152"], &["0306406153"]),
            ("isbn13", &["978-0-306-40615-7"], &["9780306406158"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111111111111112"]),
            ("ssn", &["111-11-1111"], &["111-1-1111"]),
            ("hexcolor", &["#fff", "a0b1c2"], &["#ff"]),
            ("rgbcolor", &["rgb(1, 2,255)"], &["rgb(1,2,256)", "1,2,3"]),
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]),
        ];
        for (format, good, bad) in rows {
            for text in *good {
                assert_eq!(fits(format, text), Some(true), "{format} {text}");
            }
            for text in *bad {
                assert_eq!(fits(format, text), Some(false), "{format} {text}");
            }
        }
        assert_eq!(fits("mine", "anything"), None);
    }
}
