//! What expressions work on: values of an object where they stand, and new ones.
//!
//! Objects, maps and lists of the object are borrowed; only what an expression makes is owned, and
//! shared from then on, so that a variable is read without a copy.

use super::types::{ListType, ObjectType, Type};
use crate::go_duration::{in_seconds, parse_duration};
use crate::quantity::Quantity;
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

/// A text, borrowed or shared.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names say it all
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

/// A network: an address and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it all
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

/// The parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the names say it all
pub struct Url {
    pub scheme: String,
    pub host: String,
    pub path: String,
    pub query: String,
    pub text: String,
}

/// The entries of a map that an expression made, by [`key_text`].
pub type Entries<'a> = BTreeMap<String, (Value<'a>, Value<'a>)>;

/// A value.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names say it all
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Arc<[u8]>),
    Duration(i64),
    Timestamp(Timestamp),
    Type(Arc<str>),
    Optional(Option<Box<Value<'a>>>),
    List(Arc<Vec<Value<'a>>>),
    Map(Arc<Entries<'a>>),
    JsonList(&'a [Json], &'a ListType),
    JsonMap(&'a Map<String, Json>, &'a Type),
    JsonObject(&'a Map<String, Json>, &'a ObjectType),
    Quantity(Quantity),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    /// A named format, as the schema's formats are called.
    Format(&'static str),
}

/// The longest text that is read as a time or a span: reading it is one step, so it is short.
const LONGEST_SPAN: usize = 256;

static ANY: Type = Type::Dyn;
static ANY_LIST: ListType = ListType { element: Type::Dyn, unordered: false };

impl<'a> Value<'a> {
    /// A value of an object, by what the schema says that it is.
    pub fn of(json: &'a Json, kind: &'a Type) -> Self {
        match (json, kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(flag), _) => Self::Bool(*flag),
            (Json::Number(number), Type::Double) => {
                Self::Double(number.as_f64().unwrap_or_default())
            }
            (Json::Number(number), _) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Self::Int(whole),
                (None, Some(float)) if matches!(kind, Type::Int) && float.fract() == 0.0 => {
                    Self::Int(float as i64)
                }
                (None, float) => Self::Double(float.unwrap_or_default()),
            },
            (Json::String(text), Type::Bytes) => {
                match base64::engine::general_purpose::STANDARD.decode(text) {
                    Ok(bytes) => Self::Bytes(bytes.into()),
                    Err(_) => Self::Text(Text::Borrowed(text)),
                }
            }
            (Json::String(text), Type::Duration) if text.len() <= LONGEST_SPAN => {
                match parse_duration(text) {
                    Some(nanos) => Self::Duration(nanos),
                    None => Self::Text(Text::Borrowed(text)),
                }
            }
            (Json::String(text), Type::Timestamp) if text.len() <= LONGEST_SPAN => {
                let midnight = format!("{text}T00:00:00Z");
                match text.parse().or_else(|_| midnight.parse()) {
                    Ok(time) => Self::Timestamp(time),
                    Err(_) => Self::Text(Text::Borrowed(text)),
                }
            }
            (Json::String(text), _) => Self::Text(Text::Borrowed(text)),
            (Json::Array(list), Type::List(of)) => Self::JsonList(list, of),
            (Json::Array(list), _) => Self::JsonList(list, &ANY_LIST),
            (Json::Object(map), Type::Object(of)) => Self::JsonObject(map, of),
            (Json::Object(map), Type::Map(of)) => Self::JsonMap(map, &of.1),
            (Json::Object(map), _) => Self::JsonMap(map, &ANY),
        }
    }

    /// A new text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Text::from(text.into()))
    }

    /// A new list.
    pub fn list(all: Vec<Value<'a>>) -> Self {
        Self::List(Arc::new(all))
    }

    /// A new map of texts; of two under one key the later one counts.
    pub fn map(all: impl IntoIterator<Item = (String, Value<'a>)>) -> Self {
        let entries = all.into_iter().map(|(key, value)| {
            let key = Value::text(key);
            (key_text(&key).unwrap_or_default(), (key, value))
        });
        Self::Map(Arc::new(entries.collect()))
    }

    /// An optional with a value.
    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Box::new(value)))
    }

    /// How many entries a list or map has.
    pub fn count(&self) -> Option<usize> {
        Some(match self {
            Self::List(list) => list.len(),
            Self::JsonList(list, _) => list.len(),
            Self::Map(map) => map.len(),
            Self::JsonMap(map, _) | Self::JsonObject(map, _) => map.len(),
            _ => return None,
        })
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::JsonList(..))
    }

    /// The entry of a list.
    pub fn entry(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::List(list) => list.get(at).cloned(),
            Self::JsonList(list, of) => Some(Value::of(list.get(at)?, &of.element)),
            _ => None,
        }
    }

    /// The entries of a list.
    pub fn all(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Self::List(list) => Some(list.to_vec()),
            Self::JsonList(list, of) => {
                Some(list.iter().map(|json| Value::of(json, &of.element)).collect())
            }
            _ => None,
        }
    }

    /// The keys of a map and what stands under them.
    pub fn pairs(&self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self {
            Self::Map(map) => Some(map.values().cloned().collect()),
            Self::JsonMap(map, of) => Some(
                map.iter()
                    .map(|(key, json)| (Self::Text(Text::Borrowed(key)), Value::of(json, of)))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// What stands under a key of a map.
    pub fn under(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Map(map), key) => map.get(&key_text(key)?).map(|(_, value)| value.clone()),
            (Self::JsonMap(map, of), Value::Text(key)) => Some(Value::of(map.get(&**key)?, of)),
            _ => None,
        }
    }

    /// A field, by the name that expressions call it; a null is none.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::JsonObject(map, of) => {
                let field = of.fields.get(name)?;
                let json = map.get(&field.json).filter(|json| !json.is_null())?;
                Some(Value::of(json, &field.kind))
            }
            Self::JsonMap(map, of) => Some(Value::of(map.get(name)?, of)),
            Self::Map(map) => map.get(&format!("s{name}")).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// What type of value this is.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::List(_) | Self::JsonList(..) => "list",
            Self::Map(_) | Self::JsonMap(..) => "map",
            Self::JsonObject(..) => "object",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }

    /// About how many values this is made of, the work of comparing it; none where that is more
    /// than `most`. No more is walked than that: what is shared stands in many places, so that a
    /// small value can be a tree without an end.
    pub fn weight(&self, most: usize) -> Option<usize> {
        let mut left = most;
        self.weigh(&mut left)?;
        Some(most - left)
    }

    fn weigh(&self, left: &mut usize) -> Option<()> {
        take(left, 1)?;
        match self {
            Self::Text(text) => take(left, text.len() / 10),
            Self::Bytes(bytes) => take(left, bytes.len() / 10),
            Self::Url(url) => take(left, url.text.len() / 10),
            Self::List(list) => list.iter().try_for_each(|one| one.weigh(left)),
            Self::Map(map) => map.values().try_for_each(|(key, value)| {
                key.weigh(left)?;
                value.weigh(left)
            }),
            Self::JsonList(list, _) => list.iter().try_for_each(|json| weigh_json(json, left)),
            Self::JsonMap(map, _) | Self::JsonObject(map, _) => weigh_entries(map, left),
            Self::Optional(Some(value)) => value.weigh(left),
            _ => Some(()),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// Whether two values are the same.
    pub fn same(&self, other: &Value<'_>) -> bool {
        use Value as V;
        if self.is_number() && other.is_number() {
            return numbers(self, other) == Some(Ordering::Equal);
        }
        match (self, other) {
            (V::Null, V::Null) => true,
            (V::Bool(a), V::Bool(b)) => a == b,
            (V::Text(a), V::Text(b)) => **a == **b,
            (V::Bytes(a), V::Bytes(b)) => a == b,
            (V::Duration(a), V::Duration(b)) => a == b,
            (V::Timestamp(a), V::Timestamp(b)) => a == b,
            (V::Type(a), V::Type(b)) => a == b,
            (V::Quantity(a), V::Quantity(b)) => a == b,
            (V::Url(a), V::Url(b)) => a.text == b.text,
            (V::Ip(a), V::Ip(b)) => a == b,
            (V::Cidr(a), V::Cidr(b)) => a == b,
            (V::Format(a), V::Format(b)) => a == b,
            (V::Optional(a), V::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.same(b),
                (None, None) => true,
                _ => false,
            },
            (V::JsonList(a, of), V::JsonList(b, _)) if of.unordered => same_set(a, b),
            (a, b) if a.is_list() && b.is_list() => {
                a.count() == b.count()
                    && (0..a.count().unwrap_or(0)).all(|at| match (a.entry(at), b.entry(at)) {
                        (Some(a), Some(b)) => a.same(&b),
                        _ => false,
                    })
            }
            (V::JsonObject(a, _), V::JsonObject(b, _)) => crate::json_equality::equal_maps(a, b),
            (a, b) => match (a.pairs(), b.pairs()) {
                (Some(left), Some(right)) => {
                    left.len() == right.len()
                        && left.iter().all(|(key, value)| {
                            b.under(key).is_some_and(|other| value.same(&other))
                        })
                }
                _ => false,
            },
        }
    }

    /// How two values of one kind stand to each other; none where there is no order.
    pub fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        use Value as V;
        if self.is_number() && other.is_number() {
            return numbers(self, other);
        }
        match (self, other) {
            (V::Bool(a), V::Bool(b)) => Some(a.cmp(b)),
            (V::Text(a), V::Text(b)) => Some((**a).cmp(&**b)),
            (V::Bytes(a), V::Bytes(b)) => Some(a.cmp(b)),
            (V::Duration(a), V::Duration(b)) => Some(a.cmp(b)),
            (V::Timestamp(a), V::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// How a value is written where a text is asked for.
    pub fn printed(&self) -> Option<String> {
        Some(match self {
            Self::Text(text) => text.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
            Self::Timestamp(time) => time.to_string(),
            Self::Duration(nanos) => in_seconds(*nanos),
            Self::Url(url) => url.text.clone(),
            Self::Ip(ip) => ip.to_string(),
            Self::Cidr(cidr) => format!("{}/{}", cidr.address, cidr.bits),
            Self::Quantity(quantity) => quantity.to_string(),
            Self::Type(name) => name.to_string(),
            _ => return None,
        })
    }
}

/// The order of two numbers of any kind; none where one of them is no number, or NaN.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    let float = |value: &Value<'_>| match value {
        Value::Double(value) => Some(*value),
        other => whole(other).map(|value| value as f64),
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => float(a)?.partial_cmp(&float(b)?),
    }
}

fn same_set(a: &[Json], b: &[Json]) -> bool {
    let sorted = |list: &[Json]| {
        let mut all: Vec<String> = list.iter().map(crate::json_equality::canonical).collect();
        all.sort_unstable();
        all
    };
    a.len() == b.len() && sorted(a) == sorted(b)
}

fn take(left: &mut usize, steps: usize) -> Option<()> {
    *left = left.checked_sub(steps)?;
    Some(())
}

fn weigh_json(json: &Json, left: &mut usize) -> Option<()> {
    take(left, 1)?;
    match json {
        Json::String(text) => take(left, text.len() / 10),
        Json::Array(list) => list.iter().try_for_each(|json| weigh_json(json, left)),
        Json::Object(map) => weigh_entries(map, left),
        _ => Some(()),
    }
}

fn weigh_entries(map: &Map<String, Json>, left: &mut usize) -> Option<()> {
    map.iter().try_for_each(|(key, json)| {
        take(left, key.len() / 10 + 1)?;
        weigh_json(json, left)
    })
}

/// A text that the same keys have in common; none for what can be no key.
pub fn key_text(key: &Value<'_>) -> Option<String> {
    Some(match key {
        Value::Text(text) => format!("s{}", &**text),
        Value::Int(value) => format!("n{value}"),
        Value::Uint(value) => format!("n{value}"),
        Value::Double(value) if value.fract() == 0.0 => format!("n{}", *value as i128),
        Value::Bool(flag) => format!("b{flag}"),
        _ => return None,
    })
}
