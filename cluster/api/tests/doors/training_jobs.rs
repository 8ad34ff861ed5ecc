//! Training jobs.

use super::*;

#[test]
fn a_training_job_names_everything_that_is_wrong_with_it() {
    let jobs = find("training.impresario.dev", "v1", "trainingjobs").expect("training jobs");
    let role = json!({
        "min": 3, "max": 2,
        "template": {"spec": {"containers": [{"name": "c"}]}},
    });
    let job = json!({"metadata": {"name": "j"}, "spec": {"mode": "fast", "trainer": role}});
    let refused = admit_create(&jobs, job, &context(&allocator())).expect_err("an invalid job");
    let fields: Vec<&str> = refused.causes.iter().map(|cause| cause.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.mode",
            "spec.trainer.max",
            "spec.trainer.template.spec.containers[0].image",
            "spec.stop"
        ]
    );
}

#[test]
fn a_training_job_has_a_number_of_members_that_can_be() {
    let jobs = find("training.impresario.dev", "v1", "trainingjobs").expect("training jobs");
    let wrong = |bounds: &Value| {
        let mut role = json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        for (field, value) in bounds.as_object().expect("bounds") {
            role[field] = value.clone();
        }
        let job = json!({"metadata": {"name": "j"}, "spec": {
            "trainer": role, "parameterServer": role, "stop": {"epochs": 1}}});
        let told = admit_create(&jobs, job, &context(&allocator()));
        told.map_or_else(
            |refused| {
                assert_eq!(refused.code(), 422, "{refused}");
                let fields = refused.causes.into_iter().map(|cause| cause.field);
                fields.filter(|field| field.starts_with("spec.trainer")).collect()
            },
            |_| Vec::<String>::new(),
        )
    };
    for (bounds, fields) in [
        (json!({}), &[][..]),
        (json!({"min": 10_000}), &[]),
        (json!({"min": 1, "max": 10_000}), &[]),
        (json!({"min": 2, "max": 1}), &["spec.trainer.max"]),
        (json!({"min": 0}), &["spec.trainer.min"]),
        (json!({"min": -1, "max": 0}), &["spec.trainer.min", "spec.trainer.max"]),
        (json!({"max": 10_001}), &["spec.trainer.max"]),
        (json!({"min": i32::MAX, "max": i32::MAX}), &["spec.trainer.min", "spec.trainer.max"]),
    ] {
        assert_eq!(wrong(&bounds), fields, "{bounds}");
    }
}

#[test]
fn a_training_job_has_the_fields_of_its_mode_and_no_others() {
    let jobs = find("training.impresario.dev", "v1", "trainingjobs").expect("training jobs");
    let made = |more: &Value| {
        let role =
            json!({"max": 4, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        let mut job = json!({"metadata": {"name": "j"}, "spec": {
            "trainer": role, "parameterServer": role, "stop": {"epochs": 1}}});
        for (field, value) in more.as_object().expect("fields") {
            job["spec"][field] = value.clone();
        }
        admit_create(&jobs, job, &context(&allocator()))
    };
    for (more, fields) in [
        (json!({"mode": "allReduce"}), &["spec.mode"][..]),
        (json!({"mode": "synchronous"}), &["spec.mode"]),
        (json!({"maxStaleness": 3}), &["spec.maxStaleness"]),
        (json!({"mode": "sync", "maxStaleness": 3}), &["spec.maxStaleness"]),
        (json!({"mode": "boundedStaleness", "backupTrainers": 1}), &["spec.backupTrainers"]),
        (json!({"mode": "boundedStaleness", "maxStaleness": -1}), &["spec.maxStaleness"]),
        (json!({"mode": "sync", "backupTrainers": 4}), &["spec.backupTrainers"]),
        (json!({"mode": "sync", "backupTrainers": -1}), &["spec.backupTrainers"]),
        (json!({"mode": "sync", "batchParts": 0}), &["spec.batchParts"]),
        (json!({"mode": "sync", "batchParts": 1_025}), &["spec.batchParts"]),
        (json!({"mode": "sync", "parameterServer": null}), &["spec.parameterServer"]),
    ] {
        let refused = made(&more).expect_err("a wrong mode");
        let found: Vec<String> = refused.causes.into_iter().map(|cause| cause.field).collect();
        assert_eq!(found, fields, "{more}");
    }
    let spec = |more: &Value| made(more).expect("a good one")["spec"].clone();
    assert_eq!(spec(&json!({}))["mode"], "async");
    assert_eq!(spec(&json!({"mode": "boundedStaleness"}))["maxStaleness"], 3);
    let together = spec(&json!({"mode": "sync"}));
    assert_eq!((&together["backupTrainers"], &together["batchParts"]), (&json!(0), &json!(4)));
    let before = made(&json!({"mode": "sync"})).expect("a good one");
    let mut after = before.clone();
    after["spec"]["batchParts"] = json!(8);
    let refused = update(&jobs, Door::Main, after, &before).expect_err("another cut");
    assert_eq!(refused.causes[0].field, "spec.batchParts");
}

#[test]
fn a_training_job_saves_where_and_as_often_as_can_be() {
    let jobs = find("training.impresario.dev", "v1", "trainingjobs").expect("training jobs");
    let job = |checkpoint: &Value| {
        let role = json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}});
        json!({"metadata": {"name": "j"}, "spec": {
            "trainer": role, "parameterServer": role, "stop": {"epochs": 1}, "checkpoint": checkpoint}})
    };
    let made = |checkpoint: &Value| admit_create(&jobs, job(checkpoint), &context(&allocator()));
    let wrong = |checkpoint: &Value| {
        let refused = made(checkpoint).expect_err("a wrong checkpoint");
        let fields = refused.causes.into_iter().map(|cause| cause.field);
        fields.map(|field| field.replace("spec.checkpoint.", "")).collect::<Vec<_>>()
    };
    for (checkpoint, fields) in [
        (json!({"keep": 2}), &["path"][..]),
        (json!({"path": "models"}), &["path"]),
        (json!({"path": "/"}), &["path"]),
        (json!({"path": "/models/../etc"}), &["path"]),
        (json!({"path": "/m", "keep": 0}), &["keep"]),
        (json!({"path": "/m", "keep": 1_001}), &["keep"]),
        (json!({"path": "/m", "intervalSeconds": 0}), &["intervalSeconds"]),
        (json!({"path": "/m", "intervalSeconds": 604_801}), &["intervalSeconds"]),
        (json!({"path": "/m", "intervalSteps": 0}), &["intervalSteps"]),
        (json!({"path": "/m", "resumeFrom": "old"}), &["resumeFrom"]),
    ] {
        assert_eq!(wrong(&checkpoint), fields, "{checkpoint}");
    }
    let old = made(&json!({"path": "/m"})).expect("a good one");
    let given = json!({"path": "/m", "keep": 3, "intervalSeconds": 600});
    assert_eq!(old["spec"]["checkpoint"], given);
    let by_steps = made(&json!({"path": "/m", "intervalSteps": 5})).expect("a good one");
    assert!(by_steps["spec"]["checkpoint"]["intervalSeconds"].is_null(), "one interval is enough");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new["spec"]);
        update(&jobs, Door::Main, new, &old)
    };
    changed(&|spec| spec["checkpoint"]["keep"] = 9.into()).expect("how many are kept may change");
    changed(&|spec| spec["checkpoint"] = Value::Null).expect("whether it is saved may, too");
    let moved = changed(&|spec| spec["checkpoint"]["path"] = "/n".into()).expect_err("pods see /m");
    assert_eq!(moved.causes[0].field, "spec.checkpoint.path");
    let waits = made(&json!({"path": "/m", "resumeFrom": "/old"})).expect("a good one");
    let mut begins = waits.clone();
    begins["spec"]["checkpoint"]["resumeFrom"] = Value::Null;
    update(&jobs, Door::Main, begins.clone(), &waits).expect("it may begin without");
    let late = update(&jobs, Door::Main, waits, &begins).expect_err("it has begun without");
    assert_eq!(late.causes[0].field, "spec.checkpoint.resumeFrom");
}
