//! What may be asked of actors is what may be done to their objects: over the wire, by certificate.

use super::{Cluster, LIMIT, with_cluster};
use crate::node::control::training_jobs;
use impresario_actors::controllers::activation::{Keeper, Kind};
use impresario_actors::controllers::controlled;
use impresario_actors::controllers::view::View;
use impresario_actors::controllers::{
    cron_job, daemon_set, deployment, job, replica_set, replication_controller, stateful_set,
};
use impresario_api::catalog::find;
use impresario_api::status::{Reason, Status};
use impresario_client::protocol::control::{ControlRole, Describe, Scale, Suspend, Told};
use impresario_objects::WriteOptions;
use impresario_objects::protocol::Sender;
use impresario_objects::{Door, Patch};
use impresario_registry::Key;
use impresario_runtime::{ActorNode, ActorPath, ActorRef, AskError, PeerRole};
use serde_json::{Value, json};
use std::sync::Arc;

/// Pods of no kind of their own, for whatever makes pods.
fn template() -> Value {
    let containers = json!([{"name": "c", "image": "i"}]);
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers}})
}

/// Actors of these objects, on the member.
fn keep(cluster: &Cluster) -> (Keeper, View) {
    let view = View::start(cluster.objects.clone(), "test");
    let shared = view.shared();
    let kinds: Vec<Kind> = vec![
        controlled::<replication_controller::Reconciler>(&shared),
        controlled::<replica_set::Reconciler>(&shared),
        controlled::<deployment::Reconciler>(&shared),
        controlled::<daemon_set::Reconciler>(&shared),
        controlled::<stateful_set::Reconciler>(&shared),
        controlled::<job::Reconciler>(&shared),
        controlled::<cron_job::Reconciler>(&shared),
        training_jobs(&view, Arc::new(Vec::new), cluster.node.local_addr()),
    ];
    (Keeper::start(cluster.node.clone(), cluster.member.shards(), kinds), view)
}

/// Somebody with a certificate.
struct Asker {
    node: ActorNode,
    sender: Sender,
    cluster_node: impresario_runtime::NodeName,
}

impl Asker {
    async fn of(cluster: &Cluster, name: &str, role: PeerRole) -> Self {
        let node = cluster.join(name, role.clone()).await.node;
        let sender = Sender { name: name.into(), role };
        Self { node, sender, cluster_node: cluster.node.name().clone() }
    }

    fn actor(&self, name: &str) -> ActorRef<ControlRole> {
        self.node.actor(ActorPath::new(self.cluster_node.clone(), name))
    }

    async fn scale(&self, actor: &str, replicas: u32) -> Result<u64, Status> {
        let scale = Scale { sender: self.sender.clone(), replicas };
        Ok(self.actor(actor).ask(scale, LIMIT).await.unwrap()?)
    }

    async fn suspend(&self, actor: &str, suspend: bool) -> Result<u64, Status> {
        let suspend = Suspend { sender: self.sender.clone(), suspend };
        Ok(self.actor(actor).ask(suspend, LIMIT).await.unwrap()?)
    }

    /// Waits until the actor is there.
    async fn await_actor(&self, name: &str) {
        let found = tokio::time::timeout(LIMIT, async {
            while self.actor(name).ask(Describe, LIMIT).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        found.await.expect("the actor lives here");
    }
}

async fn spec(cluster: &Cluster, group: &str, plural: &str) -> Value {
    let resource = find(group, "v1", plural);
    cluster.objects.get(&resource.unwrap(), "default", "it").await.unwrap()["spec"].clone()
}

#[test]
fn who_may_change_an_object_may_have_its_actor_do_so_and_nobody_else() {
    with_cluster(async |cluster| {
        let _kept = keep(cluster);
        let selector = json!({"matchLabels": {"app": "a"}});
        let of = |more: Value| {
            let mut spec = json!({"template": template()});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let mut once = template();
        once["spec"]["restartPolicy"] = "Never".into();
        let objects = [
            ("", "replicationcontrollers", of(json!({"replicas": 0, "selector": {"app": "a"}}))),
            ("apps", "replicasets", of(json!({"replicas": 0, "selector": selector}))),
            ("apps", "deployments", of(json!({"replicas": 0, "selector": selector}))),
            ("apps", "daemonsets", of(json!({"selector": selector}))),
            ("apps", "statefulsets", of(json!({"replicas": 0, "selector": selector}))),
            ("batch", "jobs", json!({"template": once, "suspend": true})),
            (
                "batch",
                "cronjobs",
                json!({"schedule": "0 0 31 2 *", "suspend": true,
                "jobTemplate": {"spec": {"template": once}}}),
            ),
        ];
        let program = Asker::of(cluster, "program", PeerRole::Client).await;
        let operator = Asker::of(cluster, "operator", PeerRole::Admin).await;
        for (group, plural, made) in objects {
            let resource = find(group, "v1", plural).unwrap();
            let object = json!({"metadata": {"name": "it"}, "spec": made});
            let options = WriteOptions::default();
            let made =
                cluster.objects.create(&resource, "default", object, &options).await.unwrap();
            let actor =
                format!("{}/{}", resource.singular, made["metadata"]["uid"].as_str().unwrap());
            program.await_actor(&actor).await;
            let before = spec(cluster, group, plural).await;
            let told = program.actor(&actor).ask(Describe, LIMIT).await.unwrap();
            assert!(told.subject.contains("default/it"), "{told:?}");

            let scales = resource.scale.is_some();
            let denied = program.scale(&actor, 2).await.unwrap_err();
            let reason = if scales { Reason::Forbidden } else { Reason::MethodNotAllowed };
            assert_eq!(denied.reason, reason, "{plural}: {}", denied.message);
            assert_eq!(spec(cluster, group, plural).await, before, "nothing was changed");
            if scales {
                assert!(denied.message.contains("no role"), "{}", denied.message);
                let revision = operator.scale(&actor, 2).await.unwrap();
                assert_eq!(spec(cluster, group, plural).await["replicas"], 2, "{plural}");
                // Again: nothing more is changed.
                assert!(operator.scale(&actor, 2).await.unwrap() >= revision);
                let invalid = operator.scale(&actor, u32::MAX).await.unwrap_err();
                assert!(
                    matches!(invalid.reason, Reason::Invalid | Reason::BadRequest),
                    "{invalid:?}"
                );
                assert_eq!(spec(cluster, group, plural).await["replicas"], 2, "{plural}");
            } else {
                let unable = operator.scale(&actor, 2).await.unwrap_err();
                assert_eq!(unable.reason, Reason::MethodNotAllowed, "{}", unable.message);
            }
            if ["jobs", "cronjobs"].contains(&plural) {
                let denied = program.suspend(&actor, false).await.unwrap_err();
                assert_eq!(denied.reason, Reason::Forbidden, "{}", denied.message);
                assert_eq!(spec(cluster, group, plural).await["suspend"], true);
                operator.suspend(&actor, false).await.unwrap();
                assert_eq!(spec(cluster, group, plural).await["suspend"], false);
            } else {
                let unable = operator.suspend(&actor, true).await.unwrap_err();
                assert_eq!(unable.reason, Reason::MethodNotAllowed, "{}", unable.message);
            }
            // In another's name, or with a role that is another's.
            let forged = Scale { sender: operator.sender.clone(), replicas: 5 };
            let refused = program.actor(&actor).ask(forged, LIMIT).await.unwrap_err();
            assert!(matches!(refused, AskError::Refused { .. }), "{refused}");
        }
        program.node.stop(LIMIT).await;
        operator.node.stop(LIMIT).await;
    });
}

#[test]
fn a_node_tells_owners_what_it_wrote_in_its_own_name_of_pods_and_others_tell_them_nothing() {
    with_cluster(async |cluster| {
        let _kept = keep(cluster);
        let selector = json!({"matchLabels": {"app": "a"}});
        let spec = json!({"replicas": 0, "selector": selector, "template": template()});
        let resource = find("apps", "v1", "replicasets").unwrap();
        let object = json!({"metadata": {"name": "it"}, "spec": spec});
        let options = WriteOptions::default();
        let made = cluster.objects.create(&resource, "default", object, &options).await.unwrap();
        let actor = format!("replicaset/{}", made["metadata"]["uid"].as_str().unwrap());
        let program = Asker::of(cluster, "program", PeerRole::Client).await;
        program.await_actor(&actor).await;
        let node = Asker::of(cluster, "n2", PeerRole::Node).await;
        let told = |node: &str, resource: &str| Told {
            node: node.into(),
            key: Key::new(resource, "default", "mine"),
            uid: "u".into(),
            revision: u64::MAX,
        };
        node.actor(&actor).ask(told("n2", "pods"), LIMIT).await.unwrap();
        let refused = [
            node.actor(&actor).ask(told("n1", "pods"), LIMIT).await,
            node.actor(&actor).ask(told("n2", "secrets"), LIMIT).await,
            program.actor(&actor).ask(told("program", "pods"), LIMIT).await,
        ];
        for answer in refused {
            assert!(matches!(answer, Err(AskError::Refused { .. })), "{answer:?}");
        }
        for asker in [program, node] {
            asker.node.stop(LIMIT).await;
        }
    });
}

#[test]
fn a_training_job_is_scaled_where_its_size_is_fixed_and_else_the_auction_decides() {
    with_cluster(async |cluster| {
        let _kept = keep(cluster);
        let resource = find("training.impresario.dev", "v1", "trainingjobs").unwrap();
        let role = |count: u32| json!({"min": count, "max": count, "template": template()});
        let job = json!({"metadata": {"name": "it"}, "spec": {
            "mode": "async", "parameterServer": role(1), "trainer": role(2), "stop": {"epochs": 1},
        }});
        let options = WriteOptions::default();
        let made = cluster.objects.create(&resource, "default", job, &options).await.unwrap();
        let actor = format!("trainingjob/{}", made["metadata"]["uid"].as_str().unwrap());
        let program = Asker::of(cluster, "program", PeerRole::Client).await;
        let operator = Asker::of(cluster, "operator", PeerRole::Admin).await;
        program.await_actor(&actor).await;
        // The actor answers before it has seen its object.
        let settled = async |asker: &Asker, replicas, wanted: Reason| {
            loop {
                match asker.scale(&actor, replicas).await {
                    Err(status) if status.reason == wanted => return status,
                    Err(_) => {}
                    Ok(revision) => panic!("scaled at {revision}"),
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let soon = async |asker: &Asker, replicas, wanted: Reason| {
            let answer = tokio::time::timeout(LIMIT, settled(asker, replicas, wanted)).await;
            answer.expect("an answer")
        };
        soon(&program, 3, Reason::Forbidden).await;
        let kind = "training.impresario.dev";
        assert_eq!(spec(cluster, kind, "trainingjobs").await["trainer"]["max"], 2);
        operator.scale(&actor, 3).await.unwrap();
        let trainer = spec(cluster, kind, "trainingjobs").await["trainer"].clone();
        assert_eq!((&trainer["min"], &trainer["max"]), (&json!(3), &json!(3)));

        let free = Patch::Merge(json!({"spec": {"trainer": {"max": 5}}}));
        let client = cluster.join("other", PeerRole::Admin).await;
        client
            .objects
            .patch(&resource, Door::Main, "default", "it", &free, &options)
            .await
            .unwrap();
        let why = soon(&operator, 4, Reason::Conflict).await;
        assert!(why.message.contains("auction"), "{}", why.message);
        let trainer = spec(cluster, kind, "trainingjobs").await["trainer"].clone();
        assert_eq!((&trainer["min"], &trainer["max"]), (&json!(3), &json!(5)));
        for node in [program.node, operator.node, client.node] {
            node.stop(LIMIT).await;
        }
    });
}
