//! References to variables in commands, arguments and environments.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by its value, as Kubernetes does in commands, arguments and environment:
/// `$$(NAME)` stays `$(NAME)`, and so does a name that is not known.
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    replaced(text, values).0
}

/// The same where every name must be known: the first one that is not is the error.
pub fn expand_all(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    match replaced(text, values) {
        (expanded, None) => Ok(expanded),
        (_, Some(unknown)) => Err(unknown),
    }
}

fn replaced(text: &str, values: &BTreeMap<String, String>) -> (String, Option<String>) {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let mut unknown = None;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.extend(["$(", name, ")"]);
                    unknown.get_or_insert_with(|| name.to_owned());
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    (out + rest, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_known_names_are_replaced_and_all_else_stays() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let table = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("cost: 5$", "cost: 5$"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, &values), expected, "{text}");
        }
        assert_eq!(expand_all("$(A)/$$(B)", &values), Ok("1/$(B)".into()));
        assert_eq!(expand_all("$(A)/$(B)/$(C)", &values), Err("B".into()));
    }
}
