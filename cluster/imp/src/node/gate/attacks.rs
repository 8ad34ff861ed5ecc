//! A control member with its real doors, and credentials that try what is not theirs, over the wire.

use super::ClusterGate;
use bytes::Bytes;
use futures_util::StreamExt as _;
use impresario_actors::authority::{Authority, AuthorityParts};
use impresario_api::resource::{Resource, find, find_kind};
use impresario_client::protocol::authority::{
    AUTHORITY, AuthorityRole, IssueGuest, JoinRole, KeepAccountToken, Renew,
};
use impresario_objects::protocol::{self as objects, OBJECTS_ACTOR, ObjectsRole, Sender};
use impresario_objects::{
    Binding, Bindings, DeleteOptions, Door, ListQuery, Objects, ObjectsActor, ObjectsParts, Patch,
    Refusals, RemoteDoor, RemoteObjects, WatchQuery, WriteOptions,
};
use impresario_registry::protocol as registry;
use impresario_registry::{
    Beginning, Consistency, Entry, Key, ListRequest, Member, MemberConfig, REGISTRY_ACTOR,
    Registry as _, RegistryRole, Revision, Selection, Transaction, WatchRequest,
};
use impresario_runtime::pki::KeyRequest;
use impresario_runtime::{
    ActorNode, ActorPath, ClusterAuthority, NodeConfig, NodeName, PeerRole, SpawnOptions,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn kind(plural: &str) -> &'static Resource {
    find("", "v1", plural).unwrap()
}

/// A control member of one, and the objects of two nodes in it.
struct Cluster {
    authority: Arc<ClusterAuthority>,
    node: ActorNode,
    member: Member,
    objects: Objects,
    refusals: Arc<Refusals>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(ClusterAuthority::create("test").unwrap());
        let credential =
            authority.issue("m1", PeerRole::Control, &[], Duration::from_hours(1)).unwrap();
        let refusals = Arc::new(Refusals::default());
        let mut config = NodeConfig::new(credential);
        config.gate = Arc::new(ClusterGate { refusals: refusals.clone() });
        let node = ActorNode::start(config).await.unwrap();
        let beginning = Beginning::Found { peers: Vec::new() };
        let path = folder.path().join("registry");
        let config = MemberConfig::new(path, node.clone(), node.local_addr(), beginning);
        let member = Member::start(config).await.unwrap();
        let objects = Objects::new(member.handle());
        let parts = ObjectsParts {
            objects: objects.clone(),
            bindings: Arc::new(Bindings::follow(member.handle())),
            refusals: refusals.clone(),
        };
        node.spawn::<ObjectsRole, _>(OBJECTS_ACTOR, SpawnOptions::default(), move |_| {
            ObjectsActor::new(parts.clone())
        })
        .unwrap();
        let parts = AuthorityParts {
            authority: authority.clone(),
            node: node.clone(),
            registry: member.handle(),
            machine_lifetime: Duration::from_hours(1),
        };
        node.spawn::<AuthorityRole, _>(AUTHORITY, SpawnOptions::default(), move |_| {
            Authority::new(parts.clone())
        })
        .unwrap();
        objects.lay_foundation("authority", 6443).await.unwrap();
        let cluster = Self { authority, node, member, objects, refusals, _folder: folder };
        cluster.furnish().await;
        cluster
    }

    async fn furnish(&self) {
        for name in ["n1", "n2"] {
            let labels = json!({"kubernetes.io/hostname": name});
            self.make("nodes", json!({"metadata": {"name": name, "labels": labels}})).await;
        }
        for name in ["key", "foreign"] {
            self.make("secrets", json!({"metadata": {"name": name}, "stringData": {"a": name}}))
                .await;
        }
        self.make("configmaps", json!({"metadata": {"name": "foreign"}})).await;
        self.make("serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
        for (name, on, secret) in
            [("mine", "n1", "key"), ("other", "n2", "foreign"), ("free", "", "foreign")]
        {
            let pod = json!({
                "metadata": {"name": name},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}]}],
                    "serviceAccountName": "robot"
                }
            });
            self.make("pods", pod).await;
            if !on.is_empty() {
                let options = WriteOptions::default();
                self.objects.bind("default", name, &Binding::to(on), &options).await.unwrap();
            }
        }
    }

    async fn make(&self, plural: &str, object: Value) -> Value {
        let options = WriteOptions::default();
        self.objects.create(kind(plural), "default", object, &options).await.unwrap()
    }

    async fn entry(&self, resource: &str, namespace: &str, name: &str) -> Entry {
        let key = Key::new(resource, namespace, name);
        let read = self.member.handle().get(key, Consistency::Linearizable).await;
        read.unwrap().0.unwrap()
    }

    async fn join(&self, name: &str, role: PeerRole) -> Intruder {
        let credential =
            self.authority.issue(name, role.clone(), &[], Duration::from_hours(1)).unwrap();
        let node = ActorNode::start(NodeConfig::new(credential)).await.unwrap();
        let member = self.node.name().clone();
        node.addresses().set(member.clone(), self.node.local_addr());
        let members = tokio::sync::watch::channel(vec![member.clone()]).1;
        let door = RemoteDoor::new(node.clone(), members);
        let objects = RemoteObjects::new(door.clone());
        Intruder { node, door, objects, member, tried: Vec::new() }
    }
}

/// A credential, and what came of what it tried.
struct Intruder {
    node: ActorNode,
    door: RemoteDoor,
    objects: RemoteObjects,
    member: NodeName,
    tried: Vec<(String, bool)>,
}

impl Intruder {
    fn tries<T, E>(&mut self, what: &str, outcome: Result<T, E>) {
        self.tried.push((what.into(), outcome.is_ok()));
    }

    fn passed(&self) -> Vec<&str> {
        self.tried.iter().filter(|(_, passed)| *passed).map(|(what, _)| what.as_str()).collect()
    }

    /// Messages to the registry itself.
    async fn raw(&mut self, cluster: &Cluster) {
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
    async fn forged(&mut self) {
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
    async fn through_the_door(&mut self, cluster: &Cluster) {
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
                    pod["metadata"]["annotations"]["impresario.dev/guest"] = "j".into()
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
                Transaction::create(Key::new("pods", "default", "new"), other.value.clone()),
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
                    node["spec"]["taints"] = json!([{"key": "k", "effect": "NoExecute"}])
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
            let outcome = self.objects.delete(kind(plural), "default", name, &now, &options).await;
            self.tries(&format!("delete {plural} {name}"), outcome);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
        for (plural, name) in
            [("pods", "mine"), ("pods", "other"), ("secrets", "key"), ("nodes", "n2")]
        {
            let outcome = self
                .objects
                .patch(kind(plural), Door::Main, "default", name, &patch, &options)
                .await;
            self.tries(&format!("patch {plural} {name}"), outcome);
        }
        for plural in ["pods", "secrets", "configmaps", "services"] {
            let object = json!({
                "metadata": {"name": "new"},
                "spec": {"nodeName": "n1", "serviceAccountName": "robot", "ports": [{"port": 80}],
                    "containers": [{"name": "c", "image": "i"}]}
            });
            let outcome = self.objects.create(kind(plural), "default", object, &options).await;
            self.tries(&format!("create {plural}"), outcome);
        }
        let event = json!({
            "metadata": {"name": "e"}, "reason": "x", "message": "x", "type": "Normal",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "other"},
            "source": {"component": "kubelet", "host": "n1"}
        });
        let outcome = self.objects.create(kind("events"), "default", event, &options).await;
        self.tries("an event of another's pod", outcome);
    }

    /// What the authority gives for a pod.
    async fn credentials(&mut self) {
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
                hash: "ab".into(),
            };
            let answer = authority.ask(token, LIMIT).await.map_err(|e| e.to_string());
            self.tries(
                &format!("token of {pod} as {node}"),
                answer.and_then(|answer| answer.map_err(|e| e.to_string())),
            );
            let guest = IssueGuest {
                node: node.clone(),
                namespace: "default".into(),
                pod: pod.into(),
                uid,
                job: "j".into(),
                subjects: Vec::new(),
            };
            let answer = authority.ask(guest, LIMIT).await.map_err(|e| e.to_string());
            self.tries(
                &format!("guest of {pod} as {node}"),
                answer.and_then(|answer| answer.map_err(|e| e.to_string())),
            );
        }
        for (name, role) in [("n1", JoinRole::Control), ("n2", JoinRole::Node)] {
            let renew = Renew {
                name: name.into(),
                role,
                subjects: Vec::new(),
                csr_pem: KeyRequest::generate().unwrap().csr_pem().unwrap(),
            };
            let answer = authority.ask(renew, LIMIT).await.map_err(|e| e.to_string());
            self.tries(
                &format!("the certificate of {name} as {role}"),
                answer.and_then(|answer| answer.map_err(|e| e.to_string())),
            );
        }
    }
}

const NODE_NAME: &str = "/spec/nodeName";

/// Runs a test with a cluster, in an actor system of its own.
fn with_cluster(test: impl AsyncFnOnce(&Cluster)) {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(async {
        let cluster = Cluster::start().await;
        test(&cluster).await;
        cluster.member.stop().await;
    });
}

async fn revision(cluster: &Cluster) -> Revision {
    let key = Key::new("nodes", "", "n1");
    cluster.member.handle().get(key, Consistency::Linearizable).await.unwrap().1
}

#[test]
fn a_node_s_credential_gets_nothing_that_is_not_its_own() {
    with_cluster(async |cluster| {
        let mut node = cluster.join("n1", PeerRole::Node).await;
        let before = revision(cluster).await;
        node.through_the_door(cluster).await;
        node.raw(cluster).await;
        node.forged().await;
        node.credentials().await;
        assert!(node.tried.len() >= 80, "{} were tried", node.tried.len());
        assert_eq!(node.passed(), Vec::<&str>::new());
        assert_eq!(revision(cluster).await, before, "nothing was written");
        let counted = cluster.refusals.total();
        assert!(counted >= 70, "{counted} of {} refusals are counted", node.tried.len());
        node.node.stop(LIMIT).await;
    });
}

#[test]
fn a_node_s_credential_gets_what_is_its_own() {
    with_cluster(async |cluster| {
        let node = cluster.join("n1", PeerRole::Node).await;
        let (door, options) = (&node.door, WriteOptions::default());
        let secret = door.get(Key::new("secrets", "default", "key"), Consistency::Local).await;
        assert!(secret.unwrap().0.is_some());
        let mine = Selection::all("pods").with_field(NODE_NAME, "n1");
        let listed = door.list(ListRequest::of(mine)).await.unwrap();
        assert_eq!(listed.entries.len(), 1);
        let entry = &listed.entries[0];
        let mut pod: Value = serde_json::from_slice(&entry.value).unwrap();
        pod["status"]["phase"] = "Running".into();
        let write = Transaction::update(entry.key.clone(), entry.mod_revision, pod.to_string());
        let written = door.transact(write.clone()).await.unwrap();
        // The same again: somebody was quicker, and that is all.
        assert!(matches!(
            door.transact(write).await,
            Err(impresario_registry::TransactError::Conflict { .. })
        ));
        let n1 = cluster.entry("nodes", "", "n1").await;
        let mut object: Value = serde_json::from_slice(&n1.value).unwrap();
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = "a".into();
        object["status"]["phase"] = "Running".into();
        door.transact(Transaction::update(n1.key, n1.mod_revision, object.to_string()))
            .await
            .unwrap();
        let event = json!({
            "metadata": {"name": "e"}, "reason": "x", "message": "x", "type": "Normal",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "mine"},
            "source": {"component": "kubelet", "host": "n1"}
        });
        node.objects.create(kind("events"), "default", event, &options).await.unwrap();
        for plural in ["nodes", "services", "endpoints"] {
            node.objects.list(kind(plural), &ListQuery::default()).await.unwrap();
        }
        let key = entry.key.clone();
        door.transact(Transaction::remove(key, written.revision)).await.unwrap();
        // With the last pod that names it the secret is out of reach.
        let mut gone = false;
        for _ in 0..100 {
            let read = door.get(Key::new("secrets", "default", "key"), Consistency::Local).await;
            gone = read.is_err();
            if gone {
                break;
            }
        }
        assert!(gone);
        node.node.stop(LIMIT).await;
    });
}

#[test]
fn readers_read_all_but_secrets_and_guests_nothing() {
    with_cluster(async |cluster| {
        let before = revision(cluster).await;
        let mut client = cluster.join("sdk", PeerRole::Client).await;
        client.raw(cluster).await;
        client.forged().await;
        client.credentials().await;
        let options = WriteOptions::default();
        let (secrets, pods) = (kind("secrets"), kind("pods"));
        let get = client.objects.get(secrets, "default", "key").await;
        client.tries("get a secret", get);
        let list = client.objects.list(secrets, &ListQuery::default()).await;
        client.tries("list secrets", list);
        let watch = client.objects.watch(secrets, WatchQuery::default()).await;
        client.tries("follow secrets", watch);
        let bind = client.objects.bind("default", "free", &Binding::to("n1"), &options).await;
        client.tries("bind", bind);
        let now = DeleteOptions::default();
        let delete = client.objects.delete(pods, "default", "free", &now, &options).await;
        client.tries("delete", delete);
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        let patched =
            client.objects.patch(pods, Door::Main, "default", "free", &patch, &options).await;
        client.tries("patch", patched);
        let map = json!({"metadata": {"name": "c"}});
        let created = client.objects.create(kind("configmaps"), "default", map, &options).await;
        client.tries("create", created);
        assert_eq!(client.passed(), Vec::<&str>::new());
        assert!(client.objects.list(pods, &ListQuery::default()).await.is_ok());
        assert!(client.objects.get(kind("nodes"), "", "n1").await.is_ok());

        let mut guest = cluster.join("guest-u", PeerRole::Guest { scope: "j".into() }).await;
        guest.raw(cluster).await;
        guest.forged().await;
        guest.credentials().await;
        for plural in ["pods", "nodes", "services", "secrets", "namespaces"] {
            let list = guest.objects.list(kind(plural), &ListQuery::default()).await;
            guest.tries(&format!("list {plural}"), list);
        }
        let jobs = find_kind("training.impresario.dev", "v1", "TrainingJob").unwrap();
        let list = guest.objects.list(jobs, &ListQuery::default()).await;
        guest.tries("list jobs", list);
        assert_eq!(guest.passed(), Vec::<&str>::new());
        assert_eq!(revision(cluster).await, before, "nothing was written");
        client.node.stop(LIMIT).await;
        guest.node.stop(LIMIT).await;
    });
}
