//! What is asked of one value besides its type, each bound in the words of Kubernetes.

use super::findings::{Findings, shown_text};
use super::node::Bounds;
use super::place::Place;
use crate::formats;
use crate::json_equality::{compare, equal};
use serde_json::{Map, Number, Value, json};

/// Checks a value of the right type.
pub fn check(bounds: &Bounds, value: &Value, place: &Place<'_>, findings: &mut Findings) {
    match value {
        Value::Number(found) => number(bounds, found, value, place, findings),
        Value::String(found) => text(bounds, found, value, place, findings),
        Value::Array(found) => list(bounds, found, place, findings),
        Value::Object(found) => object(bounds, found, value, place, findings),
        _ => {}
    }
    if !bounds.enumeration.is_empty() {
        findings.spend(bounds.enumeration.len());
        if !bounds.enumeration.iter().any(|allowed| equal(allowed, value)) {
            findings.not_supported(place, value, &bounds.enumeration);
        }
    }
}

fn number(
    bounds: &Bounds,
    found: &Number,
    value: &Value,
    place: &Place<'_>,
    findings: &mut Findings,
) {
    let at = place.bare();
    if let Some(format) = &bounds.format
        && !formats::in_range(format, found)
    {
        let kind = formats::type_name(value);
        let why = format!("Checked value must be of type {kind} with format {format} (overflow)");
        findings.invalid(place, value, &why);
    }
    if let Some(most) = &bounds.maximum {
        let order = compare(found, most);
        if bounds.exclusive_maximum && order.is_ge() {
            findings.invalid(place, value, &format!("{at} in body should be less than {most}"));
        } else if order.is_gt() {
            let why = format!("{at} in body should be less than or equal to {most}");
            findings.invalid(place, value, &why);
        }
    }
    if let Some(least) = &bounds.minimum {
        let order = compare(found, least);
        if bounds.exclusive_minimum && order.is_le() {
            findings.invalid(place, value, &format!("{at} in body should be greater than {least}"));
        } else if order.is_lt() {
            let why = format!("{at} in body should be greater than or equal to {least}");
            findings.invalid(place, value, &why);
        }
    }
    if let Some(factor) = &bounds.multiple_of
        && !is_multiple(found, factor)
    {
        findings.invalid(place, value, &format!("{at} in body should be a multiple of {factor}"));
    }
}

fn is_multiple(number: &Number, factor: &Number) -> bool {
    match (number.as_i64(), factor.as_i64()) {
        (Some(number), Some(factor)) if factor != 0 => number.wrapping_rem(factor) == 0,
        _ => match (number.as_f64(), factor.as_f64()) {
            (Some(number), Some(factor)) => {
                let quotient = number / factor;
                // 0.3 is a multiple of 0.1, which binary fractions do not know.
                (quotient - quotient.round()).abs() <= quotient.abs().max(1.0) * 4.0 * f64::EPSILON
            }
            _ => true,
        },
    }
}

fn text(bounds: &Bounds, found: &str, value: &Value, place: &Place<'_>, findings: &mut Findings) {
    let at = place.bare();
    if bounds.max_length.is_some() || bounds.min_length.is_some() {
        findings.spend(found.len() / 64);
        let length = found.chars().count() as u64;
        if let Some(most) = bounds.max_length.filter(|most| length > *most) {
            findings.too_long(place, most);
        }
        if let Some(least) = bounds.min_length.filter(|least| length < *least) {
            let why = format!("{at} in body should be at least {least} chars long");
            findings.invalid(place, value, &why);
        }
    }
    if let Some(pattern) = &bounds.pattern {
        findings.spend(found.len() / 16);
        if !pattern.is_match(found) {
            let why = format!("{at} in body should match '{}'", pattern.source());
            findings.invalid(place, value, &why);
        }
    }
    if let Some(format) = &bounds.format
        && formats::fits(format, found) == Some(false)
    {
        let why = format!("{at} in body must be of type {format}: {}", shown_text(found));
        findings.type_invalid(place, value, &why);
    }
}

fn list(bounds: &Bounds, found: &[Value], place: &Place<'_>, findings: &mut Findings) {
    let count = found.len();
    if let Some(most) = bounds.max_items.filter(|most| count as u64 > *most) {
        findings.too_many(place, count, most);
    }
    if let Some(least) = bounds.min_items.filter(|least| (count as u64) < *least) {
        let why = format!("{} in body should have at least {least} items", place.bare());
        findings.invalid(place, &json!(count), &why);
    }
}

fn object(
    bounds: &Bounds,
    found: &Map<String, Value>,
    value: &Value,
    place: &Place<'_>,
    findings: &mut Findings,
) {
    let count = found.len();
    if let Some(most) = bounds.max_properties.filter(|most| count as u64 > *most) {
        findings.too_many(place, count, most);
    }
    if let Some(least) = bounds.min_properties.filter(|least| (count as u64) < *least) {
        let why = format!("{} in body should have at least {least} properties", place.bare());
        findings.invalid(place, value, &why);
    }
    findings.spend(bounds.required.len());
    for name in &bounds.required {
        if !found.contains_key(name) {
            findings.required(&place.field(name), "");
        }
    }
}
