//! CEL's own functions: sizes, conversions, types, optionals.

use crate::cel::fault::{Fault, beginning, failed};
use crate::cel::function::{Function, no_overload};
use crate::cel::value::Value as V;
use crate::go_duration::parse_duration;

pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "size",
        signatures: &[
            "(string) int",
            "(bytes) int",
            "(list<A>) int",
            "(map<A,B>) int",
            ".(string) int",
            ".(bytes) int",
            ".(list<A>) int",
            ".(map<A,B>) int",
        ],
        run: |_, arguments| match arguments {
            [V::Text(text)] => Ok(V::Int(text.chars().count() as i64)),
            [V::Bytes(bytes)] => Ok(V::Int(bytes.len() as i64)),
            [one] if one.count().is_some() => Ok(V::Int(one.count().unwrap_or(0) as i64)),
            _ => no_overload("size", arguments),
        },
    },
    Function {
        name: "int",
        signatures: &[
            "(int) int",
            "(uint) int",
            "(double) int",
            "(string) int",
            "(timestamp) int",
            "(duration) int",
        ],
        run: |_, arguments| match arguments {
            [V::Int(value)] => Ok(V::Int(*value)),
            [V::Uint(value)] => i64::try_from(*value).map(V::Int).map_err(|_| range("integer")),
            [V::Double(value)] if value.abs() < 9.2e18 => Ok(V::Int(*value as i64)),
            [V::Double(_)] => Err(range("integer")),
            [V::Text(text)] => text
                .parse()
                .map(V::Int)
                .map_err(|_| failed(format!("cannot parse {:?} as int", beginning(text)))),
            [V::Timestamp(time)] => Ok(V::Int(time.as_second())),
            [V::Duration(nanos)] => Ok(V::Int(*nanos / 1_000_000_000)),
            _ => no_overload("int", arguments),
        },
    },
    Function {
        name: "uint",
        signatures: &["(int) uint", "(uint) uint", "(double) uint", "(string) uint"],
        run: |_, arguments| match arguments {
            [V::Uint(value)] => Ok(V::Uint(*value)),
            [V::Int(value)] => {
                u64::try_from(*value).map(V::Uint).map_err(|_| range("unsigned integer"))
            }
            [V::Double(value)] if (0.0..1.8e19).contains(value) => Ok(V::Uint(*value as u64)),
            [V::Double(_)] => Err(range("unsigned integer")),
            [V::Text(text)] => text
                .parse()
                .map(V::Uint)
                .map_err(|_| failed(format!("cannot parse {:?} as uint", beginning(text)))),
            _ => no_overload("uint", arguments),
        },
    },
    Function {
        name: "double",
        signatures: &["(int) double", "(uint) double", "(double) double", "(string) double"],
        run: |_, arguments| match arguments {
            [V::Double(value)] => Ok(V::Double(*value)),
            [V::Int(value)] => Ok(V::Double(*value as f64)),
            [V::Uint(value)] => Ok(V::Double(*value as f64)),
            [V::Text(text)] => text
                .parse()
                .map(V::Double)
                .map_err(|_| failed(format!("cannot parse {:?} as double", beginning(text)))),
            _ => no_overload("double", arguments),
        },
    },
    Function {
        name: "string",
        signatures: &[
            "(string) string",
            "(int) string",
            "(uint) string",
            "(double) string",
            "(bool) string",
            "(bytes) string",
            "(timestamp) string",
            "(duration) string",
            "(url) string",
            "(ip) string",
            "(cidr) string",
            "(quantity) string",
        ],
        run: |budget, arguments| match arguments {
            [V::Text(text)] => Ok(V::Text(text.clone())),
            [V::Bytes(bytes)] => {
                budget.spend_bytes(bytes.len())?;
                arguments[0]
                    .printed()
                    .map(V::text)
                    .ok_or_else(|| failed("invalid UTF-8 in bytes, cannot convert to string"))
            }
            [one] => {
                budget.spend_on(one, 1)?;
                one.printed()
                    .map_or_else(|| no_overload("string", arguments), |text| Ok(V::text(text)))
            }
            _ => no_overload("string", arguments),
        },
    },
    Function {
        name: "bytes",
        signatures: &["(string) bytes", "(bytes) bytes"],
        run: |budget, arguments| match arguments {
            [V::Text(text)] => {
                budget.spend_bytes(text.len())?;
                Ok(V::Bytes(text.as_bytes().into()))
            }
            [V::Bytes(bytes)] => Ok(V::Bytes(bytes.clone())),
            _ => no_overload("bytes", arguments),
        },
    },
    Function {
        name: "bool",
        signatures: &["(bool) bool", "(string) bool"],
        run: |_, arguments| match arguments {
            [V::Bool(flag)] => Ok(V::Bool(*flag)),
            [V::Text(text)] => match &**text {
                "true" | "True" | "TRUE" | "t" | "1" => Ok(V::Bool(true)),
                "false" | "False" | "FALSE" | "f" | "0" => Ok(V::Bool(false)),
                other => Err(failed(format!("cannot parse {:?} as bool", beginning(other)))),
            },
            _ => no_overload("bool", arguments),
        },
    },
    Function {
        name: "dyn",
        signatures: &["(A) dyn"],
        run: |_, arguments| match arguments {
            [one] => Ok(one.clone()),
            _ => no_overload("dyn", arguments),
        },
    },
    Function {
        name: "type",
        signatures: &["(A) type"],
        run: |_, arguments| match arguments {
            [one] => Ok(V::Type(one.type_name().into())),
            _ => no_overload("type", arguments),
        },
    },
    Function {
        name: "duration",
        signatures: &["(string) duration", "(duration) duration"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => parse_duration(text)
                .map(V::Duration)
                .ok_or_else(|| failed(format!("time: invalid duration {:?}", beginning(text)))),
            [V::Duration(nanos)] => Ok(V::Duration(*nanos)),
            _ => no_overload("duration", arguments),
        },
    },
    Function {
        name: "timestamp",
        signatures: &["(string) timestamp", "(timestamp) timestamp", "(int) timestamp"],
        run: |_, arguments| match arguments {
            [V::Text(text)] if crate::formats::is_date_time(text) => text
                .parse()
                .map(V::Timestamp)
                .map_err(|_| failed(format!("cannot parse {:?} as a time", beginning(text)))),
            [V::Text(text)] => Err(failed(format!("cannot parse {:?} as a time", beginning(text)))),
            [V::Timestamp(time)] => Ok(V::Timestamp(*time)),
            [V::Int(seconds)] => jiff::Timestamp::from_second(*seconds)
                .map(V::Timestamp)
                .map_err(|_| range("timestamp")),
            _ => no_overload("timestamp", arguments),
        },
    },
    Function {
        name: "optional.of",
        signatures: &["(A) optional<A>"],
        run: |_, arguments| match arguments {
            [one] => Ok(V::some(one.clone())),
            _ => no_overload("optional.of", arguments),
        },
    },
    Function {
        name: "optional.none",
        signatures: &["() optional<A>"],
        run: |_, _| Ok(V::Optional(None)),
    },
    Function {
        name: "optional.ofNonZeroValue",
        signatures: &["(A) optional<A>"],
        run: |_, arguments| match arguments {
            [one] => Ok(if is_zero(one) { V::Optional(None) } else { V::some(one.clone()) }),
            _ => no_overload("optional.ofNonZeroValue", arguments),
        },
    },
    Function {
        name: "hasValue",
        signatures: &[".(optional<A>) bool"],
        run: |_, arguments| match arguments {
            [V::Optional(inner)] => Ok(V::Bool(inner.is_some())),
            _ => no_overload("hasValue", arguments),
        },
    },
    Function {
        name: "value",
        signatures: &[".(optional<A>) A"],
        run: |_, arguments| match arguments {
            [V::Optional(Some(inner))] => Ok((**inner).clone()),
            [V::Optional(None)] => Err(failed("optional.none() dereference")),
            _ => no_overload("value", arguments),
        },
    },
    Function {
        name: "or",
        signatures: &[".(optional<A>, optional<A>) optional<A>"],
        run: |_, arguments| match arguments {
            [V::Optional(None), other] => Ok(other.clone()),
            [given @ V::Optional(_), _] => Ok(given.clone()),
            _ => no_overload("or", arguments),
        },
    },
    Function {
        name: "orValue",
        signatures: &[".(optional<A>, A) A"],
        run: |_, arguments| match arguments {
            [V::Optional(None), other] => Ok(other.clone()),
            [V::Optional(Some(inner)), _] => Ok((**inner).clone()),
            _ => no_overload("orValue", arguments),
        },
    },
];

fn range(what: &str) -> Fault {
    failed(format!("{what} overflow"))
}

fn is_zero(value: &V<'_>) -> bool {
    match value {
        V::Null => true,
        V::Bool(flag) => !flag,
        V::Int(value) => *value == 0,
        V::Uint(value) => *value == 0,
        V::Double(value) => *value == 0.0,
        V::Text(text) => text.is_empty(),
        V::Bytes(bytes) => bytes.is_empty(),
        V::Duration(nanos) => *nanos == 0,
        V::Optional(inner) => inner.is_none(),
        other => other.count() == Some(0),
    }
}
