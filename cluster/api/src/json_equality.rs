//! When two JSON values are the same: numbers by what they are worth, objects in any order.

use serde_json::{Map, Number, Value};
use std::cmp::Ordering;
use std::fmt::Write as _;

/// How two numbers stand to each other; exact where both are whole.
pub fn compare(a: &Number, b: &Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => float(a).total_cmp(&float(b)),
    }
}

/// The number, where it is a whole one that was written as such.
fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn float(number: &Number) -> f64 {
    // -0 and 0 are the same number, which `total_cmp` does not know.
    number.as_f64().unwrap_or(f64::NAN) + 0.0
}

/// Whether a number has no fraction.
pub fn is_whole(number: &Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

/// Whether two values are the same.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => equal_maps(a, b),
        (a, b) => a == b,
    }
}

/// Whether two objects are the same.
pub fn equal_maps(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)))
}

/// A text that equal values have in common, and others have not.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => {
            let float = float(number);
            match whole(number) {
                Some(whole) => _ = write!(out, "{whole}"),
                None if float.fract() == 0.0 && float.abs() < 1e18 => {
                    _ = write!(out, "{}", float as i128);
                }
                None => _ = write!(out, "{float}"),
            }
        }
        Value::Array(list) => {
            out.push('[');
            for entry in list {
                write(entry, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                _ = write!(out, "{key:?}:");
                write(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::String(text) => _ = write!(out, "{text:?}"),
        Value::Bool(flag) => _ = write!(out, "{flag}"),
        Value::Null => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_the_same_by_their_worth_and_objects_in_any_order() {
        let rows = [
            (json!(1), json!(1.0), true),
            (json!(-0.0), json!(0), true),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64), false),
            (json!({"a": 1, "b": [2.0]}), json!({"b": [2], "a": 1}), true),
            (json!([1]), json!([1, 1]), false),
            (json!("1"), json!(1), false),
        ];
        for (a, b, same) in rows {
            assert_eq!(equal(&a, &b), same, "{a} {b}");
            assert_eq!(canonical(&a) == canonical(&b), same, "{a} {b}");
        }
    }
}
