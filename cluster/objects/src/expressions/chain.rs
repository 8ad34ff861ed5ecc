//! What a write has to pass of policies.

use super::judge::{Seen, Violation, judge};
use super::policy::{Binding, Params, Policy, Which};
use crate::admission::Asked;
use crate::{Filter, ListQuery, Objects};
use impresario_api::catalog::find_kind;
use impresario_api::cel::Budget;
use impresario_api::resource::Row;
use impresario_api::status::{Cause, CauseReason, Reason, Status};
use impresario_registry_api::Consistency;
use serde_json::Value;

/// The work that a policy may take for one write at one of its bindings. Each has its own: what one takes, others that come
/// after it would lack, and those that say Ignore would be passed over for it.
const STEPS: u64 = 2_000_000;
/// The most bindings that may be about one write: with their work this bounds how long a write computes.
const MOST_BINDINGS: usize = 64;
/// How many objects may be parameters of one binding.
const MAX_PARAMS: usize = 64;

/// A policy that a write has to pass, by its names.
struct Passed<'a> {
    name: &'a str,
    binding: &'a str,
}

impl Objects {
    /// Refuses what the policies of the cluster do not let pass.
    pub(crate) async fn passed(
        &self,
        asked: Asked<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<(), Status> {
        let Some(policies) = &self.policies else { return Ok(()) };
        if policies.none_covers(&asked) {
            return Ok(());
        }
        let unknown = || {
            let why = "this member does not know yet which policies there are: try again";
            Status::unavailable(why, 1)
        };
        let (all, bindings) = policies.read().await.ok_or_else(unknown)?;
        let request = asked.request();
        let mut namespace = None;
        let mut judged = 0;
        for (binding_name, binding) in bindings.iter() {
            let Some((name, policy)) = all.get_key_value(&binding.policy) else { continue };
            if !policy.may_cover(&asked) {
                continue;
            }
            let passed = Passed { name, binding: binding_name };
            let covers = self.covers(policy, binding, &asked, object, old).await;
            let violations = match covers {
                Ok(false) => continue,
                Ok(true) => match self.params_of(policy, binding, &asked).await {
                    Ok(params) => {
                        judged += 1;
                        if judged > MOST_BINDINGS {
                            return Err(too_many(&asked));
                        }
                        // Each computes at once: others come between.
                        tokio::task::yield_now().await;
                        match self.looked_up_once(&mut namespace, &asked).await {
                            Ok(namespace) => {
                                let Ok(said) = &policy.said else { continue };
                                let mut budget = Budget::new(STEPS);
                                let judged = params.iter().flat_map(|params| {
                                    let seen =
                                        Seen { object, old, request: &request, params, namespace };
                                    judge(said, policy.fails_open, seen, &mut budget)
                                });
                                judged.collect()
                            }
                            Err(why) => unanswered(policy, why),
                        }
                    }
                    Err(why) => unanswered(policy, why),
                },
                Err(why) => unanswered(policy, why),
            };
            follow(&passed, binding, &asked, violations)?;
        }
        Ok(())
    }

    /// The namespace of what is written, or null; looked up for the first policy that asks for it. That it cannot be read
    /// says nothing about whether there is one.
    async fn looked_up_once<'n>(
        &self,
        namespace: &'n mut Option<Value>,
        asked: &Asked<'_>,
    ) -> Result<&'n Value, String> {
        if namespace.is_none() {
            let found = self.namespace_of(asked).await;
            let found = found.map_err(|why| format!("its namespace cannot be read: {why}"))?;
            *namespace = Some(found.unwrap_or_default());
        }
        Ok(namespace.as_ref().unwrap_or(&Value::Null))
    }

    /// Whether a policy is about a write where a binding says that it holds.
    async fn covers(
        &self,
        policy: &Policy,
        binding: &Binding,
        asked: &Asked<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<bool, String> {
        let said = policy.said.as_ref().map_err(Clone::clone)?;
        let bound = binding.constraints.as_ref().map_err(Clone::clone)?;
        for constraints in [&said.constraints, bound] {
            if !constraints.cover(asked, object, old)
                || !self.is_in(&constraints.namespaces, asked, object, old).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a policy is judged with, each one by itself; null where it has no parameters.
    async fn params_of(
        &self,
        policy: &Policy,
        binding: &Binding,
        asked: &Asked<'_>,
    ) -> Result<Vec<Value>, String> {
        let (Some((group, version, kind)), Some(params)) = (&policy.params, &binding.params) else {
            return Ok(vec![Value::Null]);
        };
        let row = find_kind(group, version, kind)
            .ok_or_else(|| format!("its parameters are of a kind that is not served: {kind}"))?;
        let found = self.find_params(&row, params, asked).await.map_err(|status| status.message)?;
        if found.len() > MAX_PARAMS {
            return Err(format!("more than {MAX_PARAMS} objects match its paramRef"));
        }
        match (found.is_empty(), params.allows_none) {
            (true, false) => {
                Err("no params found for policy binding with `Deny` parameterNotFoundAction".into())
            }
            _ => Ok(found),
        }
    }

    async fn find_params(
        &self,
        row: &Row,
        params: &Params,
        asked: &Asked<'_>,
    ) -> Result<Vec<Value>, Status> {
        let namespace = match params.namespace.as_str() {
            _ if !row.namespaced => "",
            "" => asked.namespace,
            namespace => namespace,
        };
        match &params.which {
            Which::One(name) => {
                let found = self.find(row, namespace, name, Consistency::Local).await?;
                Ok(found.map(|stored| stored.object).into_iter().collect())
            }
            Which::All(labels) => {
                let query = ListQuery {
                    namespace: row.namespaced.then(|| namespace.to_owned()),
                    filter: Filter { labels: Some(labels.clone()), ..Filter::default() },
                    limit: Some(MAX_PARAMS + 1),
                    version: Some(0),
                    ..ListQuery::default()
                };
                Ok(self.list(row, &query).await?.items)
            }
        }
    }
}

fn too_many(asked: &Asked<'_>) -> Status {
    let why = format!(
        "more than {MOST_BINDINGS} bindings of policies are about it: let some of them be about less"
    );
    Status::forbidden(asked.resource, asked.name, why)
}

/// What follows where nobody can say whether a policy holds.
fn unanswered(policy: &Policy, why: String) -> Vec<Violation> {
    if policy.fails_open {
        Vec::new()
    } else {
        vec![Violation { message: why, reason: Reason::Invalid }]
    }
}

/// Does what a binding says about what does not hold.
fn follow(
    passed: &Passed<'_>,
    binding: &Binding,
    asked: &Asked<'_>,
    violations: Vec<Violation>,
) -> Result<(), Status> {
    let Passed { name, binding: at } = passed;
    if violations.is_empty() {
        return Ok(());
    }
    if binding.audits {
        let all: Vec<&str> = violations.iter().map(|one| one.message.as_str()).collect();
        let (kind, namespace, object) = (&asked.resource.kind, asked.namespace, asked.name);
        tracing::info!(policy = name, binding = at, %kind, namespace, object, "does not hold: {}", all.join("; "));
    }
    if binding.warns {
        asked.options.told.add(violations.iter().map(|one| {
            let message = &one.message;
            format!("Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{at}': {message}")
        }));
    }
    if !binding.denies {
        return Ok(());
    }
    let mut violations = violations.into_iter();
    let Some(first) = violations.next() else { return Ok(()) };
    let said = |message: &str| {
        format!("ValidatingAdmissionPolicy '{name}' with binding '{at}' denied request: {message}")
    };
    let status = Status::forbidden(asked.resource, asked.name, said(&first.message));
    let mut status = Status { reason: first.reason, ..status };
    status.causes = std::iter::once(first)
        .chain(violations)
        .map(|one| Cause {
            field: String::new(),
            reason: CauseReason::Invalid,
            message: one.message,
        })
        .collect();
    Err(status)
}
