//! Lists and sets.

use crate::cel::fault::{Budget, Fault, failed};
use crate::cel::function::{Function, no_overload};
use crate::cel::value::Value as V;
use std::cmp::Ordering;

const ORDERED: &[&str] = &[
    ".(list<int>) int",
    ".(list<uint>) uint",
    ".(list<double>) double",
    ".(list<string>) string",
    ".(list<bool>) bool",
    ".(list<bytes>) bytes",
    ".(list<duration>) duration",
    ".(list<timestamp>) timestamp",
];

pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "isSorted",
        signatures: &[
            ".(list<int>) bool",
            ".(list<uint>) bool",
            ".(list<double>) bool",
            ".(list<string>) bool",
            ".(list<bool>) bool",
            ".(list<bytes>) bool",
            ".(list<duration>) bool",
            ".(list<timestamp>) bool",
        ],
        run: |budget, arguments| {
            let all = entries("isSorted", budget, arguments)?;
            let sorted =
                all.windows(2).all(|two| two[0].order(&two[1]).is_none_or(Ordering::is_le));
            Ok(V::Bool(sorted))
        },
    },
    Function {
        name: "min",
        signatures: ORDERED,
        run: |budget, arguments| extreme("min", budget, arguments, Ordering::Less),
    },
    Function {
        name: "max",
        signatures: ORDERED,
        run: |budget, arguments| extreme("max", budget, arguments, Ordering::Greater),
    },
    Function {
        name: "sum",
        signatures: &[
            ".(list<int>) int",
            ".(list<uint>) uint",
            ".(list<double>) double",
            ".(list<duration>) duration",
        ],
        run: |budget, arguments| {
            let all = entries("sum", budget, arguments)?;
            let Some(first) = all.first().cloned() else { return Ok(V::Int(0)) };
            all.iter().skip(1).try_fold(first, |sum, next| {
                let sum = match (&sum, next) {
                    (V::Int(a), V::Int(b)) => a.checked_add(*b).map(V::Int),
                    (V::Uint(a), V::Uint(b)) => a.checked_add(*b).map(V::Uint),
                    (V::Double(a), V::Double(b)) => Some(V::Double(a + b)),
                    (V::Duration(a), V::Duration(b)) => a.checked_add(*b).map(V::Duration),
                    _ => return no_overload("sum", arguments),
                };
                sum.ok_or_else(|| failed("integer overflow"))
            })
        },
    },
    Function {
        name: "indexOf",
        signatures: &[".(list<A>, A) int", ".(string, string) int", ".(string, string, int) int"],
        run: |budget, arguments| place("indexOf", budget, arguments, false),
    },
    Function {
        name: "lastIndexOf",
        signatures: &[".(list<A>, A) int", ".(string, string) int", ".(string, string, int) int"],
        run: |budget, arguments| place("lastIndexOf", budget, arguments, true),
    },
    Function {
        name: "sets.contains",
        signatures: &["(list<A>, list<A>) bool"],
        run: |budget, arguments| sets("sets.contains", budget, arguments, contains),
    },
    Function {
        name: "sets.intersects",
        signatures: &["(list<A>, list<A>) bool"],
        run: |budget, arguments| {
            sets("sets.intersects", budget, arguments, |a, b| a.iter().any(|one| has(b, one)))
        },
    },
    Function {
        name: "sets.equivalent",
        signatures: &["(list<A>, list<A>) bool"],
        run: |budget, arguments| {
            sets("sets.equivalent", budget, arguments, |a, b| contains(a, b) && contains(b, a))
        },
    },
];

fn entries<'a>(name: &str, budget: &mut Budget, arguments: &[V<'a>]) -> Result<Vec<V<'a>>, Fault> {
    let Some(list) = arguments.first().filter(|list| list.is_list()) else {
        return Err(no_overload(name, arguments).err().unwrap_or(Fault::OverBudget));
    };
    budget.spend_on(list, 1)?;
    Ok(list.all().unwrap_or_default())
}

fn extreme<'a>(
    name: &str,
    budget: &mut Budget,
    arguments: &[V<'a>],
    wanted: Ordering,
) -> Result<V<'a>, Fault> {
    let all = entries(name, budget, arguments)?;
    let mut all = all.into_iter();
    let first = all.next().ok_or_else(|| failed(format!("{name} called on empty list")))?;
    Ok(all.fold(first, |best, next| if next.order(&best) == Some(wanted) { next } else { best }))
}

fn place<'a>(
    name: &str,
    budget: &mut Budget,
    arguments: &[V<'a>],
    last: bool,
) -> Result<V<'a>, Fault> {
    match arguments {
        [list, wanted] if list.is_list() => {
            let all = entries(name, budget, arguments)?;
            budget.spend_on(wanted, all.len())?;
            let mut places = all.iter().enumerate().filter(|(_, one)| one.same(wanted));
            let found = if last { places.next_back() } else { places.next() };
            Ok(V::Int(found.map_or(-1, |(at, _)| at as i64)))
        }
        [V::Text(text), V::Text(part), rest @ ..] => {
            budget.spend(text.len() + part.len() + 1)?;
            let count = text.chars().count();
            let bound = match rest {
                [V::Int(bound)] => usize::try_from(*bound)
                    .ok()
                    .filter(|bound| *bound <= count)
                    .ok_or_else(|| failed(format!("index out of range: {bound}")))?,
                _ if last => count,
                _ => 0,
            };
            let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
            let found = if last {
                // The bound is the last place where it may begin.
                let end = byte(bound).saturating_add(part.len()).min(text.len());
                let end = text.ceil_char_boundary(end);
                text[..end].rfind(&**part)
            } else {
                let from = byte(bound);
                text[from..].find(&**part).map(|at| at + from)
            };
            Ok(V::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
        }
        _ => no_overload(name, arguments),
    }
}

fn has(list: &[V<'_>], wanted: &V<'_>) -> bool {
    list.iter().any(|one| one.same(wanted))
}

fn contains(list: &[V<'_>], all: &[V<'_>]) -> bool {
    all.iter().all(|one| has(list, one))
}

fn sets<'a>(
    name: &str,
    budget: &mut Budget,
    arguments: &[V<'a>],
    holds: fn(&[V<'_>], &[V<'_>]) -> bool,
) -> Result<V<'a>, Fault> {
    match arguments {
        [a, b] if a.is_list() && b.is_list() => {
            let most = usize::try_from(budget.left()).unwrap_or(usize::MAX);
            let weight = a.weight(most).ok_or(Fault::OverBudget)?;
            budget.spend_on(b, weight.saturating_mul(2))?;
            Ok(V::Bool(holds(&a.all().unwrap_or_default(), &b.all().unwrap_or_default())))
        }
        _ => no_overload(name, arguments),
    }
}
