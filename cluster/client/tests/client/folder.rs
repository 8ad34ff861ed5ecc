//! What a program keeps of a cluster in its folder.

use crate::{LIMIT, resource};
use impresario_client::objects::WriteOptions;
use impresario_client::{Client, ConnectError, QUIC_ADDRESS};
use impresario_objects::protocol::{OBJECTS_ACTOR, ObjectsRole};
use impresario_objects::rbac::Roles;
use impresario_objects::{Bindings, Objects, ObjectsActor, ObjectsParts, Reader, Refusals};
use impresario_registry::{Beginning, Member, MemberConfig};
use impresario_runtime::{
    ActorNode, ClusterAuthority, Credential, NodeConfig, PeerRole, PermitAll, SpawnOptions,
};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A folder as a program has it that joined when these were the control members.
fn keep(folder: &Path, credential: &Credential, members: &[(&str, SocketAddr)]) {
    credential.save(&folder.join("credential")).unwrap();
    let kept = json!({"machine": null, "members": members});
    fs::write(folder.join("client.json"), kept.to_string()).unwrap();
}

fn run(test: impl Future<Output = ()>) {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(test);
}

#[test]
fn a_program_that_only_uses_objects_keeps_who_the_control_members_are_now() {
    run(async {
        let root = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("test").unwrap();
        let issue =
            |name: &str, role| authority.issue(name, role, &[], Duration::from_hours(1)).unwrap();
        let (mut nodes, mut members): (Vec<ActorNode>, Vec<Member>) = (Vec::new(), Vec::new());
        for name in ["n1", "n2"] {
            let gate = Arc::new(PermitAll);
            let config = NodeConfig { gate, ..NodeConfig::new(issue(name, PeerRole::Control)) };
            let node = ActorNode::start(config).await.unwrap();
            let beginning = match nodes.first() {
                None => Beginning::Found { peers: Vec::new() },
                Some(first) => {
                    node.addresses().set(first.name().clone(), first.local_addr());
                    first.addresses().set(node.name().clone(), node.local_addr());
                    Beginning::Join { members: vec![first.name().clone()] }
                }
            };
            let (path, at) = (root.path().join(name), node.local_addr());
            let config = MemberConfig::new(path, node.clone(), at, beginning);
            members.push(Member::start(config).await.unwrap());
            nodes.push(node);
        }
        let objects = Objects::new(members[0].handle());
        objects.lay_foundation("authority", 6443).await.unwrap();
        // One that is no member says of itself that it is; the members say nothing.
        let role = json!({"node-role.kubernetes.io/control-plane": ""});
        let far = ("n3", "127.0.0.1:9".parse().unwrap(), role);
        let own = nodes.iter().map(|node| (node.name().as_str(), node.local_addr(), json!({})));
        for (name, at, labels) in own.chain([far]) {
            let at: SocketAddr = at;
            let annotations = json!({QUIC_ADDRESS: at.to_string()});
            let object =
                json!({"metadata": {"name": name, "annotations": annotations, "labels": labels}});
            let options = WriteOptions::default();
            objects.create(&resource("nodes"), "", object, &options).await.unwrap();
        }
        let parts = ObjectsParts {
            objects,
            bindings: Arc::new(Bindings::follow(members[0].handle())),
            roles: Roles::follow(&Reader::new(members[0].handle())),
            refusals: Arc::new(Refusals::default()),
            is_member: Arc::new(members[0].membership()),
            workers: tokio::runtime::Handle::current(),
        };
        nodes[0]
            .spawn::<ObjectsRole, _>(OBJECTS_ACTOR, SpawnOptions::default(), move |_| {
                ObjectsActor::new(parts.clone())
            })
            .unwrap();

        let folder = root.path().join("program");
        keep(&folder, &issue("program", PeerRole::Client), &[("n1", nodes[0].local_addr())]);
        let client = Client::open(&folder).await.unwrap();
        let all: Vec<_> =
            nodes.iter().map(|node| json!([node.name().as_str(), node.local_addr()])).collect();
        let kept = async {
            loop {
                let text = fs::read(folder.join("client.json")).unwrap();
                let kept: Value = serde_json::from_slice(&text).unwrap();
                if kept["members"] == json!(all) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, kept)
            .await
            .expect("both members, and they alone, in the folder");
        assert_eq!(client.learn_nodes().await.unwrap().len(), 3, "where n3 is, is known");
        client.close(LIMIT).await;
        for member in members {
            member.stop().await;
        }
        for node in nodes {
            node.stop(LIMIT).await;
        }
    });
}

#[test]
fn a_certificate_that_has_ended_is_said_to_have_and_what_to_do() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("test").unwrap();
        let ended = authority.issue("program", PeerRole::Client, &[], Duration::ZERO).unwrap();
        keep(folder.path(), &ended, &[("n1", "127.0.0.1:9".parse().unwrap())]);
        let refused = Client::open(folder.path()).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Expired { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("imp token create --role client"), "{said}");
        // With a token it is joined anew.
        let again = Client::join("127.0.0.1:9", "no token", None, folder.path()).await;
        assert!(matches!(again, Err(ConnectError::Token(_))), "{again:?}");
    });
}
