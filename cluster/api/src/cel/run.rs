//! Works an expression out, within a budget.
//!
//! `&&` and `||` do not mind a fault on one side that the other side makes irrelevant, and so do
//! `all` and `exists`; a budget that is used up is minded everywhere.

use super::fault::{Budget, Fault, beginning, failed};
use super::tree::{Expr, Loop, LoopKind, Node, Operator};
use super::value::{Text, Value, key_text};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

type Given<'a> = Result<Value<'a>, Fault>;

/// Works out an expression with these variables, in the order in which it was checked with them.
pub fn run<'a>(expr: &'a Expr, variables: Vec<Value<'a>>, budget: &mut Budget) -> Given<'a> {
    Machine { variables, budget }.of(expr)
}

struct Machine<'a, 'b> {
    variables: Vec<Value<'a>>,
    budget: &'b mut Budget,
}

impl<'a> Machine<'a, '_> {
    fn of(&mut self, expr: &'a Expr) -> Given<'a> {
        self.budget.spend(1)?;
        Ok(match &expr.node {
            Node::Null => Value::Null,
            Node::Bool(flag) => Value::Bool(*flag),
            Node::Int(value) => Value::Int(*value),
            Node::Uint(value) => Value::Uint(*value),
            Node::Double(value) => Value::Double(*value),
            Node::Text(text) => Value::Text(Text::Borrowed(text)),
            Node::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Node::TypeName(name) => Value::Type((*name).into()),
            Node::Name(name) => return Err(failed(format!("undeclared reference to '{name}'"))),
            Node::Variable(place) => match self.variables.get(*place) {
                Some(value) => value.clone(),
                None => return Err(failed("no such attribute")),
            },
            Node::Select { operand, field, optional } => {
                let operand = self.of(operand)?;
                return through(operand, *optional, |value| {
                    let found = value.field(field);
                    if found.is_none() && !is_container(&value) {
                        return Err(failed(format!(
                            "no such overload: {}.{field}",
                            value.type_name()
                        )));
                    }
                    read(self.budget, found.as_ref())?;
                    Ok(found)
                })?
                .ok_or_else(|| failed(format!("no such key: {field}")));
            }
            Node::Has { operand, field } => {
                let operand = match self.of(operand)? {
                    Value::Optional(Some(inner)) => *inner,
                    Value::Optional(None) => return Ok(Value::Bool(false)),
                    other => other,
                };
                let found = operand.field(field);
                read(self.budget, found.as_ref())?;
                Value::Bool(found.is_some())
            }
            Node::Index { operand, index, optional } => {
                let (operand, index) = (self.of(operand)?, self.of(index)?);
                return through(operand, *optional, |value| entry(self.budget, &value, &index))?
                    .ok_or_else(|| missing(&index));
            }
            Node::Not(one) => match self.of(one)? {
                Value::Bool(flag) => Value::Bool(!flag),
                other => return Err(no_overload("!_", &[&other])),
            },
            Node::Negate(one) => match self.of(one)? {
                Value::Int(value) => {
                    Value::Int(value.checked_neg().ok_or_else(|| failed("integer overflow"))?)
                }
                Value::Double(value) => Value::Double(-value),
                other => return Err(no_overload("-_", &[&other])),
            },
            Node::And(all) => return self.logic(all, false),
            Node::Or(all) => return self.logic(all, true),
            Node::Binary(operator, left, right) => {
                let (left, right) = (self.of(left)?, self.of(right)?);
                return binary(self.budget, *operator, &left, &right);
            }
            Node::Conditional(condition, yes, no) => match self.of(condition)? {
                Value::Bool(true) => return self.of(yes),
                Value::Bool(false) => return self.of(no),
                other => return Err(no_overload("_?_:_", &[&other])),
            },
            Node::List(all) => {
                let mut list = Vec::with_capacity(all.len());
                for one in all {
                    list.push(self.of(one)?);
                }
                Value::list(list)
            }
            Node::Map(entries) => {
                let mut map = BTreeMap::new();
                for (key, value) in entries {
                    let key = self.of(key)?;
                    let value = self.of(value)?;
                    let text = owned_key(self.budget, &key)?;
                    if map.insert(text, (key, value)).is_some() {
                        return Err(failed("Failed with repeated key"));
                    }
                }
                Value::Map(Arc::new(map))
            }
            Node::Call { name, arguments, function, .. } => {
                let Some(function) = function else {
                    return Err(failed(format!("undeclared reference to '{name}'")));
                };
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(self.of(argument)?);
                }
                return function.call(self.budget, &values);
            }
            Node::Loop(inner) => return self.looped(inner),
        })
    }

    /// `decides` is what one side being so decides, whatever the others are.
    fn logic(&mut self, all: &'a [Expr], decides: bool) -> Given<'a> {
        let mut fault = None;
        for one in all {
            match self.of(one) {
                Ok(Value::Bool(flag)) if flag == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(other) => {
                    let name = if decides { "_||_" } else { "_&&_" };
                    fault = fault.or_else(|| Some(no_overload(name, &[&other])));
                }
                Err(Fault::OverBudget) => return Err(Fault::OverBudget),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        fault.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn looped(&mut self, inner: &'a Loop) -> Given<'a> {
        let range = self.of(&inner.range)?;
        if matches!(inner.kind, LoopKind::OptMap | LoopKind::OptFlatMap) {
            let value = match range {
                Value::Optional(None) => return Ok(Value::Optional(None)),
                Value::Optional(Some(value)) => *value,
                other => return Err(no_overload("optMap", &[&other])),
            };
            self.variables.push(value);
            let given = self.of(&inner.body);
            self.variables.pop();
            return match inner.kind {
                LoopKind::OptMap => given.map(Value::some),
                _ => given,
            };
        }
        let two = inner.variables.len() == 2;
        self.budget.spend(range.count().unwrap_or(0))?;
        let entries: Vec<(Value<'a>, Value<'a>)> = match (range.all(), range.pairs()) {
            (Some(all), _) => {
                let keyed = all.into_iter().enumerate();
                keyed.map(|(at, value)| (Value::Int(at as i64), value)).collect()
            }
            (None, Some(pairs)) if two => pairs,
            // One variable of a map is its key.
            (None, Some(pairs)) => pairs.into_iter().map(|(key, _)| (key.clone(), key)).collect(),
            _ => return Err(no_overload("comprehension", &[&range])),
        };
        self.entries(inner, two, entries)
    }

    fn entries(
        &mut self,
        inner: &'a Loop,
        two: bool,
        entries: Vec<(Value<'a>, Value<'a>)>,
    ) -> Given<'a> {
        let mut list = Vec::new();
        let mut map = BTreeMap::new();
        let (mut count, mut fault) = (0_usize, None);
        let before = self.variables.len();
        for (key, value) in entries {
            self.budget.spend(1)?;
            read(self.budget, Some(&value))?;
            if two {
                self.variables.push(key.clone());
            }
            self.variables.push(value.clone());
            let wanted = match &inner.filter {
                None => Ok(true),
                Some(filter) => self.flag(filter),
            };
            let given = match wanted {
                Ok(true) => self.of(&inner.body).map(Some),
                Ok(false) => Ok(None),
                Err(fault) => Err(fault),
            };
            self.variables.truncate(before);
            let given = match (given, inner.kind) {
                (Ok(Some(given)), _) => given,
                (Ok(None), _) => continue,
                (Err(Fault::Failed(what)), LoopKind::All | LoopKind::Exists) => {
                    fault = fault.or(Some(Fault::Failed(what)));
                    continue;
                }
                (Err(fault), _) => return Err(fault),
            };
            match (inner.kind, given) {
                (LoopKind::All, Value::Bool(false)) => return Ok(Value::Bool(false)),
                (LoopKind::Exists, Value::Bool(true)) => return Ok(Value::Bool(true)),
                (LoopKind::All | LoopKind::Exists, Value::Bool(_))
                | (LoopKind::Filter, Value::Bool(false)) => {}
                (LoopKind::ExistsOne, Value::Bool(flag)) => count += usize::from(flag),
                (LoopKind::Filter, Value::Bool(true)) => list.push(value),
                (LoopKind::Map, given) => list.push(given),
                (LoopKind::TransformMap, given) => {
                    let text = owned_key(self.budget, &key)?;
                    map.insert(text, (key, given));
                }
                (_, other) => return Err(no_overload("comprehension", &[&other])),
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        Ok(match inner.kind {
            LoopKind::All => Value::Bool(true),
            LoopKind::Exists => Value::Bool(false),
            LoopKind::ExistsOne => Value::Bool(count == 1),
            LoopKind::TransformMap => Value::Map(Arc::new(map)),
            _ => Value::list(list),
        })
    }

    fn flag(&mut self, expr: &'a Expr) -> Result<bool, Fault> {
        match self.of(expr)? {
            Value::Bool(flag) => Ok(flag),
            other => Err(no_overload("comprehension", &[&other])),
        }
    }
}

fn is_container(value: &Value<'_>) -> bool {
    matches!(value, Value::JsonObject(..) | Value::JsonMap(..) | Value::Map(_))
}

fn missing(index: &Value<'_>) -> Fault {
    match index {
        Value::Int(at) => failed(format!("index out of bounds: {at}")),
        Value::Text(text) => failed(format!("no such key: {}", beginning(text))),
        other => failed(format!("no such key: {}", other.printed().unwrap_or_default())),
    }
}

/// Looks something up, through an optional where there is one; what is looked up is then optional.
fn through<'a>(
    operand: Value<'a>,
    optional: bool,
    look: impl FnOnce(Value<'a>) -> Result<Option<Value<'a>>, Fault>,
) -> Result<Option<Value<'a>>, Fault> {
    let wrapped = |found: Option<Value<'a>>| match found {
        Some(found @ Value::Optional(_)) => found,
        found => Value::Optional(found.map(Box::new)),
    };
    match operand {
        Value::Optional(None) => Ok(Some(Value::Optional(None))),
        Value::Optional(Some(inner)) => Ok(Some(wrapped(look(*inner)?))),
        operand if optional => Ok(Some(wrapped(look(operand)?))),
        operand => look(operand),
    }
}

/// Takes the work of what was read out of an object: bytes are decoded anew each time.
fn read(budget: &mut Budget, found: Option<&Value<'_>>) -> Result<(), Fault> {
    match found {
        Some(Value::Bytes(bytes)) => budget.spend_bytes(bytes.len()),
        _ => Ok(()),
    }
}

/// The copy of a key by which a map finds it.
fn owned_key(budget: &mut Budget, key: &Value<'_>) -> Result<String, Fault> {
    if let Value::Text(text) = key {
        budget.spend_bytes(text.len())?;
    }
    key_text(key).ok_or_else(|| failed("unsupported key type"))
}

fn entry<'a>(
    budget: &mut Budget,
    value: &Value<'a>,
    index: &Value<'a>,
) -> Result<Option<Value<'a>>, Fault> {
    if value.is_list() {
        let at = match index {
            Value::Int(at) => usize::try_from(*at).ok(),
            Value::Uint(at) => usize::try_from(*at).ok(),
            Value::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
            other => return Err(no_overload("_[_]", &[value, other])),
        };
        let found = at.and_then(|at| value.entry(at));
        read(budget, found.as_ref())?;
        return Ok(found);
    }
    if is_container(value) {
        if let Value::Text(key) = index {
            budget.spend_bytes(key.len())?;
        }
        let found = match index {
            Value::Text(name) if matches!(value, Value::JsonObject(..)) => value.field(name),
            index => value.under(index),
        };
        read(budget, found.as_ref())?;
        return Ok(found);
    }
    Err(no_overload("_[_]", &[value, index]))
}

fn no_overload(name: &str, values: &[&Value<'_>]) -> Fault {
    let kinds: Vec<&str> = values.iter().map(|value| value.type_name()).collect();
    failed(format!("no such overload: {name}({})", kinds.join(", ")))
}

fn binary<'a>(
    budget: &mut Budget,
    operator: Operator,
    left: &Value<'a>,
    right: &Value<'a>,
) -> Given<'a> {
    use Operator as O;
    let name = || format!("_{}_", operator.symbol());
    let order = |holds: fn(Ordering) -> bool| match left.order(right) {
        Some(order) => Ok(Value::Bool(holds(order))),
        // Not a number stands in no order to any.
        None if matches!((left, right), (Value::Double(_), _) | (_, Value::Double(_))) => {
            Ok(Value::Bool(false))
        }
        None => Err(no_overload(&name(), &[left, right])),
    };
    match operator {
        O::Equal | O::NotEqual => {
            budget.spend_on(left, 1)?;
            budget.spend_on(right, 1)?;
            Ok(Value::Bool(left.same(right) == (operator == O::Equal)))
        }
        O::Less => order(Ordering::is_lt),
        O::LessOrEqual => order(Ordering::is_le),
        O::Greater => order(Ordering::is_gt),
        O::GreaterOrEqual => order(Ordering::is_ge),
        O::In if right.is_list() => {
            let count = right.count().unwrap_or(0);
            budget.spend_on(right, 1)?;
            budget.spend(count)?;
            let found = (0..count).any(|at| right.entry(at).is_some_and(|one| one.same(left)));
            Ok(Value::Bool(found))
        }
        O::In if is_container(right) => Ok(Value::Bool(entry(budget, right, left)?.is_some())),
        O::In => Err(no_overload("@in", &[left, right])),
        _ => arithmetic(budget, operator, left, right)?
            .ok_or_else(|| no_overload(&name(), &[left, right])),
    }
}

/// Both kinds of whole numbers are reckoned with alike.
macro_rules! checked {
    ($operator:expr, $a:expr, $b:expr) => {
        match $operator {
            Operator::Add => $a.checked_add(*$b),
            Operator::Subtract => $a.checked_sub(*$b),
            Operator::Multiply => $a.checked_mul(*$b),
            Operator::Divide => $a.checked_div(*$b),
            _ => $a.checked_rem(*$b),
        }
    };
}

/// Sums and the like; none where there is no such operation.
fn arithmetic<'a>(
    budget: &mut Budget,
    operator: Operator,
    left: &Value<'a>,
    right: &Value<'a>,
) -> Result<Option<Value<'a>>, Fault> {
    use Operator as O;
    use Value as V;
    let whole = |value: Option<V<'a>>| value.map(Some).ok_or_else(|| failed("integer overflow"));
    let nanos = |nanos: i64| jiff::SignedDuration::from_nanos(nanos);
    match (left, right) {
        (V::Int(_), V::Int(0)) | (V::Uint(_), V::Uint(0)) if operator == O::Divide => {
            Err(failed("division by zero"))
        }
        (V::Int(_), V::Int(0)) | (V::Uint(_), V::Uint(0)) if operator == O::Modulo => {
            Err(failed("modulus by zero"))
        }
        (V::Int(a), V::Int(b)) => whole(checked!(operator, a, b).map(V::Int)),
        (V::Uint(a), V::Uint(b)) => whole(checked!(operator, a, b).map(V::Uint)),
        (V::Double(a), V::Double(b)) => Ok(match operator {
            O::Add => Some(V::Double(a + b)),
            O::Subtract => Some(V::Double(a - b)),
            O::Multiply => Some(V::Double(a * b)),
            O::Divide => Some(V::Double(a / b)),
            _ => None,
        }),
        (V::Duration(a), V::Duration(b)) if operator == O::Add => {
            whole(a.checked_add(*b).map(V::Duration))
        }
        (V::Duration(a), V::Duration(b)) if operator == O::Subtract => {
            whole(a.checked_sub(*b).map(V::Duration))
        }
        (V::Timestamp(time), V::Duration(span)) | (V::Duration(span), V::Timestamp(time))
            if operator == O::Add =>
        {
            whole(time.checked_add(nanos(*span)).ok().map(V::Timestamp))
        }
        (V::Timestamp(time), V::Duration(span)) if operator == O::Subtract => {
            whole(time.checked_sub(nanos(*span)).ok().map(V::Timestamp))
        }
        (V::Timestamp(a), V::Timestamp(b)) if operator == O::Subtract => {
            let span = a.as_nanosecond() - b.as_nanosecond();
            whole(i64::try_from(span).ok().map(V::Duration))
        }
        (V::Text(a), V::Text(b)) if operator == O::Add => {
            budget.spend_bytes(a.len().saturating_add(b.len()))?;
            Ok(Some(V::text(format!("{}{}", &**a, &**b))))
        }
        (V::Bytes(a), V::Bytes(b)) if operator == O::Add => {
            budget.spend_bytes(a.len().saturating_add(b.len()))?;
            Ok(Some(V::Bytes([&**a, &**b].concat().into())))
        }
        (a, b) if operator == O::Add && a.is_list() && b.is_list() => {
            budget.spend(a.count().unwrap_or(0) + b.count().unwrap_or(0))?;
            let mut all = a.all().unwrap_or_default();
            all.extend(b.all().unwrap_or_default());
            Ok(Some(V::list(all)))
        }
        _ => Ok(None),
    }
}
