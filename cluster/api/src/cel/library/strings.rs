//! Texts: CEL's own functions, the extended ones, and regular expressions.
//!
//! Places in a text are counted in characters. What a function makes is paid for before it is made;
//! that it reads its texts has been paid for by its caller.

use crate::cel::fault::{Budget, Fault, failed};
use crate::cel::function::{Function, no_overload};
use crate::cel::value::Value as V;
use crate::pattern::Pattern;

pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "contains",
        signatures: &[".(string, string) bool"],
        run: |_, a| test("contains", a, |text, part| text.contains(part)),
    },
    Function {
        name: "startsWith",
        signatures: &[".(string, string) bool"],
        run: |_, a| test("startsWith", a, |text, part| text.starts_with(part)),
    },
    Function {
        name: "endsWith",
        signatures: &[".(string, string) bool"],
        run: |_, a| test("endsWith", a, |text, part| text.ends_with(part)),
    },
    Function {
        name: "matches",
        signatures: &["(string, string) bool", ".(string, string) bool"],
        run: |budget, arguments| match arguments {
            [V::Text(text), V::Text(pattern)] => {
                let pattern = compiled(budget, pattern, text)?;
                Ok(V::Bool(pattern.is_match(text)))
            }
            _ => no_overload("matches", arguments),
        },
    },
    Function {
        name: "find",
        signatures: &[".(string, string) string"],
        run: |budget, arguments| match arguments {
            [V::Text(text), V::Text(pattern)] => {
                let pattern = compiled(budget, pattern, text)?;
                Ok(V::text(pattern.find(text).unwrap_or_default()))
            }
            _ => no_overload("find", arguments),
        },
    },
    Function {
        name: "findAll",
        signatures: &[".(string, string) list<string>", ".(string, string, int) list<string>"],
        run: |budget, arguments| {
            let most = match arguments {
                [V::Text(_), V::Text(_)] => usize::MAX,
                [V::Text(_), V::Text(_), V::Int(most)] => {
                    usize::try_from(*most).unwrap_or(usize::MAX)
                }
                _ => return no_overload("findAll", arguments),
            };
            let (V::Text(text), V::Text(pattern)) = (&arguments[0], &arguments[1]) else {
                return no_overload("findAll", arguments);
            };
            let pattern = compiled(budget, pattern, text)?;
            budget.spend(text.len())?;
            Ok(V::list(pattern.find_all(text).take(most).map(V::text).collect()))
        },
    },
    Function {
        name: "charAt",
        signatures: &[".(string, int) string"],
        run: |budget, arguments| match arguments {
            [V::Text(text), V::Int(at)] => {
                budget.spend_bytes(text.len())?;
                let count = text.chars().count() as i64;
                match text.chars().nth(usize::try_from(*at).unwrap_or(usize::MAX)) {
                    Some(c) => Ok(V::text(c.to_string())),
                    None if *at == count => Ok(V::text("")),
                    None => Err(failed(format!("index out of range: {at}"))),
                }
            }
            _ => no_overload("charAt", arguments),
        },
    },
    Function {
        name: "lowerAscii",
        signatures: &[".(string) string"],
        run: |b, a| changed("lowerAscii", b, a, str::to_ascii_lowercase),
    },
    Function {
        name: "upperAscii",
        signatures: &[".(string) string"],
        run: |b, a| changed("upperAscii", b, a, str::to_ascii_uppercase),
    },
    Function {
        name: "trim",
        signatures: &[".(string) string"],
        run: |b, a| changed("trim", b, a, |text| text.trim().to_owned()),
    },
    Function {
        name: "strings.quote",
        signatures: &["(string) string"],
        run: |b, a| changed("strings.quote", b, a, |text| format!("{text:?}")),
    },
    Function {
        name: "replace",
        signatures: &[".(string, string, string) string", ".(string, string, string, int) string"],
        run: |budget, arguments| {
            let (V::Text(text), V::Text(old), V::Text(new)) =
                (&arguments[0], &arguments[1], &arguments[2])
            else {
                return no_overload("replace", arguments);
            };
            let most = match arguments.get(3) {
                Some(V::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            budget.spend_bytes(text.len())?;
            let count = text.matches(&**old).count().min(most);
            budget.spend_bytes(text.len().saturating_add(count.saturating_mul(new.len())))?;
            Ok(V::text(text.replacen(&**old, new, count)))
        },
    },
    Function {
        name: "split",
        signatures: &[".(string, string) list<string>", ".(string, string, int) list<string>"],
        run: |budget, arguments| {
            let (V::Text(text), V::Text(by)) = (&arguments[0], &arguments[1]) else {
                return no_overload("split", arguments);
            };
            let most = match arguments.get(2) {
                Some(V::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            budget.spend(text.len() + 1)?;
            Ok(V::list(match (most, by.is_empty()) {
                (0, _) => Vec::new(),
                (1, _) => vec![V::Text(text.clone())],
                (most, false) => text.splitn(most, &**by).map(V::text).collect(),
                (most, true) => by_character(text, most),
            }))
        },
    },
    Function {
        name: "substring",
        signatures: &[".(string, int) string", ".(string, int, int) string"],
        run: |budget, arguments| match arguments {
            [V::Text(text), V::Int(from), rest @ ..] => {
                budget.spend_bytes(text.len())?;
                let count = text.chars().count();
                let to = match rest {
                    [V::Int(to)] => *to,
                    _ => count as i64,
                };
                match (usize::try_from(*from), usize::try_from(to)) {
                    (Ok(from), Ok(to)) if from <= to && to <= count => {
                        Ok(V::text(text.chars().skip(from).take(to - from).collect::<String>()))
                    }
                    _ => Err(failed(format!("invalid substring range. start: {from}, end: {to}"))),
                }
            }
            _ => no_overload("substring", arguments),
        },
    },
    Function {
        name: "join",
        signatures: &[".(list<string>) string", ".(list<string>, string) string"],
        run: |budget, arguments| {
            let by = match arguments.get(1) {
                Some(V::Text(by)) => by.to_string(),
                _ => String::new(),
            };
            budget.spend(arguments[0].count().unwrap_or(0))?;
            let Some(all) = arguments[0].all() else { return no_overload("join", arguments) };
            let mut joined = String::new();
            for (at, one) in all.iter().enumerate() {
                let V::Text(one) = one else { return no_overload("join", arguments) };
                budget.spend_bytes(one.len() + by.len())?;
                if at > 0 {
                    joined.push_str(&by);
                }
                joined.push_str(one);
            }
            Ok(V::text(joined))
        },
    },
    Function {
        name: "format",
        signatures: &[".(string, list<dyn>) string"],
        run: |budget, arguments| match arguments {
            [V::Text(form), values] if values.is_list() => formatted(budget, form, values),
            _ => no_overload("format", arguments),
        },
    },
];

fn test<'a>(
    name: &str,
    arguments: &[V<'a>],
    holds: fn(&str, &str) -> bool,
) -> Result<V<'a>, Fault> {
    match arguments {
        [V::Text(text), V::Text(part)] => Ok(V::Bool(holds(text, part))),
        _ => no_overload(name, arguments),
    }
}

fn changed<'a>(
    name: &str,
    budget: &mut Budget,
    arguments: &[V<'a>],
    change: fn(&str) -> String,
) -> Result<V<'a>, Fault> {
    match arguments {
        [V::Text(text)] => {
            budget.spend_bytes(text.len())?;
            Ok(V::text(change(text)))
        }
        _ => no_overload(name, arguments),
    }
}

/// Compiling costs far more than a look, and matching goes with the product of both lengths.
fn compiled(budget: &mut Budget, pattern: &str, text: &str) -> Result<Pattern, Fault> {
    budget.spend(200 + pattern.len() * 4)?;
    budget.spend_bytes(text.len().saturating_mul(pattern.len() / 16 + 1))?;
    Pattern::new(pattern).map_err(|error| failed(error.to_string()))
}

fn by_character<'a>(text: &str, most: usize) -> Vec<V<'a>> {
    let mut parts: Vec<V<'a>> =
        text.chars().take(most - 1).map(|c| V::text(c.to_string())).collect();
    let rest: String = text.chars().skip(most - 1).collect();
    if !rest.is_empty() {
        parts.push(V::text(rest));
    }
    parts
}

fn formatted<'a>(budget: &mut Budget, form: &str, values: &V<'a>) -> Result<V<'a>, Fault> {
    budget.spend_bytes(form.len())?;
    let mut out = String::new();
    let mut next = 0;
    let mut chars = form.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut clause = chars.next();
        let mut precision = None;
        if clause == Some('.') {
            let mut digits = String::new();
            clause = chars.next();
            while let Some(c) = clause.filter(char::is_ascii_digit) {
                digits.push(c);
                clause = chars.next();
            }
            precision = digits.parse::<usize>().ok().map(|digits| digits.min(30));
        }
        if clause == Some('%') {
            out.push('%');
            continue;
        }
        let value =
            values.entry(next).ok_or_else(|| failed(format!("index {next} out of range")))?;
        next += 1;
        budget.spend_on(&value, 1)?;
        let wrong = || failed(format!("could not format {} here", value.type_name()));
        let text = match (clause, &value) {
            (Some('s'), value) => shown(value).ok_or_else(wrong)?,
            (Some('d'), V::Int(_) | V::Uint(_) | V::Double(_)) => {
                shown(&value).ok_or_else(wrong)?
            }
            (Some('f'), V::Double(value)) => format!("{value:.*}", precision.unwrap_or(6)),
            (Some('f'), V::Int(value)) => format!("{:.*}", precision.unwrap_or(6), *value as f64),
            (Some('e'), V::Double(value)) => format!("{value:.*e}", precision.unwrap_or(6)),
            (Some('x'), V::Int(value)) => format!("{value:x}"),
            (Some('X'), V::Int(value)) => format!("{value:X}"),
            (Some('o'), V::Int(value)) => format!("{value:o}"),
            (Some('b'), V::Int(value)) => format!("{value:b}"),
            (Some('b'), V::Bool(flag)) => u8::from(*flag).to_string(),
            (Some('d' | 'f' | 'e' | 'x' | 'X' | 'o' | 'b'), _) => return Err(wrong()),
            (clause, _) => {
                let clause = clause.map(String::from).unwrap_or_default();
                return Err(failed(format!("unrecognized formatting clause {clause:?}")));
            }
        };
        budget.spend_bytes(text.len())?;
        out.push_str(&text);
    }
    Ok(V::text(out))
}

fn shown(value: &V<'_>) -> Option<String> {
    if let Some(text) = value.printed() {
        return Some(text);
    }
    if matches!(value, V::Null) {
        return Some("null".to_owned());
    }
    let all: Option<Vec<String>> = value.all()?.iter().map(shown).collect();
    Some(format!("[{}]", all?.join(", ")))
}
