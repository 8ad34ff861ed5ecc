//! Whether an expression can work at all: every name is known, every function takes what it is
//! given. Names are replaced by what they stand for.

use super::function::Signature;
use super::lex::Mistake;
use super::library;
use super::tree::{Expr, Loop, LoopKind, Node, Operator};
use super::types::Type;
use std::sync::Arc;

/// A variable that an expression may name.
pub type Variable = (String, Type);

/// Checks an expression, and says what it gives.
pub fn check(expr: &mut Expr, variables: Vec<Variable>) -> Result<Type, Mistake> {
    Checker { variables }.of(expr)
}

/// Whether an expression that has been checked reads the variable at this place.
pub fn reads(expr: &Expr, at: usize) -> bool {
    match &expr.node {
        Node::Variable(other) => *other == at,
        node => node.below().into_iter().any(|below| reads(below, at)),
    }
}

struct Checker {
    variables: Vec<Variable>,
}

const TYPE_NAMES: [&str; 14] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "object",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "optional_type",
];

impl Checker {
    fn of(&mut self, expr: &mut Expr) -> Result<Type, Mistake> {
        let at = expr.at;
        if let Some(name) = qualified(expr)
            && name.split('.').next().is_none_or(|first| self.variable(first).is_none())
            && let Some(known) = TYPE_NAMES.into_iter().find(|known| *known == name)
        {
            expr.node = Node::TypeName(known);
            return Ok(Type::Type);
        }
        match &mut expr.node {
            Node::Null => Ok(Type::Null),
            Node::Bool(_) => Ok(Type::Bool),
            Node::Int(_) => Ok(Type::Int),
            Node::Uint(_) => Ok(Type::Uint),
            Node::Double(_) => Ok(Type::Double),
            Node::Text(_) => Ok(Type::Text),
            Node::Bytes(_) => Ok(Type::Bytes),
            Node::TypeName(_) => Ok(Type::Type),
            Node::Variable(place) => Ok(self.variables[*place].1.clone()),
            Node::Name(name) => {
                let Some(place) = self.variable(name) else {
                    let what = format!("undeclared reference to '{name}' (in container '')");
                    return Err(Mistake::new(at, what));
                };
                expr.node = Node::Variable(place);
                Ok(self.variables[place].1.clone())
            }
            Node::Select { operand, field, optional } => {
                let of = self.of(operand)?;
                let wanted = *optional;
                let (of, through) = match of {
                    Type::Optional(inner) => (inner.as_ref().clone(), true),
                    of => (of, wanted),
                };
                let kind = select(&of, field, at)?;
                Ok(if through { optional_of(kind) } else { kind })
            }
            Node::Has { operand, field } => {
                let of = self.of(operand)?;
                let of = match of {
                    Type::Optional(inner) => inner.as_ref().clone(),
                    of => of,
                };
                select(&of, field, at).map(|_| Type::Bool)
            }
            Node::Index { operand, index, optional } => {
                let (of, key) = (self.of(operand)?, self.of(index)?);
                let wanted = *optional;
                let (of, through) = match of {
                    Type::Optional(inner) => (inner.as_ref().clone(), true),
                    of => (of, wanted),
                };
                let kind = match &of {
                    Type::Dyn => Type::Dyn,
                    Type::List(list) if key.are_numbers(&Type::Int) => list.element.clone(),
                    Type::Map(map) if map.0.fits(&key) => map.1.clone(),
                    _ => return Err(no_overload(at, "_[_]", &[of, key])),
                };
                Ok(if through { optional_of(kind) } else { kind })
            }
            Node::Not(one) => match self.of(one)? {
                Type::Bool | Type::Dyn => Ok(Type::Bool),
                other => Err(no_overload(at, "!_", &[other])),
            },
            Node::Negate(one) => match self.of(one)? {
                kind @ (Type::Int | Type::Double | Type::Dyn) => Ok(kind),
                other => Err(no_overload(at, "-_", &[other])),
            },
            Node::And(all) => self.logic(all, "_&&_", at),
            Node::Or(all) => self.logic(all, "_||_", at),
            Node::Binary(operator, left, right) => {
                let operator = *operator;
                let (left, right) = (self.of(left)?, self.of(right)?);
                binary(operator, left, right, at)
            }
            Node::Conditional(condition, yes, no) => {
                let kind = self.of(condition)?;
                let (yes, no) = (self.of(yes)?, self.of(no)?);
                if !kind.fits(&Type::Bool) || !yes.fits(&no) {
                    return Err(no_overload(at, "_?_:_", &[kind, yes, no]));
                }
                Ok(yes.join(&no))
            }
            Node::List(all) => {
                let mut kind = None;
                for one in all {
                    kind = Some(join(kind, self.of(one)?));
                }
                Ok(Type::list(kind.unwrap_or(Type::Dyn)))
            }
            Node::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (key, value) in entries {
                    let (key_at, key) = (key.at, self.of(key)?);
                    if !matches!(key, Type::Text | Type::Int | Type::Uint | Type::Bool | Type::Dyn)
                    {
                        let what = format!("type '{key}' cannot be the key of a map");
                        return Err(Mistake::new(key_at, what));
                    }
                    keys = Some(join(keys, key));
                    values = Some(join(values, self.of(value)?));
                }
                Ok(Type::map(keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn)))
            }
            Node::Call { .. } => self.call(expr),
            Node::Loop(inner) => self.looped(inner, at),
        }
    }

    /// The place of a variable; the innermost of those of one name.
    fn variable(&self, name: &str) -> Option<usize> {
        self.variables.iter().rposition(|(known, _)| known == name)
    }

    fn logic(&mut self, all: &mut [Expr], name: &str, at: usize) -> Result<Type, Mistake> {
        let mut kinds = Vec::with_capacity(all.len());
        for one in all {
            kinds.push(self.of(one)?);
        }
        if kinds.iter().all(|kind| kind.fits(&Type::Bool)) {
            Ok(Type::Bool)
        } else {
            Err(no_overload(at, name, &kinds))
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Result<Type, Mistake> {
        let at = expr.at;
        let Node::Call { name, member, arguments, function } = &mut expr.node else {
            return Ok(Type::Dyn);
        };
        // `sets.contains(…)` is a function with a long name, unless `sets` is a variable.
        let library = arguments.first().filter(|_| *member).and_then(qualified);
        if let Some(library) = library.filter(|library| self.variable(library).is_none()) {
            let long = format!("{library}.{name}");
            if library::find(&long).is_some() {
                *name = long;
                *member = false;
                arguments.remove(0);
            }
        }
        let Some(found) = library::find(name) else {
            let what = format!("undeclared reference to '{name}' (in container '')");
            return Err(Mistake::new(at, what));
        };
        let mut kinds = Vec::with_capacity(arguments.len());
        for argument in arguments.iter_mut() {
            kinds.push(self.of(argument)?);
        }
        let signatures = found.signatures.iter().filter_map(|text| Signature::parse(text));
        let gives: Vec<Type> = signatures.filter_map(|s| s.call(*member, &kinds)).collect();
        *function = Some(found);
        match gives.as_slice() {
            [] => Err(no_overload(at, name, &kinds)),
            [one] => Ok(one.clone()),
            [first, rest @ ..] => Ok(rest.iter().fold(first.clone(), Type::join)),
        }
    }

    fn looped(&mut self, inner: &mut Loop, at: usize) -> Result<Type, Mistake> {
        let range_at = inner.range.at;
        let range = self.of(&mut inner.range)?;
        let over_optional = matches!(inner.kind, LoopKind::OptMap | LoopKind::OptFlatMap);
        let (key, value) = match &range {
            Type::Optional(of) if over_optional => (Type::Dyn, of.as_ref().clone()),
            Type::List(list) if !over_optional => (Type::Int, list.element.clone()),
            Type::Map(map) if !over_optional => (map.0.clone(), map.1.clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return Err(Mistake::new(range_at, what));
            }
        };
        let kinds = match (inner.variables.len(), &range) {
            (2, _) => vec![key.clone(), value.clone()],
            // One variable of a map is its key.
            (_, Type::Map(_)) => vec![key.clone()],
            _ => vec![value.clone()],
        };
        let before = self.variables.len();
        self.variables.extend(inner.variables.iter().cloned().zip(kinds));
        let mut filter = Ok(Type::Bool);
        if let Some(expr) = &mut inner.filter {
            filter = self.of(expr);
        }
        let body = filter.and_then(|filter| Ok((filter, self.of(&mut inner.body)?)));
        self.variables.truncate(before);
        let (filter, body) = body?;
        let wants_bool = matches!(
            inner.kind,
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter
        );
        if !filter.fits(&Type::Bool) || (wants_bool && !body.fits(&Type::Bool)) {
            let found = if wants_bool { &body } else { &filter };
            let what = format!("expected type 'bool' but found '{found}'");
            return Err(Mistake::new(at, what));
        }
        Ok(match inner.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Map => Type::list(body),
            LoopKind::Filter => match range {
                Type::Map(_) => Type::list(key),
                _ => Type::list(value),
            },
            LoopKind::TransformMap => Type::map(key, body),
            LoopKind::OptMap => optional_of(body),
            LoopKind::OptFlatMap => match body {
                body @ (Type::Optional(_) | Type::Dyn) => body,
                other => {
                    let what = format!("expected type 'optional_type' but found '{other}'");
                    return Err(Mistake::new(at, what));
                }
            },
        })
    }
}

fn join(kind: Option<Type>, with: Type) -> Type {
    match kind {
        None => with,
        Some(kind) => kind.join(&with),
    }
}

fn optional_of(kind: Type) -> Type {
    match kind {
        Type::Optional(_) => kind,
        kind => Type::Optional(Arc::new(kind)),
    }
}

/// `a.b.c` as one name, where it is nothing but names.
fn qualified(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Name(name) => Some(name.clone()),
        Node::Select { operand, field, optional: false } => {
            qualified(operand).map(|before| format!("{before}.{field}"))
        }
        _ => None,
    }
}

fn select(of: &Type, field: &str, at: usize) -> Result<Type, Mistake> {
    match of {
        Type::Dyn => Ok(Type::Dyn),
        Type::Object(object) => match object.fields.get(field) {
            Some(field) => Ok(field.kind.clone()),
            None => Err(Mistake::new(at, format!("undefined field '{field}'"))),
        },
        Type::Map(map) if map.0.fits(&Type::Text) => Ok(map.1.clone()),
        other => Err(Mistake::new(at, format!("type '{other}' does not support field selection"))),
    }
}

fn no_overload(at: usize, name: &str, kinds: &[Type]) -> Mistake {
    let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    let kinds = kinds.join(", ");
    Mistake::new(at, format!("found no matching overload for '{name}' applied to '({kinds})'"))
}

fn binary(operator: Operator, left: Type, right: Type, at: usize) -> Result<Type, Mistake> {
    use Type as T;
    let dynamic = matches!(left, T::Dyn) || matches!(right, T::Dyn);
    let gives = match operator {
        Operator::Equal | Operator::NotEqual => left.fits(&right).then_some(T::Bool),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let ordered = |kind: &T| {
                matches!(
                    kind,
                    T::Bool
                        | T::Int
                        | T::Uint
                        | T::Double
                        | T::Text
                        | T::Bytes
                        | T::Duration
                        | T::Timestamp
                        | T::Dyn
                )
            };
            let fits = ordered(&left)
                && ordered(&right)
                && (left.fits(&right) || left.are_numbers(&right));
            fits.then_some(T::Bool)
        }
        Operator::In => match &right {
            T::Dyn => Some(T::Bool),
            T::List(list) => list.element.fits(&left).then_some(T::Bool),
            T::Map(map) => map.0.fits(&left).then_some(T::Bool),
            _ => None,
        },
        Operator::Add => match (&left, &right) {
            (T::Int, T::Int)
            | (T::Uint, T::Uint)
            | (T::Double, T::Double)
            | (T::Text, T::Text)
            | (T::Bytes, T::Bytes)
            | (T::Duration, T::Duration) => Some(left.clone()),
            (T::Timestamp, T::Duration) | (T::Duration, T::Timestamp) => Some(T::Timestamp),
            (T::List(_), T::List(_)) => left.fits(&right).then(|| left.clone()),
            _ => dynamic.then_some(T::Dyn),
        },
        Operator::Subtract => match (&left, &right) {
            (T::Int, T::Int)
            | (T::Uint, T::Uint)
            | (T::Double, T::Double)
            | (T::Duration, T::Duration) => Some(left.clone()),
            (T::Timestamp, T::Duration) => Some(T::Timestamp),
            (T::Timestamp, T::Timestamp) => Some(T::Duration),
            _ => dynamic.then_some(T::Dyn),
        },
        Operator::Multiply | Operator::Divide => match (&left, &right) {
            (T::Int, T::Int) | (T::Uint, T::Uint) | (T::Double, T::Double) => Some(left.clone()),
            _ => dynamic.then_some(T::Dyn),
        },
        Operator::Modulo => match (&left, &right) {
            (T::Int, T::Int) | (T::Uint, T::Uint) => Some(left.clone()),
            _ => dynamic.then_some(T::Dyn),
        },
    };
    let name = if operator == Operator::In {
        "@in".to_owned()
    } else {
        format!("_{}_", operator.symbol())
    };
    gives.ok_or_else(|| no_overload(at, &name, &[left, right]))
}
