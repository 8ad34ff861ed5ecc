//! A policy and its bindings, as they are written.

use crate::admission::{Asked, Rule};
use impresario_api::cel::Program;
use impresario_api::rules::expressions::{Gives, compile};
use impresario_api::selector::LabelSelector;
use impresario_api::status::Reason;
use impresario_client::objects::stored::text;
use serde_json::Value;

/// Which writes it is about.
#[derive(Debug)]
pub(super) struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// In namespaces with these labels.
    pub(super) namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Constraints {
    fn read(value: &Value) -> Result<Self, String> {
        let rules = |field: &str| -> Vec<Rule> {
            value[field].as_array().into_iter().flatten().map(Rule::read).collect()
        };
        let selector = |field: &str| match value.get(field).filter(|value| !value.is_null()) {
            None => Ok(LabelSelector::everything()),
            Some(value) => LabelSelector::from_object(value).map_err(|error| error.to_string()),
        };
        Ok(Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// Whether it is about this, the namespace aside. A binding without rules is about all that its policy is about.
    pub(super) fn cover(&self, asked: &Asked<'_>, object: &Value, old: &Value) -> bool {
        let is = |rule: &Rule| rule.covers(asked);
        let mut either = [object, old].into_iter().filter(|object| !object.is_null());
        (self.rules.is_empty() || self.rules.iter().any(is))
            && !self.excluded.iter().any(is)
            && (self.objects.is_everything() || either.any(|one| self.objects.matches_object(one)))
    }
}

/// An expression with its name.
#[derive(Debug)]
pub(super) struct Named {
    /// The name.
    pub(super) name: String,
    /// The expression.
    pub(super) program: Program,
}

/// An expression that must hold.
#[derive(Debug)]
pub(super) struct Check {
    /// As it is written.
    pub(super) expression: String,
    /// The expression.
    pub(super) program: Program,
    /// What is said where it does not hold.
    pub(super) message: String,
    /// An expression for the same.
    pub(super) worded: Option<Program>,
    /// Why it is refused.
    pub(super) reason: Reason,
}

/// What a policy says.
#[derive(Debug)]
pub(super) struct Said {
    /// Which writes it is about.
    pub(super) constraints: Constraints,
    /// Conditions that must hold for it to be looked at.
    pub(super) conditions: Vec<Named>,
    /// What its expressions may name besides.
    pub(super) variables: Vec<Named>,
    /// What must hold.
    pub(super) checks: Vec<Check>,
}

/// A policy.
#[derive(Debug)]
pub(super) struct Policy {
    /// What it says, or why that cannot be understood.
    pub(super) said: Result<Said, String>,
    /// The rules alone, which are understood in any case.
    rules: Vec<Rule>,
    /// Whether a write goes on where an expression gives no answer.
    pub(super) fails_open: bool,
    /// Of which group, version and kind its parameters are.
    pub(super) params: Option<(String, String, String)>,
}

impl Policy {
    pub(super) fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let rules = spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten();
        let params = &spec["paramKind"];
        let version = text(params, "/apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        Self {
            said: said(spec),
            rules: rules.map(Rule::read).collect(),
            fails_open: text(spec, "/failurePolicy") == "Ignore",
            params: (!params.is_null())
                .then(|| (group.into(), version.into(), text(params, "/kind").into())),
        }
    }

    /// Whether one of its rules is about this.
    pub(super) fn may_cover(&self, asked: &Asked<'_>) -> bool {
        self.rules.iter().any(|rule| rule.covers(asked))
    }
}

fn said(spec: &Value) -> Result<Said, String> {
    let named = |field: &str, gives: Gives| -> Result<Vec<Named>, String> {
        let all = spec[field].as_array().into_iter().flatten();
        all.map(|one| {
            let name = text(one, "/name").to_owned();
            let program = compile(text(one, "/expression"), gives);
            let program = program.map_err(|why| format!("{field} {name}: {why}"))?;
            Ok(Named { name, program })
        })
        .collect()
    };
    let checks = spec["validations"].as_array().into_iter().flatten();
    let checks = checks.map(|one| {
        let expression = text(one, "/expression").trim().to_owned();
        let worded = match text(one, "/messageExpression") {
            "" => None,
            worded => Some(compile(worded, Gives::Text)?),
        };
        let reason = match text(one, "/reason") {
            "Unauthorized" => Reason::Unauthorized,
            "Forbidden" => Reason::Forbidden,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        let program = compile(&expression, Gives::Bool)?;
        let message = text(one, "/message").trim().to_owned();
        Ok(Check { expression, program, message, worded, reason })
    });
    Ok(Said {
        constraints: Constraints::read(&spec["matchConstraints"])?,
        conditions: named("matchConditions", Gives::Bool)?,
        variables: named("variables", Gives::Anything)?,
        checks: checks.collect::<Result<_, String>>()?,
    })
}

/// Which objects are parameters.
#[derive(Debug)]
pub(super) enum Which {
    /// The one of this name.
    One(String),
    /// Each one with these labels.
    All(LabelSelector),
}

/// Where a policy finds its parameters.
#[derive(Debug)]
pub(super) struct Params {
    /// The namespace; that of what is written where it is empty.
    pub(super) namespace: String,
    /// Which.
    pub(super) which: Which,
    /// Whether it is left out where there are none.
    pub(super) allows_none: bool,
}

/// Where a policy holds, and what follows where it does not.
#[derive(Debug)]
pub(super) struct Binding {
    /// The policy.
    pub(super) policy: String,
    /// Which writes it is about, of those that the policy is; or why that cannot be understood.
    pub(super) constraints: Result<Constraints, String>,
    /// Where the parameters are.
    pub(super) params: Option<Params>,
    /// Whether a write is refused.
    pub(super) denies: bool,
    /// Whether the writer is warned.
    pub(super) warns: bool,
    /// Whether it is logged.
    pub(super) audits: bool,
}

impl Binding {
    pub(super) fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let has = |action: &str| {
            let actions = spec["validationActions"].as_array();
            actions.is_some_and(|actions| actions.iter().any(|one| one == action))
        };
        let reference = &spec["paramRef"];
        let mut constraints = Constraints::read(&spec["matchResources"]);
        let which = match text(reference, "/name") {
            "" => {
                let selector = LabelSelector::from_object(&reference["selector"]);
                Which::All(selector.unwrap_or_else(|error| {
                    constraints = Err(error.to_string());
                    LabelSelector::nothing()
                }))
            }
            name => Which::One(name.to_owned()),
        };
        let params = Params {
            namespace: text(reference, "/namespace").to_owned(),
            which,
            allows_none: text(reference, "/parameterNotFoundAction") == "Allow",
        };
        Self {
            policy: text(spec, "/policyName").to_owned(),
            constraints,
            params: (!reference.is_null()).then_some(params),
            denies: has("Deny"),
            warns: has("Warn"),
            audits: has("Audit"),
        }
    }
}
