//! A control member with its real doors, and credentials that try what is not theirs, over the wire.

mod asked;
mod intruder;
mod revoked;

use super::ClusterGate;
use impresario_actors::authority::{Authority, AuthorityParts};
use impresario_api::catalog::{find, find_kind};
use impresario_api::resource::Row;
use impresario_client::protocol::authority::{AUTHORITY, AuthorityRole};
use impresario_objects::accounts::Accounts;
use impresario_objects::protocol::{OBJECTS_ACTOR, ObjectsRole};
use impresario_objects::rbac::Roles;
use impresario_objects::{
    Binding, Bindings, DeleteOptions, Door, ListQuery, Objects, ObjectsActor, ObjectsParts, Patch,
    Reader, Refusals, RemoteDoor, RemoteObjects, WatchQuery, WriteOptions,
};
use impresario_registry::{
    Beginning, Consistency, Entry, Key, ListRequest, Member, MemberConfig, Registry as _, Revision,
    Selection, Transaction,
};
use impresario_runtime::{ActorNode, ClusterAuthority, NodeConfig, PeerRole, SpawnOptions};
use intruder::Intruder;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn kind(plural: &str) -> Row {
    find("", "v1", plural).unwrap()
}

/// A control member of one, and the objects of two nodes in it.
struct Cluster {
    authority: Arc<ClusterAuthority>,
    node: ActorNode,
    member: Member,
    objects: Objects,
    refusals: Arc<Refusals>,
    gate: ClusterGate,
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
        let gate = ClusterGate { refusals: refusals.clone(), ..ClusterGate::default() };
        config.gate = Arc::new(gate.clone());
        let node = ActorNode::start(config).await.unwrap();
        let beginning = Beginning::Found { peers: Vec::new() };
        let path = folder.path().join("registry");
        let config = MemberConfig::new(path, node.clone(), node.local_addr(), beginning);
        let member = Member::start(config).await.unwrap();
        let objects = Objects::new(member.handle());
        let parts = ObjectsParts {
            objects: objects.clone(),
            bindings: Arc::new(Bindings::follow(member.handle())),
            roles: Roles::follow(&Reader::new(member.handle())),
            refusals: refusals.clone(),
            is_member: Arc::new(member.membership()),
            workers: tokio::runtime::Handle::current(),
        };
        let _ = gate.membership.set(Arc::new(member.membership()));
        node.spawn::<ObjectsRole, _>(OBJECTS_ACTOR, SpawnOptions::default(), move |_| {
            ObjectsActor::new(parts.clone())
        })
        .unwrap();
        let parts = AuthorityParts {
            authority: authority.clone(),
            node: node.clone(),
            registry: member.handle(),
            machine_lifetime: Duration::from_hours(1),
            tokens_kept: Arc::default(),
            accounts: Accounts::new(member.handle(), &[7; 32]).unwrap(),
        };
        node.spawn::<AuthorityRole, _>(AUTHORITY, SpawnOptions::default(), move |_| {
            Authority::new(parts.clone())
        })
        .unwrap();
        objects.lay_foundation("authority", 6443).await.unwrap();
        let cluster = Self { authority, node, member, objects, refusals, gate, _folder: folder };
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
                    "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret}}],
                        "env": [{"name": "A", "value": PLANTED}]}],
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
        self.objects.create(&kind(plural), "default", object, &options).await.unwrap()
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

const NODE_NAME: &str = "/spec/nodeName";
/// A value in pods that only their own nodes may see.
const PLANTED: &str = "planted value";

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
        node.by_the_words_of_a_refusal().await;
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
        node.objects.create(&kind("events"), "default", event, &options).await.unwrap();
        // A machine that joins makes its own Node, which nobody had made for it.
        let newcomer = cluster.join("n3", PeerRole::Node).await;
        let own = json!({"metadata": {"name": "n3", "uid": "u"}, "status": {"phase": "Running"}});
        let made = Transaction::create(Key::new("nodes", "", "n3"), own.to_string());
        newcomer.door.transact(made).await.unwrap();
        newcomer.node.stop(LIMIT).await;
        for plural in ["nodes", "services", "endpoints"] {
            node.objects.list(&kind(plural), &ListQuery::default()).await.unwrap();
        }
        let key = entry.key.clone();
        door.transact(Transaction::remove(key, written.revision)).await.unwrap();
        // With the last pod that names it the secret is out of reach.
        let secret = Key::new("secrets", "default", "key");
        let gone = tokio::time::timeout(LIMIT, async {
            while door.get(secret.clone(), Consistency::Local).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        gone.await.expect("out of reach");
        node.node.stop(LIMIT).await;
    });
}

#[test]
fn a_control_certificate_of_who_is_no_member_gets_nothing() {
    with_cluster(async |cluster| {
        let before = revision(cluster).await;
        let mut removed = cluster.join("m9", PeerRole::Control).await;
        removed.raw(cluster).await;
        removed.forged().await;
        removed.credentials().await;
        removed.by_the_words_of_a_refusal().await;
        for plural in ["pods", "nodes", "secrets", "namespaces"] {
            let list = removed.objects.list(&kind(plural), &ListQuery::default()).await;
            removed.tries(&format!("list {plural}"), list);
        }
        assert_eq!(removed.passed(), Vec::<&str>::new());
        assert_eq!(revision(cluster).await, before, "nothing was written");
        removed.node.stop(LIMIT).await;
    });
}

#[test]
fn an_admin_s_writes_pass_the_rules_of_objects_like_everybody_s() {
    with_cluster(async |cluster| {
        let before = revision(cluster).await;
        let mut admin = cluster.join("admin", PeerRole::Admin).await;
        for (resource, namespace, name) in
            [("pods", "default", "mine"), ("nodes", "", "n1"), ("namespaces", "", "default")]
        {
            let entry = cluster.entry(resource, namespace, name).await;
            let removed = Transaction::remove(entry.key.clone(), entry.mod_revision);
            let outcome = admin.door.transact(removed).await;
            admin.tries(&format!("remove {resource} past all rules"), outcome);
            let written = Transaction::update(entry.key, entry.mod_revision, entry.value);
            let outcome = admin.door.transact(written).await;
            admin.tries(&format!("write {resource} past all rules"), outcome);
        }
        assert_eq!(admin.passed(), Vec::<&str>::new());
        assert_eq!(revision(cluster).await, before, "nothing was written");
        assert!(admin.objects.list(&kind("secrets"), &ListQuery::default()).await.is_ok());
        admin.node.stop(LIMIT).await;
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
        let get = client.objects.get(&secrets, "default", "key").await;
        client.tries("get a secret", get);
        let list = client.objects.list(&secrets, &ListQuery::default()).await;
        client.tries("list secrets", list);
        let watch = client.objects.watch(&secrets, WatchQuery::default()).await;
        client.tries("follow secrets", watch);
        let bind = client.objects.bind("default", "free", &Binding::to("n1"), &options).await;
        client.tries("bind", bind);
        let now = DeleteOptions::default();
        let delete = client.objects.delete(&pods, "default", "free", &now, &options).await;
        client.tries("delete", delete);
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        let patched =
            client.objects.patch(&pods, Door::Main, "default", "free", &patch, &options).await;
        client.tries("patch", patched);
        let map = json!({"metadata": {"name": "c"}});
        let created = client.objects.create(&kind("configmaps"), "default", map, &options).await;
        client.tries("create", created);
        assert_eq!(client.passed(), Vec::<&str>::new());
        assert!(client.objects.list(&pods, &ListQuery::default()).await.is_ok());
        assert!(client.objects.get(&kind("nodes"), "", "n1").await.is_ok());

        let mut guest = cluster.join("guest-u", PeerRole::Guest { scope: "j".into() }).await;
        guest.raw(cluster).await;
        guest.forged().await;
        guest.credentials().await;
        for plural in ["pods", "nodes", "services", "secrets", "namespaces"] {
            let list = guest.objects.list(&kind(plural), &ListQuery::default()).await;
            guest.tries(&format!("list {plural}"), list);
        }
        let jobs = find_kind("training.impresario.dev", "v1", "TrainingJob").unwrap();
        let list = guest.objects.list(&jobs, &ListQuery::default()).await;
        guest.tries("list jobs", list);
        assert_eq!(guest.passed(), Vec::<&str>::new());
        assert_eq!(revision(cluster).await, before, "nothing was written");
        client.node.stop(LIMIT).await;
        guest.node.stop(LIMIT).await;
    });
}
