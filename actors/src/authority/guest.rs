//! A training pod's own process becomes a guest.

use super::{AuthorityParts, GUEST_VALIDITY};
use crate::{change, pod::GUEST_ANNOTATION};
use impresario_client::protocol::authority::{GuestCredential, GuestError, IssueGuest};
use impresario_registry_api::Key;
use impresario_runtime::PeerRole;
use k8s_openapi::api::core::v1;

const JOB_KIND: &str = "TrainingJob";

impl AuthorityParts {
    pub(super) async fn issue_guest(
        self,
        asked: IssueGuest,
    ) -> Result<GuestCredential, GuestError> {
        let key = Key::new("pods", &asked.namespace, &asked.pod);
        let unavailable = |cause: String| GuestError::Unavailable { cause };
        let pod: Option<v1::Pod> = change::get(&self.registry, key)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        may(&asked, pod.as_ref())?;
        let name = format!("guest-{}", asked.uid);
        // The scope is the job: that is whom a guest may talk to.
        let role = PeerRole::Guest { scope: asked.job.clone() };
        let credential = self
            .authority
            .issue(&name, role, &asked.subjects, GUEST_VALIDITY)
            .map_err(|error| GuestError::Signing { cause: error.to_string() })?;
        let peers = self.peers().await.map_err(|error| unavailable(error.to_string()))?;
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

/// Whether the pod is what the node says it is. The annotation alone proves nothing: anyone who
/// may create a pod can write it. The owner is set by the job's controller.
fn may(asked: &IssueGuest, pod: Option<&v1::Pod>) -> Result<(), GuestError> {
    let not_yours = || GuestError::NotYours {
        namespace: asked.namespace.clone(),
        pod: asked.pod.clone(),
        uid: asked.uid.clone(),
        node: asked.node.clone(),
    };
    let pod = pod.ok_or_else(not_yours)?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if pod.metadata.uid.as_deref() != Some(&*asked.uid) || node != Some(&*asked.node) {
        return Err(not_yours());
    }
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(GUEST_ANNOTATION));
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let is_jobs = owners.any(|owner| {
        owner.controller == Some(true) && owner.kind == JOB_KIND && owner.uid == asked.job
    });
    if annotation != Some(&asked.job) || !is_jobs {
        return Err(GuestError::NoGuest {
            namespace: asked.namespace.clone(),
            pod: asked.pod.clone(),
            job: asked.job.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict(pod: Value) -> Result<(), GuestError> {
        let asked = IssueGuest {
            node: "n1".into(),
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u".into(),
            job: "j".into(),
            subjects: vec![],
        };
        let pod: v1::Pod = serde_json::from_value(pod).unwrap();
        may(&asked, Some(&pod))
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
        assert_eq!(verdict(pod("u", "n1", "j", "j")), Ok(()));
        assert!(matches!(verdict(pod("other", "n1", "j", "j")), Err(GuestError::NotYours { .. })));
        assert!(matches!(verdict(pod("u", "n2", "j", "j")), Err(GuestError::NotYours { .. })));
        assert!(matches!(verdict(pod("u", "n1", "other", "j")), Err(GuestError::NoGuest { .. })));
        assert!(matches!(verdict(pod("u", "n1", "j", "other")), Err(GuestError::NoGuest { .. })));
    }
}
