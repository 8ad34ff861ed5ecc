//! Compiles the rules of a schema, from the leaves to the root.

use super::declared::{Below, declare};
use super::findings::Findings;
use super::node::{Additional, ListType, Node};
use super::place::Place;
use super::rule::{Compiled, KEYWORD, Rule};
use crate::cel::{Program, Type, Variable};
use serde_json::{Value, json};
use std::sync::Arc;

/// How many rules a schema may have.
const MAX_RULES: usize = 2000;

/// Compiles the rules of a whole object's schema.
pub fn compile(root: &mut Node, place: &Place<'_>, findings: &mut Findings) {
    Compiler { findings, rules: 0 }.node(root, true, place, None);
}

struct Compiler<'f> {
    findings: &'f mut Findings,
    rules: usize,
}

impl Compiler<'_> {
    /// Compiles what is below a node and then its own rules, and says what it is. `lost` is the list
    /// above of which nobody can say which entry was which.
    fn node(
        &mut self,
        node: &mut Node,
        whole: bool,
        place: &Place<'_>,
        lost: Option<&str>,
    ) -> Option<Type> {
        let mut below = Below::default();
        let properties = place.field("properties");
        for (name, property) in &mut node.properties {
            if let Some(kind) = self.node(property, false, &properties.key(name), lost) {
                below.properties.insert(name.clone(), kind);
            }
        }
        if let Additional::Of(additional) = &mut node.additional {
            let place = place.field("additionalProperties");
            below.additional = self.node(additional, false, &place, lost);
        }
        if let Some(items) = &mut node.items {
            let place = place.field("items");
            let here = place.bare();
            let keyed = node.list_type == Some(ListType::Map);
            let lost = if keyed { lost } else { lost.or(Some(&here)) };
            below.items = self.node(items, false, &place, lost);
        }
        let kind = declare(node, below, whole);
        node.has_rules = !node.rules.is_empty() || node.parts().any(|part| part.has_rules);
        let mut rules = std::mem::take(&mut node.rules);
        for (at, rule) in rules.iter_mut().enumerate() {
            let list = place.field(KEYWORD);
            self.rule(rule, node, kind.as_ref(), &list.index(at), lost);
        }
        node.rules = rules;
        kind
    }

    fn rule(
        &mut self,
        rule: &mut Rule,
        node: &Node,
        kind: Option<&Type>,
        place: &Place<'_>,
        lost: Option<&str>,
    ) {
        self.rules += 1;
        if self.rules > MAX_RULES {
            let why = format!("a schema may have {MAX_RULES} rules");
            self.findings.forbidden(place, &why);
            return;
        }
        let rule_place = place.field("rule");
        let shown = json!(rule.expression);
        let Some(kind) = kind else {
            let why =
                "compilation failed: the value has no type that an expression could look into";
            self.findings.invalid(&rule_place, &shown, why);
            return;
        };
        let old = if rule.optional_old_self {
            Type::Optional(Arc::new(kind.clone()))
        } else {
            kind.clone()
        };
        let variables: [Variable; 2] =
            [("self".to_owned(), kind.clone()), ("oldSelf".to_owned(), old)];
        let Some(program) = self.program(&rule.expression, &variables, &rule_place, &Type::Bool)
        else {
            return;
        };
        let mut message = None;
        if let Some(source) = &rule.message_expression {
            let place = place.field("messageExpression");
            message = self.program(source, &variables, &place, &Type::Text);
        }
        let says_old = message.as_ref().is_some_and(|message| message.reads(1));
        let reads_old = program.reads(1);
        if says_old && !reads_old {
            let why = "oldSelf may be used in messageExpression only if it is used in rule";
            let given = json!(rule.message_expression);
            self.findings.invalid(&place.field("messageExpression"), &given, why);
        }
        if let Some(lost) = lost.filter(|_| reads_old) {
            let why = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}"
            );
            self.findings.invalid(&rule_place, &shown, &why);
        }
        if rule.optional_old_self && !reads_old {
            let why = "may not be set if oldSelf is not used in rule";
            self.findings.invalid(&place.field("optionalOldSelf"), &json!(true), why);
        }
        self.field_path(rule, node, place);
        let kind = kind.clone();
        rule.compiled = Some(Arc::new(Compiled { kind, rule: program, message, reads_old }));
    }

    fn program(
        &mut self,
        source: &str,
        variables: &[Variable],
        place: &Place<'_>,
        wanted: &Type,
    ) -> Option<Program> {
        let shown = json!(source);
        match Program::compile(source, variables) {
            Err(error) => {
                let what = if matches!(wanted, Type::Bool) { "" } else { "messageExpression " };
                let why = format!("{what}compilation failed: {error}");
                self.findings.invalid(place, &shown, &why);
                None
            }
            Ok(program)
                if matches!(
                    (wanted, program.gives()),
                    (Type::Bool, Type::Bool) | (Type::Text, Type::Text)
                ) =>
            {
                Some(program)
            }
            Ok(_) => {
                let why = match wanted {
                    Type::Bool => "cel expression must evaluate to a bool",
                    _ => "messageExpression must evaluate to a string",
                };
                self.findings.invalid(place, &shown, why);
                None
            }
        }
    }

    /// Whether the field that is to blame is one of the schema.
    fn field_path(&mut self, rule: &Rule, node: &Node, place: &Place<'_>) {
        if rule.field_path.is_empty() {
            return;
        }
        let place = place.field("fieldPath");
        let given: Value = json!(rule.field_path);
        let refuse = |findings: &mut Findings, why: &str| {
            let why = format!("fieldPath must be a valid path: {why}");
            findings.invalid(&place, &given, &why);
        };
        let Some(steps) = steps(&rule.field_path) else {
            refuse(self.findings, "it has the form .a.b['c']");
            return;
        };
        let mut here = node;
        for step in steps {
            let next = match (here.properties.get(&step), &here.additional) {
                (Some(property), _) => Some(property),
                (None, Additional::Of(additional)) => Some(&**additional),
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => {
                    refuse(self.findings, "does not refer to a valid field");
                    return;
                }
            }
        }
    }
}

/// The names of `.a.b['c']`; none where it has another form.
fn steps(path: &str) -> Option<Vec<String>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let end;
        let name;
        if let Some(inner) = rest.strip_prefix("['") {
            end = inner.find("']")?;
            name = &inner[..end];
            rest = &inner[end + 2..];
        } else {
            let inner = rest.strip_prefix('.')?;
            end = inner.find(['.', '[']).unwrap_or(inner.len());
            name = &inner[..end];
            rest = &inner[end..];
        }
        if name.is_empty() {
            return None;
        }
        steps.push(name.to_owned());
    }
    Some(steps)
}
