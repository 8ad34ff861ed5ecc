#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use futures_util::{FutureExt as _, StreamExt as _};
use impresario_client::objects::WriteOptions;
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{Around, BoxFuture, Key, Registry, WatchRequest};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

/// A member's registry that may be cut off from the others: then it cannot tell what they have written.
#[derive(Default)]
struct Member {
    registry: MemoryRegistry,
    is_cut_off: AtomicBool,
}

impl Around for Member {
    fn inner(&self) -> &dyn Registry {
        &self.registry
    }

    fn get(
        &self,
        key: Key,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<(Option<Entry>, Revision), ReadError>> {
        if consistency == Consistency::Linearizable && self.is_cut_off.load(Ordering::SeqCst) {
            let reason = "no leader".to_owned();
            return std::future::ready(Err(ReadError::Unavailable { reason })).boxed();
        }
        self.registry.get(key, consistency)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, WatchError>> {
        if self.is_cut_off.load(Ordering::SeqCst) {
            return std::future::ready(Err(WatchError::Closed)).boxed();
        }
        self.registry.watch(request)
    }
}

fn parts(member: &Arc<Member>) -> ObjectsParts {
    ObjectsParts {
        objects: Objects::new(member.clone()),
        bindings: Arc::new(Bindings::follow(member.clone())),
        roles: Roles::follow(&crate::Reader::new(member.clone())),
        refusals: Arc::default(),
        is_member: Arc::new(|_| false),
        workers: tokio::runtime::Handle::current(),
    }
}

fn n1() -> Sender {
    Sender { name: "n1".into(), role: impresario_runtime::PeerRole::Node }
}

fn get(name: &str) -> Get {
    let key = Key::new("secrets", "default", name);
    Get { sender: n1(), key, consistency: Consistency::Local }
}

fn event(pod: &str) -> Create {
    let event = json!({
        "metadata": {"name": format!("{pod}.1"), "namespace": "default"}, "reason": "x", "message": "m",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": pod},
        "source": {"component": "kubelet", "host": "n1"}
    });
    let object = event.to_string().into();
    Create {
        sender: n1(),
        resource: "events".into(),
        namespace: "default".into(),
        object,
        dry_run: false,
    }
}

async fn settled(member: &Arc<Member>) -> ObjectsParts {
    let parts = parts(member);
    parts.objects.lay_foundation("authority", 6443).await.unwrap();
    let pods = known("pods").unwrap();
    for (name, node) in [("mine", "n1"), ("other", "n2"), ("free", "")] {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": name}}]}]}
        });
        let options = WriteOptions::default();
        parts.objects.create(&pods, "default", pod, &options).await.unwrap();
        if !node.is_empty() {
            parts.objects.bind("default", name, &Binding::to(node), &options).await.unwrap();
        }
    }
    parts
}

#[tokio::test]
async fn a_member_that_cannot_tell_what_was_bound_refuses_nobody_for_good() {
    let member = Arc::new(Member::default());
    let parts = settled(&member).await;
    assert!(parts.clone().get(get("mine")).await.is_ok());
    let foreign = parts.clone().get(get("other")).await;
    assert!(matches!(foreign, Err(ReadError::Refused { .. })), "{foreign:?}");
    member.is_cut_off.store(true, Ordering::SeqCst);
    let unknown = parts.clone().get(get("other")).await;
    assert!(matches!(unknown, Err(ReadError::Unavailable { .. })), "{unknown:?}");
    assert!(parts.clone().get(get("mine")).await.is_ok(), "what is known stands");
    let refused = parts.create(event("other")).await.unwrap_err();
    assert_eq!(Status::from(refused).code(), 503);
}

#[tokio::test]
async fn a_node_tells_nothing_of_pods_of_others_and_of_one_that_went_before_a_member_came_to_another()
 {
    let member = Arc::new(Member::default());
    let parts = settled(&member).await;
    // A member that has just come does not know whose the pods were that went.
    for (pod, code) in [("free", 403), ("other", 403), ("not-there", 503)] {
        let refused = Status::from(parts.clone().create(event(pod)).await.unwrap_err());
        assert_eq!(refused.code(), code, "{pod}: {refused}");
        let waits = refused.retry_after.map(u64::from);
        assert_eq!(waits, (code == 503).then_some(LAST_WORDS.as_secs()), "{pod}");
    }
    parts.create(event("mine")).await.unwrap();
}

/// The schema of a kind that forbids nothing.
fn anything() -> Arc<impresario_api::structural::Structural> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    Arc::new(impresario_api::structural::Structural::parse(&schema).unwrap())
}

#[tokio::test]
async fn a_watch_by_message_ends_with_its_kind_and_nothing_of_it_is_written_any_more() {
    let (group, key) = ("messages.example.com", "messages.example.com/things");
    let names = [group, "v1", "Thing", "things", "thing"].map(str::to_owned);
    let row = Resource { namespaced: false, ..Resource::of_schema(names, anything()) };
    let row = impresario_api::catalog::served().take(row).unwrap();
    let parts = parts(&Arc::default());
    let sender = Sender { name: "root".into(), role: impresario_runtime::PeerRole::Admin };
    let create = |name: &str| Create {
        sender: sender.clone(),
        resource: key.into(),
        namespace: String::new(),
        object: json!({"metadata": {"name": name}, "is": "kept"}).to_string().into(),
        dry_run: false,
    };
    let made = parts.clone().create(create("a")).await.unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!((&made["kind"], &made["is"]), (&json!("Thing"), &json!("kept")));
    let select = Selection::all(key);
    let request = impresario_registry_api::WatchRequest { select, after: 0, bookmarks: false };
    let follow = Follow { sender: sender.clone(), request };
    let mut watch = parts.clone().follow(follow.clone()).await.unwrap();
    assert!(watch.next().await.unwrap().is_ok());

    impresario_api::catalog::served().drop_row(group, "things").unwrap();
    let limit = Duration::from_secs(60);
    let end = tokio::time::timeout(limit, watch.next()).await.expect("in time");
    assert_eq!(end.unwrap().unwrap_err(), WatchError::Removed { resource: key.into() });
    assert!(watch.next().await.is_none());
    assert!(matches!(parts.clone().follow(follow).await, Err(WatchError::Refused { .. })));
    assert_eq!(parts.clone().create(create("b")).await.unwrap_err().reason, "NotFound");
    // Who has looked it up before is told so too.
    let (thing, options) = (json!({"metadata": {"name": "b"}}), parts.options(&sender, false));
    let late = parts.objects.create(&row, "", thing, &options).await.unwrap_err();
    assert_eq!(late.code(), 404);
    let late = parts.objects.delete(&row, "", "a", &DeleteOptions::default(), &options).await;
    assert_eq!(late.unwrap_err().code(), 404);
    let listed = parts.objects.list(&row, &impresario_client::objects::ListQuery::default()).await;
    assert_eq!(listed.unwrap_err().code(), 410);
}

#[tokio::test]
async fn what_an_actor_changes_for_another_is_refused_once_its_shard_is_another_members() {
    let member = Arc::new(Member::default());
    let parts = settled(&member).await;
    let maps = known("configmaps").unwrap();
    let map = json!({"metadata": {"name": "it"}, "data": {"copies": "1"}});
    parts.objects.create(&maps, "default", map, &WriteOptions::default()).await.unwrap();
    member.registry.assign_shards(&["m1".to_owned()]);
    let shard = impresario_registry_api::shard_of("u");
    let copies = async || {
        let map = parts.objects.get(&maps, "default", "it").await.unwrap();
        map["data"]["copies"].as_str().unwrap().to_owned()
    };
    let change = async |role, epoch, copies: &str| {
        let change = Change {
            sender: Sender { name: "operator".into(), role },
            resource: "configmaps".into(),
            namespace: "default".into(),
            name: "it".into(),
            part: Part::Main,
            form: Form::Merge,
            body: json!({"data": {"copies": copies}}).to_string().into(),
            dry_run: false,
        };
        let fence =
            impresario_registry_api::Fence { shard, epoch: impresario_registry_api::Epoch(epoch) };
        let changed = parts.clone().fenced_change(FencedChange { change, fence }).await;
        changed.map_err(Status::from)
    };
    let (admin, client) =
        (impresario_runtime::PeerRole::Admin, impresario_runtime::PeerRole::Client);
    change(admin.clone(), 1, "5").await.unwrap();
    assert_eq!(copies().await, "5");
    assert_eq!(change(client, 1, "6").await.unwrap_err().code(), 403, "the rules are the same");
    // Another member has the shard, and somebody says something else.
    member.registry.assign_shards(&["m2".to_owned()]);
    change(admin.clone(), 2, "0").await.unwrap();
    let late = change(admin, 1, "5").await.unwrap_err();
    assert_eq!((late.code(), late.retry_after), (503, Some(1)), "{late}");
    assert_eq!(copies().await, "0");
}

#[tokio::test]
async fn a_program_may_what_its_roles_give_it_and_gives_away_no_more() {
    let member = Arc::new(Member::default());
    let parts = settled(&member).await;
    let rbac = crate::rbac::GROUP;
    let sdk = Sender { name: "sdk".into(), role: impresario_runtime::PeerRole::Client };
    let create = |resource: &str, namespace: &str, object: Value| {
        let (resource, namespace) = (resource.to_owned(), namespace.to_owned());
        let object = object.to_string().into();
        Create { sender: sdk.clone(), resource, namespace, object, dry_run: false }
    };
    let map = || create("configmaps", "default", json!({"metadata": {"name": "made"}}));
    let mut changes = parts.roles.changes();
    // By default programs read.
    let listing = || List {
        sender: sdk.clone(),
        request: impresario_registry_api::ListRequest::of(Selection::all("pods")),
    };
    while parts.clone().list(listing()).await.is_err() {
        changes.next().await;
    }
    let refused = Status::from(parts.clone().create(map()).await.unwrap_err());
    assert_eq!(refused.code(), 403, "{refused}");
    let role = json!({
        "metadata": {"name": "maker"}, "rules": [
            {"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"]},
            {"verbs": ["create"], "apiGroups": [rbac], "resources": ["clusterroles"]},
        ],
    });
    let binding = json!({
        "metadata": {"name": "maker"}, "roleRef": {"kind": "ClusterRole", "name": "maker"},
        "subjects": [{"kind": "User", "name": "sdk"}],
    });
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let row = known(&format!("{rbac}/{plural}")).unwrap();
        parts.objects.create(&row, "", object, &WriteOptions::default()).await.unwrap();
    }
    while parts.clone().create(map()).await.is_err() {
        changes.next().await;
    }
    let given = |verb: &str| {
        let rule = json!({"verbs": [verb], "apiGroups": [""], "resources": ["configmaps"]});
        let role = json!({"metadata": {"name": verb}, "rules": [rule]});
        create(&format!("{rbac}/clusterroles"), "", role)
    };
    parts.clone().create(given("create")).await.unwrap();
    let refused = Status::from(parts.clone().create(given("delete")).await.unwrap_err());
    assert!(refused.message.contains("not currently held"), "{refused}");
}

fn sdk() -> Sender {
    Sender { name: "sdk".into(), role: impresario_runtime::PeerRole::Client }
}

fn follows(plural: &str) -> Follow {
    Follow {
        sender: sdk(),
        request: WatchRequest { select: Selection::all(plural), ..WatchRequest::default() },
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_not_read_the_roles_refuses_no_program_for_good() {
    let member = Arc::new(Member::default());
    member.is_cut_off.store(true, Ordering::SeqCst);
    let parts = parts(&member);
    let request = impresario_registry_api::ListRequest::of(Selection::all("pods"));
    let listed = parts.clone().list(List { sender: sdk(), request }).await;
    assert!(matches!(listed, Err(ReadError::Unavailable { .. })), "{listed:?}");
    let followed = parts.clone().follow(follows("pods")).await;
    assert!(matches!(followed, Err(WatchError::Closed)), "{:?}", followed.err());
    let got = parts.clone().get(Get { sender: sdk(), ..get("mine") }).await;
    assert!(matches!(got, Err(ReadError::Unavailable { .. })), "{got:?}");
    let made = parts.clone().create(Create { sender: sdk(), ..event("mine") }).await;
    assert_eq!(Status::from(made.unwrap_err()).code(), 503);
    assert_eq!(parts.count_refusals(), [], "nobody was refused anything");
}

#[tokio::test]
async fn a_watch_of_a_program_ends_when_its_right_is_taken() {
    let member = Arc::new(Member::default());
    let parts = settled(&member).await;
    let rbac = crate::rbac::GROUP;
    let write = WriteOptions::default();
    let (roles, bindings) = (
        known(&format!("{rbac}/clusterroles")).unwrap(),
        known(&format!("{rbac}/clusterrolebindings")).unwrap(),
    );
    let rule = json!({"verbs": ["watch"], "apiGroups": [""], "resources": ["secrets"]});
    let role = json!({"metadata": {"name": "reads"}, "rules": [rule]});
    parts.objects.create(&roles, "", role, &write).await.unwrap();
    let binding = |name: &str| {
        json!({
            "metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": "reads"},
            "subjects": [{"kind": "User", "name": "sdk"}],
        })
    };
    for name in ["one", "other"] {
        parts.objects.create(&bindings, "", binding(name), &write).await.unwrap();
    }
    let mut changes = parts.roles.changes();
    let mut watch = loop {
        if let Ok(watch) = parts.clone().follow(follows("secrets")).await {
            break watch;
        }
        changes.next().await;
    };
    let delete = async |name: &str| {
        let deletion = DeleteOptions::default();
        parts.objects.delete(&bindings, "", name, &deletion, &write).await.unwrap();
    };
    // As long as the other binding gives the right it goes on.
    delete("one").await;
    let secrets = known("secrets").unwrap();
    let secret = json!({"metadata": {"name": "s"}});
    parts.objects.create(&secrets, "default", secret, &write).await.unwrap();
    assert!(watch.next().await.unwrap().is_ok());
    delete("other").await;
    let end = async {
        while let Some(told) = watch.next().await {
            told?;
        }
        Ok(())
    };
    let ended = timeout(Duration::from_mins(1), end).await.expect("it ends");
    assert_eq!(ended, Err(WatchError::Closed));
    let again = parts.follow(follows("secrets")).await;
    assert!(matches!(again, Err(WatchError::Refused { .. })), "{:?}", again.err());
}
