//! Whether rules that somebody has cover rules that they want to give away.
//!
//! As Kubernetes' `pkg/registry/rbac/validation`: the rules that are given are broken into single rights, one verb on
//! one resource of one group each; a right is covered where one of the owner's rules alone allows it.

use super::policy::{PolicyRule, is_url};
use std::collections::BTreeMap;

/// Single rights that are looked at one by one: who writes a rule must not choose how long that takes.
const MOST_RIGHTS: usize = 4_096;

/// Words that are compared in all, at most, for one write of somebody's.
pub const MOST_COMPARED: usize = 8_000_000;

/// The rights of `wanted` that no rule of the owner's covers, put together again. What is too much to be looked at is
/// missing unless one rule covers it as a whole, and what is left when so many words have been compared is, too.
pub fn missing(
    owned: &[PolicyRule],
    wanted: &[PolicyRule],
    most_compared: usize,
) -> Vec<PolicyRule> {
    let mut compared = Compared(most_compared);
    let mut is_covered = |right: &PolicyRule| {
        compared.0 > 0 && owned.iter().any(|rule| compared.covers(rule, right))
    };
    let mut left = MOST_RIGHTS;
    let mut lacking = Vec::new();
    for rule in wanted {
        if is_covered(rule) {
            continue;
        }
        match left.checked_sub(count(rule)) {
            Some(rest) => {
                left = rest;
                lacking.extend(rights(rule).filter(|right| !is_covered(right)));
            }
            None => lacking.push(rule.clone()),
        }
    }
    together(lacking)
}

/// How many single rights a rule is.
fn count(rule: &PolicyRule) -> usize {
    let things = [rule.groups.len(), rule.resources.len(), rule.names.len().max(1)];
    let things = things.into_iter().fold(1, usize::saturating_mul);
    things.saturating_add(rule.urls.len()).saturating_mul(rule.verbs.len())
}

/// A rule as single rights.
fn rights(rule: &PolicyRule) -> impl Iterator<Item = PolicyRule> + '_ {
    let one = |word: &String| vec![word.clone()];
    let on_resources = rule.groups.iter().flat_map(move |group| {
        rule.resources.iter().flat_map(move |resource| {
            rule.verbs.iter().flat_map(move |verb| {
                let of = move |names: Vec<String>| PolicyRule {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    names,
                    urls: Vec::new(),
                };
                let all = rule.names.is_empty().then(|| of(Vec::new()));
                all.into_iter().chain(rule.names.iter().map(move |name| of(one(name))))
            })
        })
    });
    let on_paths = rule.urls.iter().flat_map(move |url| {
        rule.verbs.iter().map(move |verb| PolicyRule {
            verbs: one(verb),
            urls: one(url),
            ..PolicyRule::default()
        })
    });
    on_resources.chain(on_paths)
}

/// How many words may still be compared. When none are left nothing is covered any more.
struct Compared(usize);

impl Compared {
    /// Takes off what it costs to compare these words; whether there was so much left.
    fn spend(&mut self, words: &[String], right: &[String]) -> bool {
        let cost = words.len().saturating_add(1).saturating_mul(right.len().saturating_add(1));
        let left = self.0.checked_sub(cost);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }

    fn covers(&mut self, rule: &PolicyRule, right: &PolicyRule) -> bool {
        self.has(&rule.verbs, &right.verbs)
            && self.has(&rule.groups, &right.groups)
            && self.has_resources(&rule.resources, &right.resources)
            && self.has_names(&rule.names, &right.names)
            && self.has_urls(&rule.urls, &right.urls)
    }

    /// Whether a rule has all words of a right, or the one that stands for all.
    fn has(&mut self, words: &[String], right: &[String]) -> bool {
        self.spend(words, right)
            && (words.iter().any(|word| word == "*") || right.iter().all(|one| words.contains(one)))
    }

    fn has_resources(&mut self, words: &[String], right: &[String]) -> bool {
        self.has(words, right)
            || self.spend(words, right)
                && right.iter().all(|one| {
                    // `*/scale` covers every `x/scale`.
                    let subresource = one.split_once('/').map(|(_, subresource)| subresource);
                    subresource.is_some_and(|sub| words.contains(&format!("*/{sub}")))
                        || words.contains(one)
                })
    }

    fn has_names(&mut self, words: &[String], right: &[String]) -> bool {
        let all = |words: &[String]| right.iter().all(|name| words.contains(name));
        words.is_empty() || (!right.is_empty() && self.spend(words, right) && all(words))
    }

    fn has_urls(&mut self, words: &[String], right: &[String]) -> bool {
        let has = |url: &String| words.iter().any(|word| is_url(word, url));
        right.is_empty() || (self.spend(words, right) && right.iter().all(has))
    }
}

/// Rights on the same things as one rule, with the verbs of all of them.
fn together(rights: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut rules: BTreeMap<PolicyRule, Vec<String>> = BTreeMap::new();
    for mut right in rights {
        let verbs = std::mem::take(&mut right.verbs);
        let known = rules.entry(right).or_default();
        for verb in verbs {
            if !known.contains(&verb) {
                known.push(verb);
            }
        }
    }
    rules.into_iter().map(|(rule, verbs)| PolicyRule { verbs, ..rule }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn lacking_of(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
        missing(owned, wanted, MOST_COMPARED)
    }

    fn rules(rules: &Value) -> Vec<PolicyRule> {
        rules.as_array().into_iter().flatten().map(PolicyRule::read).collect()
    }

    #[test]
    fn what_is_given_must_be_had_right_by_right() {
        let pods =
            |verbs: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]});
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        let named = json!({
            "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"],
        });
        let scale = |resource: &str| json!({"verbs": ["update"], "apiGroups": ["apps"], "resources": [resource]});
        let path = |url: &str| json!({"verbs": ["get"], "nonResourceURLs": [url]});
        let rows = [
            (json!([pods(&["get", "list"])]), json!([pods(&["get"])]), vec![]),
            (
                json!([pods(&["get"])]),
                json!([pods(&["get", "list", "watch"])]),
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#],
            ),
            // Two rules together cover what neither does alone.
            (json!([pods(&["get"]), pods(&["list"])]), json!([pods(&["get", "list"])]), vec![]),
            (json!([pods(&["get"])]), json!([named]), vec![]),
            (
                json!([named]),
                json!([pods(&["get"])]),
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#],
            ),
            (json!([all]), json!([pods(&["get"]), scale("deployments/scale")]), vec![]),
            (json!([all]), json!([path("/x")]), vec![r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#]),
            (
                json!([pods(&["*"])]),
                json!([all]),
                vec![r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#],
            ),
            (json!([scale("*/scale")]), json!([scale("deployments/scale")]), vec![]),
            (json!([path("/a*")]), json!([path("/ab"), path("/abc*")]), vec![]),
            (
                json!([path("/ab")]),
                json!([path("/a*")]),
                vec![r#"{NonResourceURLs:["/a*"], Verbs:["get"]}"#],
            ),
        ];
        for (owned, wanted, lacking) in rows {
            let told: Vec<String> = lacking_of(&rules(&owned), &rules(&wanted))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(told, lacking, "{owned} {wanted}");
        }
    }

    #[test]
    fn a_rule_of_very_many_rights_is_missing_as_it_is_unless_one_covers_it() {
        let words = |word: &str| -> Vec<String> {
            (0..1_000).map(|number| format!("{word}{number}")).collect()
        };
        let huge = PolicyRule {
            verbs: words("v"),
            groups: words("g"),
            resources: words("r"),
            ..PolicyRule::default()
        };
        let one = std::slice::from_ref(&huge);
        assert_eq!(lacking_of(&[], one), one);
        assert_eq!(lacking_of(one, one), []);
    }

    #[test]
    fn whoever_has_and_gives_very_many_rules_is_refused_what_is_not_looked_at() {
        let named = |names: Vec<String>| PolicyRule {
            verbs: vec!["get".to_owned()],
            groups: vec![String::new()],
            resources: vec!["pods".to_owned()],
            names,
            ..PolicyRule::default()
        };
        let (few, many) = (300, 20_000);
        let all = |names: usize| -> Vec<String> {
            (0..names).map(|number| format!("n{number}")).collect()
        };
        // As rules of one name each, and as one rule of as many names.
        for rules in [few, many] {
            let each: Vec<PolicyRule> =
                all(rules).into_iter().map(|name| named(vec![name])).collect();
            assert_eq!(lacking_of(&each, &each).is_empty(), rules == few);
            let together = [named(all(rules))];
            assert_eq!(lacking_of(&together, &together).is_empty(), rules == few);
        }
        // A rule for all names is looked at first.
        let mut roles: Vec<std::sync::Arc<[PolicyRule]>> = Vec::new();
        let each: Vec<PolicyRule> = all(many).into_iter().map(|name| named(vec![name])).collect();
        let broad = PolicyRule { verbs: vec!["get".into(), "list".into()], ..named(Vec::new()) };
        roles.push(each.clone().into());
        roles.push([broad].into());
        assert_eq!(lacking_of(&super::super::index::rules_in(&roles), &each), []);
    }
}
