//! What a pod's failure means to its job, by `spec.podFailurePolicy` (API reference, Job v1,
//! `PodFailurePolicy`): the first rule that matches decides.

use super::super::super::pod_view::PodView as _;
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement as OnExitCodes,
    PodFailurePolicyOnPodConditionsPattern as OnCondition,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// What a failure does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// It counts towards the limits, as it does where no rule matches.
    Counts,
    /// It does not count, and the pod is replaced.
    Ignored,
    /// It counts, and its index is not tried again.
    FailsIndex,
    /// It counts, and the job has failed; why, in words.
    FailsJob(String),
}

/// What the failure of this pod does.
pub(super) fn effect(spec: &JobSpec, pod: &Pod) -> Effect {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    let Some(status) = pod.status.as_ref() else { return Effect::Counts };
    for (at, rule) in rules.enumerate() {
        let matched = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => exit_code(status, codes).map(|(container, code)| {
                format!(
                    "Container {container} for pod {}/{} failed with exit code {code} matching {} rule at index {at}",
                    pod.metadata.namespace.as_deref().unwrap_or_default(),
                    pod.name(),
                    rule.action
                )
            }),
            (None, Some(patterns)) => condition(status, patterns).map(|type_| {
                format!(
                    "Pod {}/{} has condition {type_} matching {} rule at index {at}",
                    pod.metadata.namespace.as_deref().unwrap_or_default(),
                    pod.name(),
                    rule.action
                )
            }),
            (None, None) => None,
        };
        let Some(message) = matched else { continue };
        match rule.action.as_str() {
            "Ignore" => return Effect::Ignored,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => return Effect::FailsIndex,
            "FailJob" => return Effect::FailsJob(message),
            "Count" => return Effect::Counts,
            // An action that came after this release says nothing here.
            _ => {}
        }
    }
    Effect::Counts
}

/// The first container that ended with a code that the rule means: its name and the code.
fn exit_code<'a>(status: &'a PodStatus, rule: &OnExitCodes) -> Option<(&'a str, i32)> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.flatten().find_map(|container: &ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = rule.container_name.as_ref().is_none_or(|name| *name == container.name);
        let listed = rule.values.contains(&code);
        let matches = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && matches).then_some((container.name.as_str(), code))
    })
}

fn condition<'a>(status: &'a PodStatus, patterns: &[OnCondition]) -> Option<&'a str> {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|condition| {
            let is_meant = |pattern: &OnCondition| {
                let status = pattern.status.as_deref().filter(|status| !status.is_empty());
                pattern.type_ == condition.type_ && condition.status == status.unwrap_or("True")
            };
            patterns.iter().any(is_meant)
        })
        .map(|condition| condition.type_.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(rules: Value) -> JobSpec {
        let mut spec = json!({
            "template": {}, "backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": rules},
        });
        if spec["podFailurePolicy"]["rules"].is_null() {
            spec["podFailurePolicy"] = Value::Null;
        }
        serde_json::from_value(spec).unwrap()
    }

    fn pod(container: &str, code: i32, condition: &str) -> Pod {
        let ended = json!({
            "name": container, "state": {"terminated": {"exitCode": code}}, "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
        });
        let fine = json!({
            "name": "fine", "state": {"terminated": {"exitCode": 0}}, "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
        });
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "status": {
                "phase": "Failed", "containerStatuses": [fine, ended],
                "conditions": [{"type": condition, "status": "True"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_says_what_a_failure_does() {
        let code = |action: &str, operator: &str, values: &[i32]| {
            json!({"action": action, "onExitCodes": {
                "containerName": "main", "operator": operator, "values": values}})
        };
        let disrupted = json!({"action": "Ignore", "onPodConditions": [
            {"type": "DisruptionTarget", "status": "True"}]});
        let rules = json!([
            disrupted,
            code("FailJob", "In", &[42]),
            code("FailIndex", "In", &[43]),
            code("Ignore", "NotIn", &[1, 2]),
        ]);
        let spec = spec(rules);
        let message =
            "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        for (container, exit, condition, effect_is) in [
            ("main", 42, "Ready", Effect::FailsJob(message.into())),
            ("main", 42, "DisruptionTarget", Effect::Ignored),
            ("side", 42, "Ready", Effect::Counts),
            ("main", 43, "Ready", Effect::FailsIndex),
            ("main", 1, "Ready", Effect::Counts),
            ("main", 7, "Ready", Effect::Ignored),
            ("main", 0, "Ready", Effect::Counts),
        ] {
            let found = effect(&spec, &pod(container, exit, condition));
            assert_eq!(found, effect_is, "{container} {exit} {condition}");
        }
        let none = self::spec(Value::Null);
        assert_eq!(effect(&none, &pod("main", 42, "Ready")), Effect::Counts);
    }
}
