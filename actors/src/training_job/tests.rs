//! What the actor makes of the object that it sees.

use super::*;
use crate::testing::Machine;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use impresario_runtime::{NodeName, clock};
use serde_json::json;
use std::net::SocketAddr;

/// Nothing is seen, and nothing can be done.
struct Nowhere;

impl Desk for Nowhere {
    fn follow(&self) -> BoxStream<'static, Sight> {
        futures_util::stream::pending().boxed()
    }

    fn create_pod(&self, _: Value) -> BoxFuture<'static, Result<String, DeskError>> {
        Box::pin(async { Err(DeskError::JobDeleted) })
    }

    fn delete_pod(&self, _: String, _: String) -> BoxFuture<'static, Result<(), DeskError>> {
        Box::pin(async { Err(DeskError::JobDeleted) })
    }

    fn confirm(&self) -> BoxFuture<'static, Result<(), DeskError>> {
        Box::pin(async { Ok(()) })
    }

    fn control_members(&self) -> Vec<(NodeName, SocketAddr)> {
        Vec::new()
    }

    fn write_status(&self, _: Value) -> BoxFuture<'static, Result<(), DeskError>> {
        Box::pin(async { Ok(()) })
    }

    fn record(&self, _: &Value, _: bool, _: &str, _: &str) {}
}

fn job(status: Value) -> Value {
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x" }] } });
    let role = json!({ "min": 1, "max": 1, "template": template });
    json!({
        "metadata": { "name": "job", "namespace": "ns", "uid": "u" },
        "spec": { "mode": "async", "parameterServer": role, "trainer": role, "stop": { "epochs": 1 } },
        "status": status,
    })
}

/// An activation that has seen this object, and that there are no pods; which pods it would make.
async fn sees(job: &Value) -> (TrainingJob, usize) {
    let node = Machine::start(1000).await.node;
    let mut actor = TrainingJob::new(node, Arc::new(Nowhere), "u", 1);
    actor.job_is(job.clone());
    actor.state.pods_are(Vec::new(), clock::now());
    let actions = actor.state.reconcile(clock::now());
    let made = actions.iter().filter(|action| matches!(action, Action::CreatePod(_))).count();
    (actor, made)
}

#[actix::test]
async fn another_activation_says_of_a_job_what_it_had_reached_whether_it_runs_or_has_ended() {
    for phase in ["Running", "Succeeded", "Failed"] {
        let job = job(json!({ "phase": phase, "parameterServers": 1, "trainers": 1, "round": 7,
            "step": 5, "samples": 40, "loss": 0.5, "accuracy": 0.75, "trainerJoinSeconds": 3600,
            "scaleEvents": [{ "time": "2026-01-01T00:00:01Z", "parameterServers": 1, "trainers": 1,
                "reason": "there was room" }] }));
        let (actor, made) = sees(&job).await;
        let runs = phase == "Running";
        assert_eq!((actor.state.phase().as_str(), actor.state.ended()), (phase, !runs));
        assert_eq!(made > 0, runs, "one that has ended makes no pods: {made}");
        let written = status::write(&actor.state, &actor.job, &actor.earlier, clock::now());
        let fields = ["phase", "round", "step", "samples", "loss", "accuracy", "scaleEvents"];
        for field in fields.into_iter().chain(["trainerJoinSeconds"]) {
            assert_eq!(written[field], job["status"][field], "{phase} {field}");
        }
        assert_eq!(actor.state.samples(), 40, "{phase}");
    }
}

#[actix::test]
async fn a_job_that_is_being_deleted_makes_no_pods_whatever_becomes_of_those_that_it_had() {
    let granted = json!({ "phase": "Running", "parameterServers": 1, "trainers": 1, "step": 5 });
    let mut job = job(granted);
    let (_, made) = sees(&job).await;
    assert!(made > 0, "else it would make some");
    job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    job["metadata"]["finalizers"] = json!(["orphan"]);
    let (mut actor, made) = sees(&job).await;
    assert_eq!((made, actor.state.is_deleting()), (0, true));
    // It has seen it before.
    let mut before = job.clone();
    before["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
    actor = sees(&before).await.0;
    actor.job_is(job);
    assert!(actor.state.is_deleting() && actor.state.dismisses());
    assert!(actor.state.reconcile(clock::now()).is_empty());
}
