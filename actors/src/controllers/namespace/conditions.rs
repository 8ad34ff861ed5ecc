//! What a namespace that is being deleted says of what holds it up, word for word as Kubernetes says
//! it (`kubectl get namespace NAME -o yaml`, API reference, NamespaceStatus v1).

use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// What is in a namespace after everything was asked to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Objects that are left, by resource as in `pods.` and `jobs.batch`.
    pub content: BTreeMap<String, usize>,
    /// Objects that are left, by each finalizer that they have.
    pub finalizers: BTreeMap<String, usize>,
    /// What could not be deleted or listed, and why.
    pub failures: Vec<String>,
}

impl Remains {
    /// Whether nothing is left, for certain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.failures.is_empty()
    }

    /// Counts an object of this resource with these finalizers.
    pub fn add<'a>(&mut self, resource: &str, finalizers: impl IntoIterator<Item = &'a str>) {
        *self.content.entry(resource.to_owned()).or_default() += 1;
        for finalizer in finalizers {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
}

/// The conditions of a namespace in which this is left; `old` are those that it has. `None` if they say
/// that already.
#[must_use]
pub fn conditions(
    old: &[NamespaceCondition],
    remains: &Remains,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let content = remains
        .content
        .iter()
        .map(|(resource, count)| format!("{resource} has {count} resource instances"));
    let content: Vec<_> = content.collect();
    let finalizers = remains
        .finalizers
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
    let finalizers: Vec<_> = finalizers.collect();
    let failed = !remains.failures.is_empty();
    let failures = format!(
        "Failed to delete all resource types, {} remaining: {}",
        remains.failures.len(),
        remains.failures.join(", ")
    );
    // All that there is is in the table of resources, so that it is always discovered and parsed.
    let said: [(&str, bool, &str, String); 5] = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        if failed {
            ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", failures)
        } else {
            (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into(),
            )
        },
        if content.is_empty() {
            (
                "NamespaceContentRemaining",
                false,
                "ContentRemoved",
                "All content successfully removed".into(),
            )
        } else {
            let message = format!("Some resources are remaining: {}", content.join(", "));
            ("NamespaceContentRemaining", true, "SomeResourcesRemain", message)
        },
        if finalizers.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".into(),
            )
        } else {
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                finalizers.join(", ")
            );
            ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message)
        },
    ];
    let mut new = old.to_vec();
    for (type_, holds, reason, message) in said {
        let status = if holds { "True" } else { "False" };
        let at = new.iter().position(|condition| condition.type_ == type_);
        let since = at.filter(|at| new[*at].status == status);
        let since = since.and_then(|at| new[at].last_transition_time.clone());
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let condition = NamespaceCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(seconds))),
        };
        match at {
            Some(at) => new[at] = condition,
            None => new.push(condition),
        }
    }
    (new != old).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(conditions: &[NamespaceCondition], type_: &str) -> String {
        let condition = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        format!("{} {}: {}", condition.status, word(&condition.reason), word(&condition.message))
    }

    #[test]
    fn what_holds_a_namespace_up_is_counted_by_resource_and_by_finalizer() {
        let mut remains = Remains::default();
        remains.add("pods.", ["example.com/a", "example.com/b"]);
        remains.add("pods.", ["example.com/a"]);
        remains.add("jobs.batch", []);
        let first = conditions(&[], &remains, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(first.len(), 5);
        assert_eq!(
            said(&first, "NamespaceContentRemaining"),
            "True SomeResourcesRemain: Some resources are remaining: jobs.batch has 1 resource instances, pods. has 2 resource instances"
        );
        assert_eq!(
            said(&first, "NamespaceFinalizersRemaining"),
            "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/a in 2 resource instances, example.com/b in 1 resource instances"
        );
        assert!(
            said(&first, "NamespaceDeletionContentFailure").starts_with("False ContentDeleted")
        );
    }

    #[test]
    fn a_condition_is_written_when_it_says_something_new_and_keeps_its_time_while_it_holds() {
        let mut remains = Remains::default();
        remains.add("pods.", []);
        let early = Timestamp::UNIX_EPOCH;
        let first = conditions(&[], &remains, early).unwrap();
        let late = Timestamp::from_second(60).unwrap();
        assert_eq!(conditions(&first, &remains, late), None);
        remains.add("pods.", []);
        let second = conditions(&first, &remains, late).unwrap();
        assert!(second.iter().all(|condition| condition.last_transition_time == Some(Time(early))));
        remains.failures.push("jobs.batch: no".into());
        let third = conditions(&second, &remains, late).unwrap();
        assert_eq!(
            said(&third, "NamespaceDeletionContentFailure"),
            "True ContentDeletionFailed: Failed to delete all resource types, 1 remaining: jobs.batch: no"
        );
        assert_eq!(third[2].last_transition_time, Some(Time(late)));
    }
}
