//! Events and the SDK's front door, over registries in memory and over the wire.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures_util::StreamExt;
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_client::{Client, ClientError, Event, Select};
use impresario_objects::events::{Recorder, Severity};
use impresario_objects::protocol::{OBJECTS_ACTOR, ObjectsRole, sender};
use impresario_objects::rbac::Roles;
use impresario_objects::{
    Bindings, DeleteOptions, ObjectEvent, Objects, ObjectsActor, ObjectsParts, Reader, Refusals,
    WatchQuery,
};
use impresario_registry::{
    Beginning, Member, MemberConfig, MemoryRegistry, RegistryRole, protocol as registry,
};
use impresario_runtime::{
    ActorName, ActorNode, AskError, ClusterAuthority, Credential, Gate, Message, NodeConfig,
    NodeName, PeerIdentity, PeerRole, Refusal, SpawnOptions,
};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

mod asked;
mod folder;
mod forgotten;

const LIMIT: Duration = Duration::from_secs(60);

fn resource(plural: &str) -> Row {
    find("", "v1", plural).unwrap()
}

async fn objects() -> Objects {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    objects.lay_foundation("authority", 6443).await.unwrap();
    objects
}

#[tokio::test]
async fn the_same_thing_said_again_is_counted() {
    let objects = objects().await;
    let mut watch = objects.watch(&resource("events"), WatchQuery::default()).await.unwrap();
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default", "uid": "u"}});
    let recorder = Recorder::start(objects, "tester", "");
    for _ in 0..3 {
        recorder.record(&pod, Severity::Warning, "FailedScheduling", "no node fits");
    }
    let counted = async {
        loop {
            match watch.next().await.unwrap().unwrap() {
                ObjectEvent::Modified(event) if event["count"] == 3 => break event,
                _ => {}
            }
        }
    };
    let event = tokio::time::timeout(LIMIT, counted).await.unwrap();
    assert_eq!(
        (&event["involvedObject"]["name"], &event["type"]),
        (&json!("p"), &json!("Warning"))
    );
}

/// Lets nobody speak for another, and nobody but members to the registry.
struct AsTheyAre;

impl Gate for AsTheyAre {
    fn admit(&self, _: &PeerIdentity, _: &ActorName, _: &'static str) -> Result<(), Refusal> {
        Ok(())
    }

    fn permit(
        &self,
        peer: &PeerIdentity,
        to: &ActorName,
        message: &'static str,
        body: &dyn Any,
    ) -> Result<(), Refusal> {
        let honest = sender(body).is_none_or(|sender| sender.is(peer));
        if !honest || (to.as_str() == "registry" && message != registry::Status::NAME) {
            return Err(Refusal::new("not so"));
        }
        Ok(())
    }
}

/// A member has its time for the first answer; on a busy machine it is asked again.
async fn connected(credential: &Credential, members: &[(NodeName, SocketAddr)]) -> Client {
    let connecting = async {
        loop {
            match Client::connect(credential.clone(), members).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, connecting).await.expect("a connection")
}

#[test]
fn a_client_connects_with_a_credential_and_uses_typed_objects() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("test").unwrap();
        let issue =
            |name: &str, role| authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
        let mut config = NodeConfig::new(issue("n1", PeerRole::Control));
        config.gate = Arc::new(AsTheyAre);
        let node = ActorNode::start(config).await.unwrap();
        let beginning = Beginning::Found { peers: Vec::new() };
        let config =
            MemberConfig::new(folder.path().join("n1"), node.clone(), node.local_addr(), beginning);
        let member = Member::start(config).await.unwrap();
        let objects = Objects::new(member.handle());
        objects.lay_foundation("authority", 6443).await.unwrap();
        let parts = ObjectsParts {
            objects,
            bindings: Arc::new(Bindings::follow(member.handle())),
            roles: Roles::follow(&Reader::new(member.handle())),
            refusals: Arc::new(Refusals::default()),
            is_member: Arc::new(member.membership()),
            workers: tokio::runtime::Handle::current(),
        };
        let refusals = parts.refusals.clone();
        node.spawn::<ObjectsRole, _>(OBJECTS_ACTOR, SpawnOptions::default(), move |_| {
            ObjectsActor::new(parts.clone())
        })
        .unwrap();

        let credential = issue("sdk", PeerRole::Admin);
        assert!(Client::connect(credential.clone(), &[]).await.is_err());
        let members = [(node.name().clone(), node.local_addr())];
        let client = connected(&credential, &members).await;
        let configs = client.api::<ConfigMap>("default").unwrap();
        let (_, revision) = configs.list(Select::default()).await.unwrap();
        let mut watch =
            configs.watch(Select { labels: "tier=web", fields: "" }, Some(revision)).await.unwrap();
        let mut config = ConfigMap::default();
        config.metadata.name = Some("c".into());
        config.metadata.labels = Some(BTreeMap::from([("tier".to_owned(), "web".to_owned())]));
        let created = configs.create(&config).await.unwrap();
        assert!(created.metadata.uid.is_some());
        let patched = configs.patch_merge("c", json!({"data": {"a": "b"}})).await.unwrap();
        assert_eq!(patched.data.unwrap()["a"], "b");
        assert!(configs.delete("c", &DeleteOptions::default()).await.unwrap().is_none());
        let mut seen = Vec::new();
        while seen.len() < 3 {
            match tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap() {
                Event::Added(_) => seen.push("added"),
                Event::Modified(_) => seen.push("modified"),
                Event::Deleted(_) => seen.push("deleted"),
                Event::Progress(_) => {}
            }
        }
        assert_eq!(seen, ["added", "modified", "deleted"]);

        // Whoever has the actor answers; a member that has none, or is gone, is passed over.
        let (found, told) = client
            .ask_member::<RegistryRole, _>("registry", registry::Status, LIMIT)
            .await
            .unwrap();
        assert_eq!((found.path().node.as_str(), told.leader.as_deref()), ("n1", Some("n1")));
        let nobody = client.ask_member::<RegistryRole, _>("nobody", registry::Status, LIMIT).await;
        assert!(matches!(nobody, Err(AskError::NoSuchActor { .. })), "{:?}", nobody.err());

        // A role that may not write is told so, and does not wait for another member to say yes.
        let reader = issue("reader", PeerRole::Client);
        let reader = connected(&reader, &members).await;
        let configs = reader.api::<ConfigMap>("default").unwrap();
        assert!(configs.list(Select::default()).await.is_ok());
        let refused = configs.create(&config).await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Refused(status) if status.code() == 403),
            "{refused}"
        );
        assert_eq!(refusals.total(), 1, "{:?}", refusals.read());
        reader.close(Duration::from_secs(2)).await;
        client.close(Duration::from_secs(2)).await;
        member.stop().await;
    });
}
