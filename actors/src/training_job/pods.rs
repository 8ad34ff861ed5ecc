//! The pods of a job: how they are made, and what is read back of them.

use super::spec::Spec;
use impresario_client::protocol::training::Member;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The label that names the job, for people: what the job owns is known by its uid.
pub const JOB_LABEL: &str = "training.impresario.dev/job";
/// The label that says what a pod does for it.
pub const ROLE_LABEL: &str = "training.impresario.dev/role";
/// The annotation by which a pod's process may join as a guest of a job.
pub const GUEST_ANNOTATION: &str = "impresario.dev/guest";

/// The volume of the folder where a job's checkpoints are.
const CHECKPOINT_VOLUME: &str = "impresario-checkpoint";
/// And of the one that it begins from.
const RESUME_VOLUME: &str = "impresario-resume";

/// A pod as the job sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub member: Member,
    /// Whether it has a node.
    pub bound: bool,
    /// Its address, once its node has said so: nothing of it is reached anywhere else.
    pub address: Option<IpAddr>,
    /// Whether its containers run.
    pub running: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// How it ended, if it has: whether well.
    pub ended: Option<bool>,
}

impl Seen {
    /// Whether it works or may still come to.
    pub fn lives(&self) -> bool {
        !self.deleting && self.ended.is_none()
    }

    /// Whether its process may be there: one that is being deleted has until its grace is over.
    pub fn may_run(&self) -> bool {
        self.bound && self.ended.is_none()
    }

    /// Reads a pod; `None` if it is none of this job's.
    pub fn read(pod: &Value, job_uid: &str) -> Option<Self> {
        let metadata = &pod["metadata"];
        let owned = metadata["ownerReferences"].as_array().is_some_and(|owners| {
            owners.iter().any(|owner| owner["uid"] == job_uid && owner["controller"] == true)
        });
        let member = Member::named(metadata["labels"][ROLE_LABEL].as_str()?)?;
        let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
        owned.then_some(())?;
        Some(Self {
            uid: metadata["uid"].as_str()?.to_owned(),
            name: metadata["name"].as_str()?.to_owned(),
            member,
            bound: pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty()),
            address: pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()),
            running: phase == "Running",
            deleting: !metadata["deletionTimestamp"].is_null(),
            ended: match phase {
                "Succeeded" => Some(true),
                "Failed" => Some(false),
                _ => None,
            },
        })
    }
}

/// A new pod for a job.
pub fn build(job: &Value, spec: &Spec, member: Member) -> Value {
    let role = spec.role(member);
    let (name, uid) = (&job["metadata"]["name"], &job["metadata"]["uid"]);
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        // A name would be the same for all, and a namespace is the job's.
        "metadata": {
            "labels": role.template["metadata"]["labels"].clone(),
            "annotations": role.template["metadata"]["annotations"].clone(),
        },
        "spec": role.template["spec"].clone(),
    });
    let short = match member {
        Member::ParameterServer => "ps",
        Member::Trainer => "trainer",
    };
    let metadata = &mut pod["metadata"];
    for part in ["labels", "annotations"] {
        if !metadata[part].is_object() {
            metadata[part] = json!({});
        }
    }
    metadata["generateName"] = json!(format!("{}-{short}-", name.as_str().unwrap_or("job")));
    metadata["labels"][JOB_LABEL] = name.clone();
    metadata["labels"][ROLE_LABEL] = json!(member.as_str());
    metadata["annotations"][GUEST_ANNOTATION] = uid.clone();
    metadata["ownerReferences"] = json!([{
        "apiVersion": "training.impresario.dev/v1",
        "kind": "TrainingJob",
        "name": name,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    // The job replaces what ends; the node must not start it again with what it has forgotten.
    pod["spec"]["restartPolicy"] = json!("Never");
    // A guest has a credential of its own, for its job alone.
    if pod["spec"]["automountServiceAccountToken"].is_null() {
        pod["spec"]["automountServiceAccountToken"] = json!(false);
    }
    let containers = pod["spec"]["containers"].as_array_mut().into_iter().flatten();
    for (index, container) in containers.enumerate() {
        if let (0, Some(requirements)) = (index, &role.requirements) {
            container["resources"] = requirements.clone();
        }
    }
    if member == Member::ParameterServer {
        let folders = spec.checkpoint.iter().flat_map(|rule| {
            let other = rule.resume_from.as_deref().map(|path| (RESUME_VOLUME, path, true));
            [Some((CHECKPOINT_VOLUME, rule.path.as_str(), false)), other].into_iter().flatten()
        });
        for (volume, path, read_only) in folders {
            mount(&mut pod["spec"], volume, path, read_only);
        }
    }
    pod
}

/// Brings a folder of the machine under its own path into every container, unless the template has a volume there.
fn mount(spec: &mut Value, volume: &str, path: &str, read_only: bool) {
    let is_within = |mount: &Value| {
        let at = mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/');
        path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut brought = false;
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        if !container["volumeMounts"].is_array() {
            container["volumeMounts"] = json!([]);
        }
        let Some(mounts) = container["volumeMounts"].as_array_mut() else { continue };
        if !mounts.iter().any(is_within) {
            mounts.push(json!({ "name": volume, "mountPath": path, "readOnly": read_only }));
            brought = true;
        }
    }
    if !brought {
        return;
    }
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    let kind = if read_only { "Directory" } else { "DirectoryOrCreate" };
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({ "name": volume, "hostPath": { "path": path, "type": kind } }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_made_is_recognised_again() {
        let template = json!({
            "metadata": { "name": "same", "namespace": "other", "labels": { "team": "a" } },
            "spec": { "containers": [{ "name": "main", "image": "x" }] },
        });
        let job = json!({
            "metadata": { "name": "speech", "uid": "u1" },
            "spec": {
                "parameterServer": { "template": template },
                "trainer": { "template": template, "resources": { "requests": { "cpu": "1" } } },
                "stop": { "epochs": 1 },
            },
        });
        let spec = Spec::read(&job).unwrap();
        let mut pod = build(&job, &spec, Member::Trainer);
        assert_eq!(pod["metadata"]["generateName"], "speech-trainer-");
        assert_eq!(pod["metadata"]["labels"]["team"], "a");
        assert_eq!((pod["metadata"].get("name"), pod["metadata"].get("namespace")), (None, None));
        assert_eq!(pod["metadata"]["annotations"][GUEST_ANNOTATION], "u1");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
        pod["metadata"]["uid"] = json!("p1");
        pod["metadata"]["name"] = json!("speech-trainer-x");
        pod["status"] = json!({ "phase": "Failed" });
        let seen = Seen::read(&pod, "u1").unwrap();
        assert_eq!((seen.member, seen.bound, seen.ended), (Member::Trainer, false, Some(false)));
        assert!(!seen.lives());
        assert_eq!(Seen::read(&pod, "another"), None);
    }

    #[test]
    fn parameter_servers_see_the_folders_of_checkpoints_and_a_volume_of_the_template_stands_there()
    {
        let container = json!({ "name": "main", "image": "x" });
        let mut own = container.clone();
        own["volumeMounts"] = json!([{ "name": "disk", "mountPath": "/models" }]);
        let pod = |container: &Value, path: &str, member| {
            let template = json!({ "spec": { "containers": [container] } });
            let job = json!({ "metadata": { "name": "j", "uid": "u" }, "spec": {
                "parameterServer": { "template": template }, "trainer": { "template": template },
                "stop": { "epochs": 1 }, "checkpoint": { "path": path, "resumeFrom": "/old" } } });
            build(&job, &Spec::read(&job).unwrap(), member)
        };
        let made = pod(&container, "/models/speech", Member::ParameterServer);
        let volumes = json!([
            { "name": "impresario-checkpoint",
              "hostPath": { "path": "/models/speech", "type": "DirectoryOrCreate" } },
            { "name": "impresario-resume", "hostPath": { "path": "/old", "type": "Directory" } },
        ]);
        assert_eq!(made["spec"]["volumes"], volumes);
        let mounts = &made["spec"]["containers"][0]["volumeMounts"];
        assert_eq!(mounts[0]["mountPath"], "/models/speech");
        assert_eq!(
            (&mounts[1]["mountPath"], &mounts[1]["readOnly"]),
            (&json!("/old"), &json!(true))
        );
        let made = pod(&own, "/models/speech", Member::ParameterServer);
        assert_eq!(made["spec"]["volumes"], json!([volumes[1]]), "the template's volume is there");
        let made = pod(&own, "/models-of-others", Member::ParameterServer);
        assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 2, "another folder");
        let made = pod(&container, "/models", Member::Trainer);
        assert_eq!(made["spec"].get("volumes"), None);
    }
}
