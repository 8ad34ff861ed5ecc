//! A training pod's own process becomes a guest.

use super::{AuthorityParts, GUEST_VALIDITY};
use crate::change::{self, ChangeError};
use crate::pod::GUEST_ANNOTATION;
use impresario_client::protocol::authority::{GuestCredential, GuestError, IssueGuest};
use impresario_registry_api::Key;
use impresario_runtime::PeerRole;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

const JOB_KIND: &str = "TrainingJob";
const JOB_GROUP: &str = "training.impresario.dev";
const JOBS: &str = "training.impresario.dev/trainingjobs";

/// What matters of a training job here.
#[derive(Deserialize)]
struct Job {
    metadata: ObjectMeta,
}

impl AuthorityParts {
    pub(super) async fn issue_guest(
        self,
        asked: IssueGuest,
    ) -> Result<GuestCredential, GuestError> {
        let key = Key::new("pods", &asked.namespace, &asked.pod);
        let unavailable = |error: ChangeError| GuestError::Unavailable { cause: error.to_string() };
        let pod: Option<v1::Pod> = change::get(&self.registry, key).await.map_err(unavailable)?;
        let claimed = may(&asked, pod.as_ref())?;
        // Who creates a pod writes its owners as well: what they name must be there.
        let key = Key::new(JOBS, &asked.namespace, claimed);
        let job: Option<Job> = change::get(&self.registry, key).await.map_err(unavailable)?;
        is_job(&asked, job.as_ref())?;
        let name = format!("guest-{}", asked.uid);
        // The scope is the job: that is whom a guest may talk to.
        let role = PeerRole::Guest { scope: asked.job.clone() };
        let credential = self
            .authority
            .issue(&name, role, &[], GUEST_VALIDITY)
            .map_err(|error| GuestError::Signing { cause: error.to_string() })?;
        let peers = self.peers().await.map_err(|error| unavailable(error.into()))?;
        tracing::info!(%name, pod = %asked.pod, namespace = %asked.namespace, job = %asked.job, "guest credential issued");
        Ok(GuestCredential {
            certificate_pem: credential.certificate_pem().to_owned(),
            key_pem: credential.key_pem().to_owned(),
            authority_pem: credential.authority_pem().to_owned(),
            name,
            peers: peers
                .into_iter()
                .filter(|peer| peer.control || peer.name == asked.node)
                .collect(),
        })
    }
}

/// Whether the pod is what the node says it is, as far as the pod itself tells. Gives the name of the job
/// that it says is its controller.
fn may<'a>(asked: &IssueGuest, pod: Option<&'a v1::Pod>) -> Result<&'a str, GuestError> {
    let not_yours = || GuestError::NotYours {
        namespace: asked.namespace.clone(),
        pod: asked.pod.clone(),
        uid: asked.uid.clone(),
        node: asked.node.clone(),
    };
    let pod = pod.ok_or_else(not_yours)?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let is_going = pod.metadata.deletion_timestamp.is_some();
    if pod.metadata.uid.as_deref() != Some(&*asked.uid) || node != Some(&*asked.node) || is_going {
        return Err(not_yours());
    }
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(GUEST_ANNOTATION));
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let job = owners.find(|owner| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        owner.controller == Some(true)
            && owner.kind == JOB_KIND
            && group == JOB_GROUP
            && owner.uid == asked.job
    });
    match job {
        Some(job) if annotation == Some(&asked.job) => Ok(&job.name),
        _ => Err(no_guest(asked)),
    }
}

/// Whether the job that the pod names is there, in the pod's namespace, and is to stay.
fn is_job(asked: &IssueGuest, job: Option<&Job>) -> Result<(), GuestError> {
    let is = job.is_some_and(|job| {
        job.metadata.uid.as_deref() == Some(&*asked.job)
            && job.metadata.deletion_timestamp.is_none()
    });
    if is { Ok(()) } else { Err(no_guest(asked)) }
}

fn no_guest(asked: &IssueGuest) -> GuestError {
    GuestError::NoGuest {
        namespace: asked.namespace.clone(),
        pod: asked.pod.clone(),
        job: asked.job.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked() -> IssueGuest {
        IssueGuest {
            node: "n1".into(),
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u".into(),
            job: "j".into(),
            subjects: vec![],
        }
    }

    fn verdict(pod: Value) -> Result<String, GuestError> {
        let pod: v1::Pod = serde_json::from_value(pod).unwrap();
        may(&asked(), Some(&pod)).map(str::to_owned)
    }

    fn pod(uid: &str, node: &str, guest: &str, owner: &str) -> Value {
        json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": uid, "annotations": {GUEST_ANNOTATION: guest},
                "ownerReferences": [{"apiVersion": "training.impresario.dev/v1", "kind": "TrainingJob",
                    "name": "job", "uid": owner, "controller": true}]},
            "spec": {"nodeName": node, "containers": []}
        })
    }

    #[test]
    fn only_the_job_s_own_pod_on_the_asking_node_becomes_a_guest() {
        assert_eq!(verdict(pod("u", "n1", "j", "j")), Ok("job".into()));
        assert!(matches!(verdict(pod("other", "n1", "j", "j")), Err(GuestError::NotYours { .. })));
        assert!(matches!(verdict(pod("u", "n2", "j", "j")), Err(GuestError::NotYours { .. })));
        assert!(matches!(verdict(pod("u", "n1", "other", "j")), Err(GuestError::NoGuest { .. })));
        assert!(matches!(verdict(pod("u", "n1", "j", "other")), Err(GuestError::NoGuest { .. })));
        let mut of_others = pod("u", "n1", "j", "j");
        of_others["metadata"]["ownerReferences"][0]["apiVersion"] = "example.org/v1".into();
        assert!(matches!(verdict(of_others), Err(GuestError::NoGuest { .. })));
        let mut going = pod("u", "n1", "j", "j");
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(matches!(verdict(going), Err(GuestError::NotYours { .. })));
    }

    #[test]
    fn a_job_that_is_not_there_or_goes_has_no_guests() {
        let job = |metadata: Value| -> Job {
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        assert!(is_job(&asked(), Some(&job(json!({"uid": "j"})))).is_ok());
        let going = json!({"uid": "j", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        for wrong in [Some(job(json!({"uid": "other"}))), Some(job(going)), None] {
            assert!(matches!(is_job(&asked(), wrong.as_ref()), Err(GuestError::NoGuest { .. })));
        }
    }
}
