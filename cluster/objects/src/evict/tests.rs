use super::*;
use impresario_registry::MemoryRegistry;
use std::sync::Arc;

fn row(group: &str, plural: &str) -> Row {
    find(group, "v1", plural).unwrap()
}

async fn objects() -> Objects {
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    objects.lay_foundation("authority", 6443).await.unwrap();
    objects
}

async fn make(objects: &Objects, (group, plural): (&str, &str), object: Value, status: Value) {
    let (resource, options) = (row(group, plural), WriteOptions::default());
    let made = objects.create(&resource, "default", object, &options).await.unwrap();
    let with_status = |old: &Value| {
        let mut new = old.clone();
        for (field, value) in status.as_object().unwrap() {
            new["status"][field] = value.clone();
        }
        Ok(new)
    };
    let name = text(&made, "metadata.name");
    let door = Door::Status;
    objects.modify(&resource, door, "default", name, &options, with_status).await.unwrap();
}

/// A pod on a node, in this phase and ready or not.
async fn pod(objects: &Objects, name: &str, phase: &str, ready: bool) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}]}});
    let ready = if ready { "True" } else { "False" };
    let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
    make(objects, ("", "pods"), pod, status).await;
}

/// A budget for such pods, counted as this.
async fn budget(objects: &Objects, spec: Value, status: Value) {
    let mut budget = json!({"metadata": {"generateName": "b-"}, "spec": spec});
    budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    let mut counted = json!({"observedGeneration": 1, "expectedPods": 8, "desiredHealthy": 5,
        "currentHealthy": 8, "disruptionsAllowed": 3,
        "conditions": [{"type": DISRUPTION_ALLOWED, "status": "True", "reason": "SufficientPods",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    for (key, value) in status.as_object().unwrap() {
        counted[key] = value.clone();
    }
    make(objects, ("policy", "poddisruptionbudgets"), budget, counted).await;
}

async fn status_of_budget(objects: &Objects) -> Value {
    let query = ListQuery { namespace: Some("default".into()), ..ListQuery::default() };
    let listed = objects.list(&row("policy", "poddisruptionbudgets"), &query).await.unwrap();
    listed.items[0]["status"].clone()
}

async fn evict(objects: &Objects, name: &str, write: &WriteOptions) -> Result<Deleted, Status> {
    objects.evict(&row("", "pods"), "default", name, &DeleteOptions::default(), write).await
}

#[tokio::test]
async fn of_many_evictions_at_once_as_many_are_done_as_the_budget_allows() {
    let objects = objects().await;
    budget(&objects, json!({"minAvailable": 5}), json!({})).await;
    for number in 0..8 {
        pod(&objects, &format!("p{number}"), "Running", true).await;
    }
    let each = (0..8).map(|number| {
        let objects = objects.clone();
        impresario_runtime::tasks::spawn(async move {
            loop {
                let name = format!("p{number}");
                match evict(&objects, &name, &WriteOptions::default()).await {
                    // Whoever was outrun is told to ask again.
                    Err(status) if status.retry_after == Some(1) => {}
                    outcome => return outcome,
                }
            }
        })
    });
    let outcomes = futures_util::future::join_all(each).await;
    let (done, refused): (Vec<_>, Vec<_>) =
        outcomes.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (3, 5));
    for status in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!((status.code(), status.retry_after), (429, None));
        assert_eq!(status.causes[0].reason, CauseReason::DisruptionBudget);
        assert!(status.causes[0].message.ends_with("needs 5 healthy pods and has 8 currently"));
    }
    let status = status_of_budget(&objects).await;
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["disruptedPods"].as_object().unwrap().len(), 3);
    assert_eq!(status["conditions"][0]["status"], "False");
    let Deleted::Lingers(pod) = done.into_iter().next().unwrap().unwrap() else {
        panic!("it is on a node")
    };
    assert!(has(&pod, "metadata.deletionTimestamp"));
    let conditions = list(&pod, "status.conditions");
    assert!(conditions.iter().any(|it| text(it, "type") == "DisruptionTarget"), "{pod}");
}

#[tokio::test]
async fn what_a_budget_says_of_a_pod_depends_on_how_both_are() {
    let rows = [
        // phase, ready, policy, what of the status is otherwise, whether it goes, what is left
        ("Running", true, "", json!({}), 201, 2),
        ("Running", true, "", json!({"disruptionsAllowed": 0}), 429, 0),
        ("Running", true, "", json!({"observedGeneration": 0}), 429, 3),
        ("Pending", false, "", json!({"disruptionsAllowed": 0}), 201, 0),
        ("Succeeded", false, "", json!({"disruptionsAllowed": 0}), 201, 0),
        ("Failed", false, "", json!({"disruptionsAllowed": 0}), 201, 0),
        ("Running", false, "", json!({"disruptionsAllowed": 0}), 201, 0),
        ("Running", false, "", json!({"disruptionsAllowed": 0, "currentHealthy": 4}), 429, 0),
        ("Running", false, "", json!({"disruptionsAllowed": 0, "desiredHealthy": 0}), 429, 0),
        (
            "Running",
            false,
            "AlwaysAllow",
            json!({"disruptionsAllowed": 0, "currentHealthy": 4}),
            201,
            0,
        ),
    ];
    for (phase, ready, policy, status, code, left) in rows {
        let objects = objects().await;
        let mut spec = json!({"minAvailable": 5});
        if !policy.is_empty() {
            spec["unhealthyPodEvictionPolicy"] = policy.into();
        }
        budget(&objects, spec, status.clone()).await;
        pod(&objects, "p", phase, ready).await;
        let what = format!("{phase} {ready} {policy} {status}");
        let outcome = evict(&objects, "p", &WriteOptions::default()).await;
        assert_eq!(outcome.map_or_else(|status| status.code(), |_| 201), code, "{what}");
        let status = status_of_budget(&objects).await;
        assert_eq!(status["disruptionsAllowed"], left, "{what}");
    }
}

#[tokio::test]
async fn a_budget_that_cannot_be_counted_says_why_and_one_of_two_is_one_too_many() {
    let objects = objects().await;
    let failed = json!({"disruptionsAllowed": 0, "conditions": [{"type": DISRUPTION_ALLOWED,
        "status": "False", "reason": SYNC_FAILED, "message": "nobody knows",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    budget(&objects, json!({"maxUnavailable": 1}), failed).await;
    pod(&objects, "p", "Running", true).await;
    let refused = evict(&objects, "p", &WriteOptions::default()).await.unwrap_err();
    assert!(refused.causes[0].message.ends_with("failed sync: nobody knows"), "{refused:?}");
    budget(&objects, json!({"maxUnavailable": 1}), json!({})).await;
    let refused = evict(&objects, "p", &WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), 500, "{refused}");
    let gone = evict(&objects, "other", &WriteOptions::default()).await.unwrap_err();
    assert_eq!(gone.code(), 404);
}

#[tokio::test]
async fn an_eviction_that_is_only_tried_or_not_meant_takes_nothing() {
    let objects = objects().await;
    budget(&objects, json!({"minAvailable": 5}), json!({})).await;
    pod(&objects, "p", "Running", true).await;
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    evict(&objects, "p", &dry).await.unwrap();
    let other = DeleteOptions { uid: Some("another".into()), ..DeleteOptions::default() };
    let pods = row("", "pods");
    let write = WriteOptions::default();
    let refused = objects.evict(&pods, "default", "p", &other, &write).await.unwrap_err();
    assert_eq!(refused.code(), 409);
    assert_eq!(status_of_budget(&objects).await["disruptionsAllowed"], 3);
    let pod = objects.get(&pods, "default", "p").await.unwrap();
    assert!(!has(&pod, "metadata.deletionTimestamp"));
}

#[tokio::test]
async fn what_was_taken_for_a_pod_a_moment_ago_is_not_taken_again() {
    let now = clock::timestamp();
    let soon = now + SignedDuration::from_secs(1);
    let rows = [(soon, 3, "its own"), (now - GOES_WITHIN, 2, "of one that did not go")];
    for (since, left, what) in rows {
        let objects = objects().await;
        let taken = json!({"disruptedPods": {"p": metadata_time(since)}});
        budget(&objects, json!({"minAvailable": 5}), taken).await;
        pod(&objects, "p", "Running", true).await;
        evict(&objects, "p", &WriteOptions::default()).await.unwrap();
        let status = status_of_budget(&objects).await;
        assert_eq!(status["disruptionsAllowed"], left, "{what}");
    }
    // One that came after another of its name was evicted is another one.
    let resource = row("policy", "poddisruptionbudgets");
    let old = json!({"status": {"disruptionsAllowed": 1, "disruptedPods": {"p": "2026-01-01T00:00:00Z"}}});
    let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:01Z"}});
    let later = "2026-01-01T00:00:02Z".parse().unwrap();
    let taken = taken_from(&resource, &old, &pod, later).unwrap();
    assert_eq!(taken["status"]["disruptionsAllowed"], 0);
}
