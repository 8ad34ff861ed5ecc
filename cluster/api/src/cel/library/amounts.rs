//! Quantities, and the formats of names.

use crate::cel::fault::failed;
use crate::cel::function::{Function, no_overload};
use crate::cel::value::Value as V;
use crate::formats;
use crate::names;
use crate::quantity::Quantity;
use std::cmp::Ordering;

pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "quantity",
        signatures: &["(string) quantity"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => text
                .parse()
                .map(V::Quantity)
                .map_err(|error: crate::quantity::ParseQuantityError| failed(error.to_string())),
            _ => no_overload("quantity", arguments),
        },
    },
    Function {
        name: "isQuantity",
        signatures: &["(string) bool"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => Ok(V::Bool(text.parse::<Quantity>().is_ok())),
            _ => no_overload("isQuantity", arguments),
        },
    },
    Function {
        name: "isInteger",
        signatures: &[".(quantity) bool"],
        run: |_, arguments| match arguments {
            [V::Quantity(amount)] => Ok(V::Bool(amount.is_whole())),
            _ => no_overload("isInteger", arguments),
        },
    },
    Function {
        name: "asInteger",
        signatures: &[".(quantity) int"],
        run: |_, arguments| match arguments {
            [V::Quantity(amount)] if amount.is_whole() => Ok(V::Int(amount.units())),
            [V::Quantity(_)] => Err(failed("cannot convert value to integer")),
            _ => no_overload("asInteger", arguments),
        },
    },
    Function {
        name: "asApproximateFloat",
        signatures: &[".(quantity) double"],
        run: |_, arguments| match arguments {
            [V::Quantity(amount)] if amount.is_whole() => Ok(V::Double(amount.units() as f64)),
            [V::Quantity(amount)] => Ok(V::Double(amount.millis() as f64 / 1000.0)),
            _ => no_overload("asApproximateFloat", arguments),
        },
    },
    Function {
        name: "sign",
        signatures: &[".(quantity) int"],
        run: |_, arguments| match arguments {
            [V::Quantity(amount)] => Ok(V::Int(amount.sign() as i64)),
            _ => no_overload("sign", arguments),
        },
    },
    Function {
        name: "add",
        signatures: &[".(quantity, quantity) quantity", ".(quantity, int) quantity"],
        run: |_, arguments| match arguments {
            [V::Quantity(a), V::Quantity(b)] => Ok(V::Quantity(a.plus(*b))),
            [V::Quantity(a), V::Int(b)] => Ok(V::Quantity(a.plus(Quantity::from_units(*b)))),
            _ => no_overload("add", arguments),
        },
    },
    Function {
        name: "sub",
        signatures: &[".(quantity, quantity) quantity", ".(quantity, int) quantity"],
        run: |_, arguments| match arguments {
            [V::Quantity(a), V::Quantity(b)] => Ok(V::Quantity(a.minus(*b))),
            [V::Quantity(a), V::Int(b)] => Ok(V::Quantity(a.minus(Quantity::from_units(*b)))),
            _ => no_overload("sub", arguments),
        },
    },
    Function {
        name: "isLessThan",
        signatures: &[".(quantity, quantity) bool"],
        run: |_, arguments| match arguments {
            [V::Quantity(a), V::Quantity(b)] => Ok(V::Bool(a < b)),
            _ => no_overload("isLessThan", arguments),
        },
    },
    Function {
        name: "isGreaterThan",
        signatures: &[".(quantity, quantity) bool"],
        run: |_, arguments| match arguments {
            [V::Quantity(a), V::Quantity(b)] => Ok(V::Bool(a > b)),
            _ => no_overload("isGreaterThan", arguments),
        },
    },
    Function {
        name: "compareTo",
        signatures: &[".(quantity, quantity) int"],
        run: |_, arguments| match arguments {
            [V::Quantity(a), V::Quantity(b)] => Ok(V::Int(match a.cmp(b) {
                Ordering::Less => -1,
                Ordering::Equal => 0,
                Ordering::Greater => 1,
            })),
            _ => no_overload("compareTo", arguments),
        },
    },
    Function {
        name: "format.dns1123Label",
        signatures: NAMED,
        run: |_, _| Ok(V::Format("dns1123Label")),
    },
    Function {
        name: "format.dns1123Subdomain",
        signatures: NAMED,
        run: |_, _| Ok(V::Format("dns1123Subdomain")),
    },
    Function {
        name: "format.dns1035Label",
        signatures: NAMED,
        run: |_, _| Ok(V::Format("dns1035Label")),
    },
    Function {
        name: "format.qualifiedName",
        signatures: NAMED,
        run: |_, _| Ok(V::Format("qualifiedName")),
    },
    Function {
        name: "format.labelValue",
        signatures: NAMED,
        run: |_, _| Ok(V::Format("labelValue")),
    },
    Function { name: "format.uri", signatures: NAMED, run: |_, _| Ok(V::Format("uri")) },
    Function { name: "format.uuid", signatures: NAMED, run: |_, _| Ok(V::Format("uuid")) },
    Function { name: "format.byte", signatures: NAMED, run: |_, _| Ok(V::Format("byte")) },
    Function { name: "format.date", signatures: NAMED, run: |_, _| Ok(V::Format("date")) },
    Function { name: "format.datetime", signatures: NAMED, run: |_, _| Ok(V::Format("datetime")) },
    Function {
        name: "validate",
        signatures: &[".(format, string) optional<list<string>>"],
        run: |budget, arguments| match arguments {
            [V::Format(format), V::Text(text)] => {
                budget.spend_bytes(text.len().saturating_mul(4))?;
                let wrong = wrong_by(format, text);
                Ok(if wrong.is_empty() {
                    V::Optional(None)
                } else {
                    V::some(V::list(wrong.into_iter().map(V::text).collect()))
                })
            }
            _ => no_overload("validate", arguments),
        },
    },
];

const NAMED: &[&str] = &["() format"];

/// What is wrong with a text by a named format.
fn wrong_by(format: &str, text: &str) -> Vec<String> {
    match format {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns_1035_label(text),
        "qualifiedName" => names::qualified(text),
        "labelValue" => names::label_value(text),
        other if formats::fits(other, text) == Some(false) => {
            vec![format!("must be of the form {other}")]
        }
        _ => Vec::new(),
    }
}
