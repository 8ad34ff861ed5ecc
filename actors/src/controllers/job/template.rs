//! The pods of a job, from its template.

use super::super::owned::{self, Owner};
use super::plan::{INDEX, INDEX_FAILURES, INDEX_IGNORED, Place, TRACKING};
use serde_json::{Value, json};

/// The variable in which containers find the index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The longest name of a host.
const HOSTNAME_MAX: usize = 63;

/// A new pod of `job`, at its place in an indexed one.
pub(super) fn pod(job: &Value, place: Option<Place>) -> Value {
    let owner = Owner { object: job, api_version: "batch/v1", kind: "Job" };
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    let base = place.map_or_else(|| name.to_owned(), |place| format!("{name}-{}", place.index));
    let mut pod = owned::pod_from(&job["spec"]["template"], &owner, &base);
    let metadata = &mut pod["metadata"];
    match metadata["finalizers"].as_array_mut() {
        _ if impresario_runtime::mutant!(FinalizerForgotten) => {}
        Some(list) => list.push(TRACKING.into()),
        None => metadata["finalizers"] = json!([TRACKING]),
    }
    let Some(Place { index, failures }) = place else { return pod };
    metadata["labels"][INDEX] = index.to_string().into();
    metadata["annotations"][INDEX] = index.to_string().into();
    if let Some((counted, ignored)) = failures {
        metadata["annotations"][INDEX_FAILURES] = counted.to_string().into();
        if ignored > 0 {
            metadata["annotations"][INDEX_IGNORED] = ignored.to_string().into();
        }
    }
    let spec = &mut pod["spec"];
    // A name with dots, or too long a one, is no host's; the pod has its own name for that.
    if base.len() <= HOSTNAME_MAX && !base.contains('.') {
        spec["hostname"] = base.into();
    }
    for containers in ["containers", "initContainers"] {
        let list = spec.get_mut(containers).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            let variables = container["env"].as_array();
            if variables.into_iter().flatten().any(|variable| variable["name"] == VARIABLE) {
                continue; // what the container says itself
            }
            let path = format!("metadata.annotations['{INDEX}']");
            let source = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
            let variable = json!({"name": VARIABLE, "valueFrom": source});
            match container["env"].as_array_mut() {
                Some(variables) => variables.push(variable),
                None => container["env"] = json!([variable]),
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Value {
        json!({
            "metadata": {"name": name, "uid": "u1"},
            "spec": {"template": {"spec": {"containers": [
                {"name": "own", "env": [{"name": VARIABLE, "value": "mine"}]},
                {"name": "given"},
            ]}}},
        })
    }

    #[test]
    fn a_pod_of_an_indexed_job_is_told_its_index_unless_it_says_one_itself() {
        let place = Place { index: 3, failures: Some((2, 0)) };
        let pod = pod(&job("parts"), Some(place));
        let metadata = &pod["metadata"];
        assert_eq!(metadata["generateName"], "parts-3-");
        assert_eq!(
            (&metadata["labels"][INDEX], &metadata["annotations"][INDEX]),
            (&json!("3"), &json!("3"))
        );
        assert_eq!(metadata["annotations"][INDEX_FAILURES], "2");
        assert!(metadata["annotations"].get(INDEX_IGNORED).is_none());
        assert_eq!(metadata["finalizers"], json!([TRACKING]));
        assert_eq!(pod["spec"]["hostname"], "parts-3");
        let containers = &pod["spec"]["containers"];
        assert_eq!(containers[0]["env"], json!([{"name": VARIABLE, "value": "mine"}]));
        let given = &containers[1]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"];
        assert_eq!(given, "metadata.annotations['batch.kubernetes.io/job-completion-index']");
        assert!(pod["spec"].get("initContainers").is_none());
    }

    #[test]
    fn a_name_that_no_host_can_have_is_left_out() {
        let place = Place { index: 0, failures: None };
        for name in ["with.dots".to_owned(), "n".repeat(62)] {
            assert!(pod(&job(&name), Some(place))["spec"].get("hostname").is_none(), "{name}");
        }
    }
}
