//! A credential that tries what is not its own.

use super::{Cluster, LIMIT, NODE_NAME, PLANTED, kind};
use bytes::Bytes;
use futures_util::StreamExt as _;
use impresario_api::status::{Reason, Status};
use impresario_client::protocol::authority::{
    AUTHORITY, AccountTokenError, AuthorityRole, GuestError, IssueAccountToken, IssueGuest,
    JoinRole, KeepAccountToken, Renew, RenewError,
};
use impresario_objects::protocol::{self as objects, OBJECTS_ACTOR, ObjectsRole, Sender};
use impresario_objects::{
    Binding, DeleteOptions, Door, Patch, RemoteDoor, RemoteObjects, WriteOptions,
};
use impresario_registry::protocol as registry;
use impresario_registry::{
    Consistency, Entry, Key, ListRequest, REGISTRY_ACTOR, ReadError, Registry as _, RegistryRole,
    Selection, TransactError, Transaction, WatchError, WatchRequest,
};
use impresario_runtime::pki::KeyRequest;
use impresario_runtime::{ActorNode, ActorPath, AskError, NodeName, PeerRole};
use serde_json::{Value, json};
use std::fmt::Display;

/// What a member that does not do something says.
pub(super) trait Answer: Display {
    /// Whether it says that who asks may not have it; not that it failed, was late or was not understood.
    fn is_refusal(&self) -> bool;
}

impl Answer for AskError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl Answer for TransactError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl Answer for ReadError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl Answer for WatchError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl Answer for Status {
    fn is_refusal(&self) -> bool {
        self.reason == Reason::Forbidden
    }
}

impl Answer for AccountTokenError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::NotYours { .. })
    }
}

impl Answer for GuestError {
    fn is_refusal(&self) -> bool {
        matches!(self, Self::NotYours { .. })
    }
}

impl Answer for RenewError {
    fn is_refusal(&self) -> bool {
        false // It would have been asked for, and came to something else.
    }
}

/// A credential, and what came of what it tried.
pub(super) struct Intruder {
    pub(super) node: ActorNode,
    pub(super) door: RemoteDoor,
    pub(super) objects: RemoteObjects,
    pub(super) member: NodeName,
    pub(super) tried: Vec<(String, bool)>,
}

impl Intruder {
    pub(super) fn tries<T, E: Answer>(&mut self, what: &str, outcome: Result<T, E>) {
        self.tried.push((what.into(), outcome.is_ok()));
        if let Err(refusal) = outcome {
            let is_refusal = refusal.is_refusal();
            let refusal = refusal.to_string();
            // A cluster that answers nobody would give nothing away either.
            assert!(is_refusal, "{what} came to nothing for another reason: {refusal}");
            assert!(
                !refusal.contains(PLANTED),
                "{what} is answered with what it may not see: {refusal}"
            );
        }
    }

    /// As [`Self::tries`], of an answer that may be a refusal itself.
    fn asked<T, E: Answer>(&mut self, what: &str, outcome: Result<Result<T, E>, AskError>) {
        match outcome {
            Ok(answer) => self.tries(what, answer),
            Err(error) => self.tries::<T, _>(what, Err(error)),
        }
    }

    pub(super) fn passed(&self) -> Vec<&str> {
        self.tried.iter().filter(|(_, passed)| *passed).map(|(what, _)| what.as_str()).collect()
    }

    /// Messages to the registry itself.
    pub(super) async fn raw(&mut self, cluster: &Cluster) {
        let member =
            self.node.actor::<RegistryRole>(ActorPath::new(self.member.clone(), REGISTRY_ACTOR));
        let other = cluster.entry("pods", "default", "other").await;
        let mut stolen: Value = serde_json::from_slice(&other.value).unwrap();
        stolen["spec"]["nodeName"] = "n1".into();
        let stolen = Bytes::from(stolen.to_string());
        let writes = [
            (
                "raw: steal a pod",
                Transaction::update(other.key.clone(), other.mod_revision, stolen),
            ),
            ("raw: delete a pod", Transaction::new().delete(other.key.clone())),
            ("raw: invent a pod", Transaction::create(Key::new("pods", "default", "new"), "{}")),
            (
                "raw: write a secret",
                Transaction::new().put(Key::new("secrets", "default", "key"), "{}"),
            ),
            ("raw: write a Node", Transaction::new().put(Key::new("nodes", "", "n2"), "{}")),
            (
                "raw: write a token",
                Transaction::create(Key::new("impresario.dev/tokens", "", "ab"), "{}"),
            ),
            ("raw: an event", Transaction::create(Key::new("events", "default", "e"), "{}")),
        ];
        for (what, transaction) in writes {
            let lead = member.ask(registry::LeadTransact(transaction.clone()), LIMIT).await;
            self.tries(&format!("{what}, to the leader"), lead);
            let answer = member.ask(registry::Transact(transaction), LIMIT).await;
            self.tries(what, answer);
        }
        for resource in ["secrets", "pods", "impresario.dev/tokens", "nodes"] {
            let key = Key::new(resource, "default", "foreign");
            let get = registry::Get { key, consistency: Consistency::Local };
            let answer = member.ask(get, LIMIT).await;
            self.tries(&format!("raw: get {resource}"), answer);
            let list = registry::List(ListRequest::of(Selection::all(resource)));
            let answer = member.ask(list, LIMIT).await;
            self.tries(&format!("raw: list {resource}"), answer);
            let select = Selection::all(resource);
            let follow = registry::Follow(WatchRequest { select, after: 0, bookmarks: true });
            let answer = member.open(follow, LIMIT).await;
            self.tries(&format!("raw: follow {resource}"), answer);
        }
        let join = registry::Join { disk: 7, node: "n1".into() };
        let answer = member.ask(join, LIMIT).await;
        self.tries("raw: become a member", answer);
    }

    /// Under another's name or role.
    pub(super) async fn forged(&mut self) {
        let door =
            self.node.actor::<ObjectsRole>(ActorPath::new(self.member.clone(), OBJECTS_ACTOR));
        for (name, role) in [
            ("n2", PeerRole::Node),
            ("m1", PeerRole::Control),
            ("admin", PeerRole::Admin),
            ("n1", PeerRole::Control),
        ] {
            let sender = Sender { name: name.into(), role };
            let what = format!("as {name} ({:?})", sender.role);
            let key = Key::new("secrets", "default", "foreign");
            let get = objects::Get { sender: sender.clone(), key, consistency: Consistency::Local };
            let answer = door.ask(get, LIMIT).await;
            self.tries(&format!("{what}: get a secret"), answer);
            let delete = objects::Delete {
                sender,
                resource: "pods".into(),
                namespace: "default".into(),
                name: "other".into(),
                grace_period_seconds: Some(0),
                propagation: String::new(),
                uid: None,
                resource_version: None,
                dry_run: false,
            };
            let answer = door.ask(delete, LIMIT).await;
            self.tries(&format!("{what}: delete a pod"), answer);
        }
    }

    /// Reads and writes of what is not its own, through the door that is there for it.
    pub(super) async fn through_the_door(&mut self, cluster: &Cluster) {
        let options = WriteOptions::default();
        let settle = |entry: &Entry, change: &dyn Fn(&mut Value)| {
            let mut object: Value = serde_json::from_slice(&entry.value).unwrap();
            change(&mut object);
            Transaction::update(entry.key.clone(), entry.mod_revision, object.to_string())
        };
        let entry = |resource: &'static str, namespace: &'static str, name: &'static str| {
            cluster.entry(resource, namespace, name)
        };
        let (mine, other, free) = (
            entry("pods", "default", "mine").await,
            entry("pods", "default", "other").await,
            entry("pods", "default", "free").await,
        );
        let (n1, n2) = (entry("nodes", "", "n1").await, entry("nodes", "", "n2").await);
        let writes = [
            ("steal a pod", settle(&other, &|pod| pod["spec"]["nodeName"] = "n1".into())),
            (
                "take a pod that is free",
                settle(&free, &|pod| pod["spec"]["nodeName"] = "n1".into()),
            ),
            ("fail another's pod", settle(&other, &|pod| pod["status"]["phase"] = "Failed".into())),
            (
                "give a pod another account",
                settle(&mine, &|pod| pod["spec"]["serviceAccountName"] = "default".into()),
            ),
            (
                "give a pod labels",
                settle(&mine, &|pod| pod["metadata"]["labels"]["app"] = "web".into()),
            ),
            ("give a pod away", settle(&mine, &|pod| pod["spec"]["nodeName"] = "n2".into())),
            (
                "make a pod a guest",
                settle(&mine, &|pod| {
                    pod["metadata"]["annotations"]["impresario.dev/guest"] = "j".into();
                }),
            ),
            (
                "a status that nobody can read",
                settle(&mine, &|pod| pod["status"] = "broken".into()),
            ),
            ("delete another's pod", Transaction::remove(other.key.clone(), other.mod_revision)),
            ("delete a pod that is free", Transaction::remove(free.key.clone(), free.mod_revision)),
            (
                "invent a pod",
                Transaction::create(Key::new("pods", "default", "new"), {
                    let mut new: Value = serde_json::from_slice(&other.value).unwrap();
                    new["metadata"]["name"] = "new".into();
                    new.to_string()
                }),
            ),
            (
                "its own role label",
                settle(&n1, &|node| {
                    node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = "".into();
                }),
            ),
            (
                "a label for isolation",
                settle(&n1, &|node| {
                    node["metadata"]["labels"]["node-restriction.kubernetes.io/x"] = "y".into();
                }),
            ),
            (
                "its own owner",
                settle(&n1, &|node| {
                    node["metadata"]["ownerReferences"] =
                        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]);
                }),
            ),
            (
                "its own taints",
                settle(&n1, &|node| {
                    node["spec"]["taints"] = json!([{"key": "k", "effect": "NoExecute"}]);
                }),
            ),
            ("another Node", settle(&n2, &|node| node["spec"]["unschedulable"] = true.into())),
            ("delete another Node", Transaction::remove(n2.key.clone(), n2.mod_revision)),
            ("delete its Node", Transaction::remove(n1.key.clone(), n1.mod_revision)),
            ("two objects at once", {
                let second = Transaction::remove(n1.key.clone(), n1.mod_revision);
                let mut both = Transaction::remove(mine.key.clone(), mine.mod_revision);
                both.operations.extend(second.operations);
                both
            }),
        ];
        for (what, transaction) in writes {
            let answer = self.door.transact(transaction).await;
            self.tries(what, answer);
        }
        for (resource, name) in [
            ("secrets", "foreign"),
            ("configmaps", "foreign"),
            ("pods", "other"),
            ("pods", "free"),
            ("impresario.dev/tokens", "ab"),
            ("batch/jobs", "j"),
        ] {
            let key = Key::new(resource, "default", name);
            let answer = self.door.get(key, Consistency::Linearizable).await;
            self.tries(&format!("get {resource} {name}"), answer);
        }
        let selections = [
            Selection::all("secrets"),
            Selection::all("secrets").within("default").named("key"),
            Selection::all("configmaps"),
            Selection::all("pods"),
            Selection::all("pods").with_field(NODE_NAME, "n2"),
            Selection::all("impresario.dev/tokens"),
        ];
        for select in selections {
            let what = format!("{select:?}");
            let answer = self.door.list(ListRequest::of(select.clone())).await;
            self.tries(&format!("list {what}"), answer);
            let mut watch =
                self.door.watch(WatchRequest { select, after: 1, bookmarks: true }).await.unwrap();
            self.tries(&format!("follow {what}"), watch.next().await.unwrap());
        }
        let outcome = self.objects.bind("default", "free", &Binding::to("n1"), &options).await;
        self.tries("bind a pod", outcome);
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        for (plural, name) in
            [("pods", "other"), ("pods", "free"), ("secrets", "key"), ("nodes", "n1")]
        {
            let outcome = self.objects.delete(&kind(plural), "default", name, &now, &options).await;
            self.tries(&format!("delete {plural} {name}"), outcome);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
        for (plural, name) in
            [("pods", "mine"), ("pods", "other"), ("secrets", "key"), ("nodes", "n2")]
        {
            let outcome = self
                .objects
                .patch(&kind(plural), Door::Main, "default", name, &patch, &options)
                .await;
            self.tries(&format!("patch {plural} {name}"), outcome);
        }
        for plural in ["pods", "secrets", "configmaps", "services"] {
            let mut object = json!({"metadata": {"name": "new"}});
            match plural {
                "pods" => {
                    object["spec"] = json!({"nodeName": "n1", "serviceAccountName": "robot",
                        "containers": [{"name": "c", "image": "i"}]});
                }
                "services" => object["spec"] = json!({"ports": [{"port": 80}]}),
                _ => {}
            }
            let outcome = self.objects.create(&kind(plural), "default", object, &options).await;
            self.tries(&format!("create {plural}"), outcome);
        }
        let event = json!({
            "metadata": {"name": "e"}, "reason": "x", "message": "x", "type": "Normal",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "other"},
            "source": {"component": "kubelet", "host": "n1"}
        });
        let outcome = self.objects.create(&kind("events"), "default", event, &options).await;
        self.tries("an event of another's pod", outcome);
    }

    /// Patches of others' pods that are refused for what comes out, in words that would tell what went in.
    pub(super) async fn by_the_words_of_a_refusal(&mut self) {
        let options = WriteOptions::default();
        let from = "/spec/containers/0/env/0/value";
        for (what, patch) in [
            ("the name", json!([{"op": "copy", "from": from, "path": "/metadata/name"}])),
            (
                "a label",
                json!([{"op": "add", "path": "/metadata/labels", "value": {}},
                {"op": "copy", "from": from, "path": "/metadata/labels/a"}]),
            ),
            ("a list", json!([{"op": "copy", "from": from, "path": "/metadata/finalizers"}])),
            ("a test", json!([{"op": "test", "path": from, "value": "a"}])),
        ] {
            for name in ["other", "free"] {
                let patch = Patch::Json(patch.clone());
                let outcome = self
                    .objects
                    .patch(&kind("pods"), Door::Main, "default", name, &patch, &options)
                    .await;
                self.tries(&format!("read {name} by {what}"), outcome);
            }
        }
    }

    /// What the authority gives for a pod.
    pub(super) async fn credentials(&mut self) {
        let authority =
            self.node.actor::<AuthorityRole>(ActorPath::new(self.member.clone(), AUTHORITY));
        for (node, pod) in [("n1", "other"), ("n2", "other"), ("n1", "free"), ("n1", "mine")] {
            // `mine` with the uid of another pod of that name.
            let (node, uid) = (node.to_owned(), "uid-of-nobody".to_owned());
            let token = KeepAccountToken {
                node: node.clone(),
                namespace: "default".into(),
                pod: pod.into(),
                uid: uid.clone(),
                hash: "ab".repeat(32),
            };
            let answer = authority.ask(token, LIMIT).await;
            self.asked(&format!("token of {pod} as {node}"), answer);
            let token = IssueAccountToken {
                node: node.clone(),
                namespace: "default".into(),
                pod: pod.into(),
                uid: uid.clone(),
                audiences: Vec::new(),
                seconds: 3600,
            };
            let answer = authority.ask(token, LIMIT).await;
            self.asked(&format!("signed token of {pod} as {node}"), answer);
            let guest = IssueGuest {
                node: node.clone(),
                namespace: "default".into(),
                pod: pod.into(),
                uid,
                job: "j".into(),
                subjects: Vec::new(),
            };
            let answer = authority.ask(guest, LIMIT).await;
            self.asked(&format!("guest of {pod} as {node}"), answer);
        }
        for (name, role) in [("n1", JoinRole::Control), ("n2", JoinRole::Node)] {
            let renew = Renew {
                name: name.into(),
                role,
                subjects: Vec::new(),
                csr_pem: KeyRequest::generate().unwrap().csr_pem().to_owned(),
            };
            let answer = authority.ask(renew, LIMIT).await;
            self.asked(&format!("the certificate of {name} as {role}"), answer);
        }
    }
}
