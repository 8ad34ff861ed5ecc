//! A cron job by the engine, over a registry in memory.

use super::super::super::activation::Activation;
use super::super::super::engine::shared::Shared;
use super::super::super::engine::worker::Worker;
use super::super::super::view::served;
use super::super::Reconciler;
use impresario_api::kinds::cronjobs::SCHEDULED;
use impresario_api::status::Reason;
use impresario_objects::{DeleteOptions, ListQuery, Objects, WriteOptions};
use impresario_registry::{MemoryRegistry, Registry as _};
use impresario_registry_api::{Compare, Consistency, Epoch, Fence, Key, Operation, shard_of};
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
    let worker: Worker<Reconciler> = Worker::new(shared.clone(), &activation);
    let query = ListQuery { namespace: Some("default".into()), ..ListQuery::default() };
    let row_of_jobs = served("batch", "jobs");
    let jobs = async || objects.list(&row_of_jobs, &query).await.unwrap().items;
    let status =
        async || -> Value { objects.get(&row, "default", "tick").await.unwrap()["status"].clone() };
    for _ in 0..3 {
        if jobs().await.is_empty() {
            assert_eq!(status().await["lastScheduleTime"], Value::Null);
            worker.look_once().await.unwrap();
        }
    }
    let jobs_then = jobs().await;
    let [job] = jobs_then.as_slice() else { panic!("{jobs_then:#?}") };
    let at = job["metadata"]["annotations"][SCHEDULED].as_str().unwrap();
    assert!(at.ends_with(":00+05:45"), "{at}");
    assert_eq!(job["spec"]["completions"], 1, "it has what the server fills in");
    let written = status().await;
    assert_eq!(written.get("active"), None, "nobody has looked since");
    let last: Timestamp = written["lastScheduleTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(last, at.parse().unwrap());
    worker.look_once().await.unwrap();
    assert_eq!(status().await["active"][0]["uid"], job["metadata"]["uid"]);

    // It goes: by its time to live, say. Another member takes over.
    let name = job["metadata"]["name"].as_str().unwrap();
    let deletion = DeleteOptions::default();
    objects.delete(&row_of_jobs, "default", name, &deletion, &options).await.unwrap();
    let takes_over = Activation { since: clock::now(), ..activation };
    let after: Worker<Reconciler> = Worker::new(shared, &takes_over);
    for _ in 0..2 {
        after.look_once().await.unwrap();
    }
    assert_eq!(jobs().await, [Value::Null; 0]);
    assert_eq!(status().await["lastScheduleTime"], written["lastScheduleTime"]);
}

#[tokio::test]
async fn what_is_created_along_with_another_write_is_not_there_where_that_is_not_done() {
    let registry = MemoryRegistry::default();
    let objects = Objects::new(Arc::new(registry.clone()));
    objects.lay_foundation("pem", 6443).await.unwrap();
    let (row, options) = (served("", "configmaps"), WriteOptions::default());
    let key = Key::new("configmaps", "default", "other");
    let put = Operation::Put { key: key.clone(), value: r#"{"metadata": {}}"#.into() };
    let create = async |compare: Compare| {
        let object = json!({"metadata": {"name": "made"}});
        let along = [(compare, put.clone())];
        objects.create_along(&row, "default", object, &along, &options).await
    };
    let refused = create(Compare::Revision { key: key.clone(), revision: 7 }).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason), (409, Reason::Conflict));
    assert_eq!(objects.get(&row, "default", "made").await.unwrap_err().code(), 404);
    let made = create(Compare::Absent { key: key.clone() }).await.unwrap();
    let (other, _) = registry.get(key, Consistency::Linearizable).await.unwrap();
    let revision = other.unwrap().mod_revision.to_string();
    assert_eq!(made["metadata"]["resourceVersion"], revision.as_str());
}
