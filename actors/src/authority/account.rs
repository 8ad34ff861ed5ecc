//! The token with which a pod speaks to the API: as its service account, while the pod is there.

use super::AuthorityParts;
use crate::change;
use impresario_client::protocol::authority::{AccountTokenError, KeepAccountToken};
use impresario_client::tokens::{self, BoundPod, StoredToken};
use impresario_registry_api::{Key, ListRequest, Operation, Selection, Transaction};
use k8s_openapi::api::core::v1;
use std::collections::HashSet;

/// What says of a pod that it is a picture of one that its node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Tokens above which those of pods that are gone are swept out first.
const SWEEP_ABOVE: usize = 1024;

impl AuthorityParts {
    pub(super) async fn keep_account_token(
        self,
        asked: KeepAccountToken,
    ) -> Result<(), AccountTokenError> {
        let unavailable = |cause: String| AccountTokenError::Unavailable { cause };
        let key = Key::new("pods", &asked.namespace, &asked.pod);
        let found: Option<v1::Pod> = change::get(&self.registry, key)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let account = account(&asked, found.as_ref())?;
        if !is_digest(&asked.hash) {
            return Err(unavailable("the digest of a token is 64 hexadecimal digits".to_owned()));
        }
        self.sweep().await;
        let token = StoredToken {
            user: format!("system:serviceaccount:{}:{account}", asked.namespace),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{}", asked.namespace),
                "system:authenticated".into(),
            ],
            expires: None,
            pod: Some(BoundPod { namespace: asked.namespace, name: asked.pod, uid: asked.uid }),
        };
        let value = serde_json::to_vec(&token).map_err(|error| unavailable(error.to_string()))?;
        let operation = Operation::Put { key: tokens::key(&asked.hash), value: value.into() };
        let transaction = Transaction { operations: vec![operation], ..Transaction::default() };
        self.registry
            .transact(transaction)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        Ok(())
    }

    /// Forgets tokens whose pods are gone. A sweep that fails is made up for by the next.
    async fn sweep(&self) {
        let Ok(kept) = self.registry.list(ListRequest::of(Selection::all(tokens::RESOURCE))).await
        else {
            return;
        };
        if kept.entries.len() <= SWEEP_ABOVE {
            return;
        }
        let Ok(pods) = self.registry.list(ListRequest::of(Selection::all("pods"))).await else {
            return;
        };
        let alive: HashSet<String> = pods
            .entries
            .iter()
            .filter_map(|entry| change::decode::<v1::Pod>(entry).ok()?.metadata.uid)
            .collect();
        for entry in kept.entries {
            let token: Option<StoredToken> = serde_json::from_slice(&entry.value).ok();
            let pod = token.and_then(|token| token.pod);
            if pod.is_some_and(|pod| !alive.contains(&pod.uid)) {
                let remove = Transaction::remove(entry.key, entry.mod_revision);
                if let Err(error) = self.registry.transact(remove).await {
                    tracing::debug!(%error, "a token without a pod stays for now");
                    return;
                }
            }
        }
    }
}

/// The pod's account, if the pod is what the node says it is.
fn account<'a>(
    asked: &KeepAccountToken,
    pod: Option<&'a v1::Pod>,
) -> Result<&'a str, AccountTokenError> {
    let spec = pod
        .filter(|pod| pod.metadata.uid.as_deref() == Some(&asked.uid))
        // The picture of a pod that its node made itself speaks for nobody.
        .filter(|pod| !is_mirror(pod))
        .and_then(|pod| pod.spec.as_ref())
        .filter(|spec| spec.node_name.as_deref() == Some(&asked.node));
    match spec {
        Some(spec) => Ok(spec.service_account_name.as_deref().unwrap_or("default")),
        None => Err(AccountTokenError::NotYours {
            namespace: asked.namespace.clone(),
            pod: asked.pod.clone(),
            uid: asked.uid.clone(),
            node: asked.node.clone(),
        }),
    }
}

fn is_mirror(pod: &v1::Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
}

/// Whether a text is what [`tokens::hash_token`] makes.
fn is_digest(hash: &str) -> bool {
    hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_node_of_a_pod_gets_a_token_for_its_account() {
        let pod: v1::Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {"nodeName": "n1", "serviceAccountName": "robot", "containers": []}}))
        .unwrap();
        let asked = |node: &str, uid: &str| KeepAccountToken {
            node: node.into(),
            namespace: "ns".into(),
            pod: "p".into(),
            uid: uid.into(),
            hash: "h".into(),
        };
        assert_eq!(account(&asked("n1", "u"), Some(&pod)), Ok("robot"));
        assert!(account(&asked("n2", "u"), Some(&pod)).is_err());
        assert!(account(&asked("n1", "other"), Some(&pod)).is_err());
        assert!(account(&asked("n1", "u"), None).is_err());
        let mut mirror = pod.clone();
        mirror.metadata.annotations = Some([(MIRROR.to_owned(), "x".to_owned())].into());
        assert!(account(&asked("n1", "u"), Some(&mirror)).is_err(), "made by its node");
        assert!(is_digest(&tokens::hash_token("secret")));
        assert!(!is_digest("../x") && !is_digest(&"A".repeat(64)) && !is_digest(&"a".repeat(65)));
    }
}
