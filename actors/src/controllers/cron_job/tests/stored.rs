//! A cron job by the engine, over a registry in memory.

use super::super::super::activation::Activation;
use super::super::super::engine::shared::Shared;
use super::super::super::engine::worker::Worker;
use super::super::super::view::served;
use super::super::Reconciler;
use impresario_api::kinds::cronjobs::SCHEDULED;
use impresario_objects::{ListQuery, Objects, WriteOptions};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::{Epoch, Fence, shard_of};
use impresario_runtime::clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn a_job_that_the_api_takes_is_made_when_it_is_time_and_not_twice() {
    let registry = MemoryRegistry::default();
    registry.assign_shards(&["test".to_owned()]);
    let objects = Objects::new(Arc::new(registry));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let cron_job = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *",
        "timeZone": "Asia/Kathmandu", "jobTemplate": {"spec": {"template": {"spec": pod}}}}});
    let (row, options) = (served("batch", "cronjobs"), WriteOptions::default());
    let made = objects.create(&row, "default", cron_job, &options).await.unwrap();
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let activation = Activation {
        actor: "cronjob".into(),
        namespace: "default".into(),
        name: "tick".into(),
        fence: Fence { shard: shard_of(&uid), epoch: Epoch(1) },
        uid,
        since: clock::now(),
    };
    let created: Timestamp =
        made["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
    let now = created + SignedDuration::from_secs(61);
    let shared = Shared { clock: Arc::new(move || now), ..Shared::start(objects.clone(), "test") };
    let worker: Worker<Reconciler> = Worker::new(shared, &activation);
    for _ in 0..3 {
        worker.look_once().await.unwrap();
    }
    let query = ListQuery { namespace: Some("default".into()), ..ListQuery::default() };
    let jobs = objects.list(&served("batch", "jobs"), &query).await.unwrap().items;
    let [job] = jobs.as_slice() else { panic!("{jobs:#?}") };
    let at = job["metadata"]["annotations"][SCHEDULED].as_str().unwrap();
    assert!(at.ends_with(":00+05:45"), "{at}");
    assert_eq!(job["spec"]["completions"], 1, "it has what the server fills in");
    let status: Value = objects.get(&row, "default", "tick").await.unwrap()["status"].clone();
    assert_eq!(status["active"][0]["uid"], job["metadata"]["uid"]);
    let last: Timestamp = status["lastScheduleTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(last, at.parse().unwrap());
}
