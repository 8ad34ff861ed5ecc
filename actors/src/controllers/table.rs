//! Small words for the tables that test controllers: `a:ready,terminating` is a pod.

use super::engine::view::Part;
use super::mirror::{Mirrored, Seen};
use impresario_registry_api::{Entry, Key};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodSpec,
    PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// An object as a mirror shows it.
pub fn seen<T: Mirrored + Serialize>(object: T) -> Seen<T> {
    let name = object.metadata().name.clone().unwrap();
    let entry = Entry {
        key: Key::new("things", "default", name),
        value: serde_json::to_vec(&object).unwrap().into(),
        create_revision: 1,
        mod_revision: 1,
    };
    Seen { object: Arc::new(object), entry }
}

/// What a controller is shown of these objects.
pub fn part<T: Mirrored + Serialize>(objects: &[Value]) -> Part {
    let one = |object: &Value| seen(serde_json::from_value::<T>(object.clone()).unwrap());
    Part::of(objects.iter().map(one).collect())
}

/// The `N` cells of a row, without the white space around them.
pub fn cells<const N: usize>(row: &str) -> [&str; N] {
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    let count = cells.len();
    cells.try_into().unwrap_or_else(|_| panic!("{count} cells, not {N}, in row {row}"))
}

/// A pod from `name:word,word`: `ready`, `bound`, `unbound`, `terminating`, `failed`,
/// `succeeded`, `orphan` (no owner), `foreign` (another's), `other` (labels do not match),
/// `counted` (without the job's finalizer), `index=N`, `failures=N` (of its index before it), `cost=N`
/// (of its deletion), `node=N`. A higher `age` is a younger pod.
pub fn pod(words: &str, age: usize, owner: &str, app: &str) -> Pod {
    let (name, words) = words.split_once(':').unwrap();
    let words: Vec<&str> = words.split(',').collect();
    let is = |word: &str| words.contains(&word);
    let created = Timestamp::from_second(1_000 + i64::try_from(age).unwrap()).unwrap();
    let phase = match () {
        () if is("failed") => "Failed",
        () if is("succeeded") => "Succeeded",
        () if is("ready") => "Running",
        () => "Pending",
    };
    let owner = if is("foreign") { "somebody" } else { owner };
    let number = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    let numbers: std::collections::BTreeMap<String, String> = [
        ("index=", "batch.kubernetes.io/job-completion-index"),
        ("failures=", "batch.kubernetes.io/job-index-failure-count"),
        ("cost=", "controller.kubernetes.io/pod-deletion-cost"),
    ]
    .into_iter()
    .filter_map(|(word, key)| Some((key.to_owned(), number(word)?.to_owned())))
    .collect();
    let app = if is("other") { "other" } else { app };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            creation_timestamp: Some(Time(created)),
            deletion_timestamp: is("terminating").then_some(Time(created)),
            labels: Some([("app".into(), app.into())].into()),
            annotations: (!numbers.is_empty()).then_some(numbers),
            finalizers: (!is("counted")).then(|| vec!["batch.kubernetes.io/job-tracking".into()]),
            owner_references: (!is("orphan")).then(|| {
                vec![OwnerReference {
                    uid: owner.into(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: (!is("unbound")).then(|| format!("node-{}", number("node=").unwrap_or("1"))),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some(phase.into()),
            pod_ip: is("ready").then(|| format!("127.1.0.{}", age + 1)),
            conditions: is("ready").then(|| {
                vec![PodCondition {
                    type_: "Ready".into(),
                    status: "True".into(),
                    ..PodCondition::default()
                }]
            }),
            container_statuses: (is("failed") || is("succeeded")).then(|| {
                vec![ContainerStatus {
                    state: Some(ContainerState {
                        terminated: Some(ContainerStateTerminated {
                            exit_code: i32::from(is("failed")),
                            finished_at: Some(Time(created)),
                            ..ContainerStateTerminated::default()
                        }),
                        ..ContainerState::default()
                    }),
                    ..ContainerStatus::default()
                }]
            }),
            ..PodStatus::default()
        }),
    }
}
