//! The token with which a pod speaks to the API: as its service account, while the pod is there.

use super::AuthorityParts;
use super::rations::Rations;
use crate::change;
use impresario_client::protocol::authority::{
    AccountToken, AccountTokenError, IssueAccountToken, KeepAccountToken,
};
use impresario_client::tokens::{self, BoundPod, StoredToken};
use impresario_objects::accounts::{BoundTo, Wanted};
use impresario_registry_api::{
    Entry, Key, ListRequest, ReadError, Remedy, Revision, Selection, Transaction,
};
use impresario_runtime::clock;
use k8s_openapi::api::core::v1;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What says of a pod that it is a picture of one that its node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Tokens that a pod may have: its node makes one each time that it prepares the pod.
const TOKENS_OF_A_POD: usize = 4;
/// Pods that are read at a time.
const PAGE: usize = 1000;

impl AuthorityParts {
    pub(super) async fn keep_account_token(
        self,
        asked: KeepAccountToken,
        rations: Arc<Rations>,
    ) -> Result<(), AccountTokenError> {
        let unavailable = |cause: String| AccountTokenError::Unavailable { cause };
        let key = Key::new("pods", &asked.namespace, &asked.pod);
        let found: Option<v1::Pod> = change::get(&self.registry, key)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let which = Asked {
            node: &asked.node,
            namespace: &asked.namespace,
            pod: &asked.pod,
            uid: &asked.uid,
        };
        let account = account(&which, found.as_ref())?.to_owned();
        if !tokens::is_hash(&asked.hash) {
            return Err(AccountTokenError::BadDigest);
        }
        if !rations.take(&asked.uid, clock::now()) {
            tracing::warn!(node = %asked.node, namespace = %asked.namespace, pod = %asked.pod, "too many tokens are asked for");
            return Err(unavailable("the pod got many in a short time".into()));
        }
        let pod = BoundPod { namespace: asked.namespace, name: asked.pod, uid: asked.uid };
        let namespace = &pod.namespace;
        let token = StoredToken {
            user: format!("system:serviceaccount:{namespace}:{account}"),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ],
            expires: None,
            pod: Some(pod),
        };
        let value = serde_json::to_vec(&token).map_err(|error| unavailable(error.to_string()))?;
        let key = tokens::key(&asked.hash);
        match self.registry.transact(Transaction::create(key.clone(), value)).await {
            Ok(_) => {
                self.tokens_kept.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) if error.remedy() == Remedy::ReadAgain => {}
            Err(error) => return Err(unavailable(error.to_string())),
        }
        // Something is there, or the answer was lost: fine if it is this very token.
        let kept: Option<StoredToken> = change::get(&self.registry, key)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        match kept {
            Some(kept) if kept == token => Ok(()),
            Some(_) => Err(AccountTokenError::BadDigest),
            None => Err(unavailable("somebody else was quicker".into())),
        }
    }

    /// A signed token of the account of a pod that is bound to the node that asks. It ends with the pod.
    pub(super) async fn issue_account_token(
        self,
        asked: IssueAccountToken,
        rations: Arc<Rations>,
    ) -> Result<AccountToken, AccountTokenError> {
        let unavailable = |cause: String| AccountTokenError::Unavailable { cause };
        let key = Key::new("pods", &asked.namespace, &asked.pod);
        let found: Option<v1::Pod> = change::get(&self.registry, key)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let which = Asked {
            node: &asked.node,
            namespace: &asked.namespace,
            pod: &asked.pod,
            uid: &asked.uid,
        };
        let account = account(&which, found.as_ref())?.to_owned();
        if !rations.take(&asked.uid, clock::now()) {
            tracing::warn!(node = %asked.node, namespace = %asked.namespace, pod = %asked.pod, "too many tokens are asked for");
            return Err(unavailable("the pod got many in a short time".into()));
        }
        let bound = BoundTo {
            kind: "Pod".into(),
            api_version: "v1".into(),
            name: asked.pod,
            uid: asked.uid,
        };
        let wanted =
            Wanted { audiences: asked.audiences, seconds: asked.seconds, bound: Some(bound) };
        let issued = self.accounts.issue(&asked.namespace, &account, wanted).await;
        let issued = issued.map_err(|status| unavailable(status.message))?;
        Ok(AccountToken { token: issued.token, expires_unix_seconds: issued.expires.as_second() })
    }

    /// Forgets tokens whose pods are gone, and all but the newest few of a pod: it has one for each time
    /// that its node prepared it. A sweep that fails is made up for by the next.
    pub(super) async fn sweep(self) {
        let tokens = async {
            let tokens =
                self.registry.list(ListRequest::of(Selection::all(tokens::RESOURCE))).await?;
            // Pods after tokens: no pod is missing whose token is there.
            let mut request =
                ListRequest { limit: Some(PAGE), ..ListRequest::of(Selection::all("pods")) };
            let mut alive = HashSet::new();
            loop {
                let page = self.registry.list(request.clone()).await?;
                alive.extend(page.entries.iter().filter_map(uid));
                let last = page.entries.last().map(|entry| &entry.key);
                request.after = last.map(|key| (key.namespace.clone(), key.name.clone()));
                if page.remaining == 0 || request.after.is_none() {
                    return Ok::<_, ReadError>((tokens.entries, alive));
                }
            }
        };
        let (tokens, alive) = match tokens.await {
            Ok(found) => found,
            Err(error) => return tracing::debug!(%error, "tokens are swept later"),
        };
        for (key, revision) in superfluous(tokens, &alive) {
            if let Err(error) = self.registry.transact(Transaction::remove(key, revision)).await {
                tracing::debug!(%error, "a token without a pod stays for now");
                return;
            }
        }
    }
}

fn uid(pod: &Entry) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        uid: String,
    }
    let object: Object = serde_json::from_slice(&pod.value).ok()?;
    Some(object.metadata.uid)
}

/// The tokens that nobody needs: of pods that are gone, and older ones of those that are there.
fn superfluous(mut tokens: Vec<Entry>, alive: &HashSet<String>) -> Vec<(Key, Revision)> {
    tokens.sort_by_key(|entry| Reverse(entry.create_revision));
    let mut held: HashMap<String, usize> = HashMap::new();
    let mut is_superfluous = |entry: &Entry| {
        let token: Option<StoredToken> = serde_json::from_slice(&entry.value).ok();
        let Some(pod) = token.and_then(|token| token.pod) else { return false };
        let is_alive = alive.contains(&pod.uid);
        let count = held.entry(pod.uid).or_default();
        *count += 1;
        !is_alive || *count > TOKENS_OF_A_POD
    };
    let over = tokens.into_iter().filter(|entry| is_superfluous(entry));
    over.map(|entry| (entry.key, entry.mod_revision)).collect()
}

/// Which pod a node asks for.
struct Asked<'a> {
    node: &'a str,
    namespace: &'a str,
    pod: &'a str,
    uid: &'a str,
}

/// The pod's account, if the pod is what the node says it is.
fn account<'a>(asked: &Asked<'_>, pod: Option<&'a v1::Pod>) -> Result<&'a str, AccountTokenError> {
    let spec = pod
        .filter(|pod| pod.metadata.uid.as_deref() == Some(asked.uid))
        // The picture of a pod that its node made itself speaks for nobody.
        .filter(|pod| !is_mirror(pod))
        .and_then(|pod| pod.spec.as_ref())
        .filter(|spec| spec.node_name.as_deref() == Some(asked.node));
    match spec {
        Some(spec) => Ok(spec.service_account_name.as_deref().unwrap_or("default")),
        None => Err(AccountTokenError::NotYours {
            namespace: asked.namespace.to_owned(),
            pod: asked.pod.to_owned(),
            uid: asked.uid.to_owned(),
            node: asked.node.to_owned(),
        }),
    }
}

fn is_mirror(pod: &v1::Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
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
        let asked =
            |node: &'static str, uid: &'static str| Asked { node, namespace: "ns", pod: "p", uid };
        assert_eq!(account(&asked("n1", "u"), Some(&pod)), Ok("robot"));
        assert!(account(&asked("n2", "u"), Some(&pod)).is_err());
        assert!(account(&asked("n1", "other"), Some(&pod)).is_err());
        assert!(account(&asked("n1", "u"), None).is_err());
        let mut mirror = pod.clone();
        mirror.metadata.annotations = Some([(MIRROR.to_owned(), "x".to_owned())].into());
        assert!(account(&asked("n1", "u"), Some(&mirror)).is_err(), "made by its node");
    }

    #[test]
    fn tokens_go_with_their_pods_and_a_pod_has_a_few() {
        let entry = |number: u64, pod: Option<&str>| {
            let pod = pod.map(|uid| json!({"namespace": "ns", "name": "p", "uid": uid}));
            Entry {
                key: tokens::key(&number.to_string()),
                value: json!({"user": "u", "pod": pod}).to_string().into(),
                create_revision: number,
                mod_revision: number,
            }
        };
        let mut all: Vec<_> = (1..=6).map(|number| entry(number, Some("here"))).collect();
        all.extend([entry(7, Some("gone")), entry(8, None)]);
        let over = superfluous(all, &HashSet::from(["here".to_owned()]));
        let over: HashSet<_> = over.into_iter().map(|(_, revision)| revision).collect();
        assert_eq!(over, HashSet::from([1, 2, 7]));
    }
}
