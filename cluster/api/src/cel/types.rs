//! The types of expressions: what a schema says of its values, and what functions ask for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names say it all
pub enum Type {
    /// Known when it runs.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Timestamp,
    /// A type as a value.
    Type,
    Optional(Arc<Type>),
    List(Arc<ListType>),
    Map(Arc<(Type, Type)>),
    Object(Arc<ObjectType>),
    Quantity,
    Url,
    Ip,
    Cidr,
    Format,
    /// One of a function's own unknowns.
    Param(usize),
}

/// A list.
#[derive(Debug)]
pub struct ListType {
    /// What its entries are.
    pub element: Type,
    /// Whether two with the same entries in another order are the same.
    pub unordered: bool,
}

/// An object with the fields of a schema.
#[derive(Debug, Default)]
pub struct ObjectType {
    /// By the names that expressions call them.
    pub fields: BTreeMap<String, Field>,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub json: String,
    /// What it is.
    pub kind: Type,
}

/// So many unknowns a signature may have.
pub const PARAMS: usize = 2;

/// What the unknowns of one call have been found to be.
pub type Bindings = [Option<Type>; PARAMS];

impl Type {
    /// An ordered list.
    pub fn list(element: Type) -> Self {
        Self::List(Arc::new(ListType { element, unordered: false }))
    }

    /// A map.
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// Whether a value of `other` can be where this is asked for; finds out what the unknowns are.
    pub fn takes(&self, other: &Type, bindings: &mut Bindings) -> bool {
        if let Self::Param(at) = self {
            return match bindings[*at].clone() {
                None => {
                    bindings[*at] = Some(other.clone());
                    true
                }
                Some(bound) if bound.fits(other) => {
                    if matches!(bound, Self::Dyn | Self::Null) {
                        bindings[*at] = Some(other.clone());
                    }
                    true
                }
                Some(_) => false,
            };
        }
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.element.takes(&b.element, bindings),
            (Self::Map(a), Self::Map(b)) => a.0.takes(&b.0, bindings) && a.1.takes(&b.1, bindings),
            (Self::Optional(a), Self::Optional(b)) => a.takes(b, bindings),
            _ => self.fits(other),
        }
    }

    /// Whether two types can be of one value.
    pub fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            (Self::List(a), Self::List(b)) => a.element.fits(&b.element),
            (Self::Map(a), Self::Map(b)) => a.0.fits(&b.0) && a.1.fits(&b.1),
            (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Null, other) | (other, Self::Null) => !other.is_scalar(),
            (Self::Param(a), Self::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Bool | Self::Int | Self::Uint | Self::Double | Self::Text | Self::Bytes
        )
    }

    /// The type with its unknowns replaced.
    pub fn resolved(&self, bindings: &Bindings) -> Type {
        match self {
            Self::Param(at) => bindings[*at].clone().unwrap_or(Self::Dyn),
            Self::List(of) => Self::list(of.element.resolved(bindings)),
            Self::Map(of) => Self::map(of.0.resolved(bindings), of.1.resolved(bindings)),
            Self::Optional(of) => Self::Optional(Arc::new(of.resolved(bindings))),
            other => other.clone(),
        }
    }

    /// The type that both are of.
    pub fn join(self, other: &Type) -> Type {
        match (&self, other) {
            (Self::Null, other) => other.clone(),
            (_, Self::Null) => self,
            (this, other) if this.fits(other) && !matches!(other, Self::Dyn) => self,
            _ => Self::Dyn,
        }
    }

    /// Whether the numbers of two types can be held against each other.
    pub fn are_numbers(&self, other: &Type) -> bool {
        let number = |of: &Type| matches!(of, Self::Int | Self::Uint | Self::Double | Self::Dyn);
        number(self) && number(other)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Dyn => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type => "type",
            Self::Object(_) => "object",
            Self::Quantity => "kubernetes.Quantity",
            Self::Url => "kubernetes.URL",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Format => "kubernetes.NamedFormat",
            Self::Param(0) => "A",
            Self::Param(_) => "B",
            Self::Optional(of) => return write!(f, "optional_type({of})"),
            Self::List(of) => return write!(f, "list({})", of.element),
            Self::Map(of) => return write!(f, "map({}, {})", of.0, of.1),
        };
        f.write_str(word)
    }
}

/// Reads a type as signatures write it: `list<A>`, `map<string,B>`, `quantity`.
pub fn parse(text: &str) -> Option<Type> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
        return Some(Type::list(parse(inner)?));
    }
    if let Some(inner) = text.strip_prefix("optional<").and_then(|rest| rest.strip_suffix('>')) {
        return Some(Type::Optional(Arc::new(parse(inner)?)));
    }
    if let Some(inner) = text.strip_prefix("map<").and_then(|rest| rest.strip_suffix('>')) {
        let (key, value) = inner.split_once(',')?;
        return Some(Type::map(parse(key)?, parse(value)?));
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::Text,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type,
        "quantity" => Type::Quantity,
        "url" => Type::Url,
        "ip" => Type::Ip,
        "cidr" => Type::Cidr,
        "format" => Type::Format,
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        _ => return None,
    })
}
