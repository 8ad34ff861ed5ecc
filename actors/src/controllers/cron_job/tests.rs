mod stored;

use super::super::engine::effects::{Begun, Effect};
use super::super::table::{cells, part};
use super::*;
use impresario_api::kinds::cronjobs::SCHEDULED;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn at(text: &str) -> Timestamp {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

/// A namespace in which one cron job is.
struct World {
    cron_job: Value,
    jobs: Vec<Value>,
    made: usize,
    taken: BTreeSet<String>,
    said: Vec<String>,
    /// Names of all jobs that were ever made.
    ever: Vec<String>,
}

impl World {
    fn new(spec: &Value) -> Self {
        let mut cron_job = json!({
            "metadata": {"name": "tick", "namespace": "default", "uid": "cj",
                "creationTimestamp": "2026-03-01T00:00:00Z"},
            "spec": {"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow",
                "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
                "jobTemplate": {"metadata": {"labels": {"a": "b"}, "annotations": {"n": "m"}},
                    "spec": {"template": {"spec": {"restartPolicy": "Never",
                        "containers": [{"name": "c", "image": "i"}]}}}}},
            "status": {},
        });
        for (key, value) in spec.as_object().unwrap() {
            cron_job["spec"][key] = value.clone();
        }
        let (jobs, said, ever) = (Vec::new(), Vec::new(), Vec::new());
        Self { cron_job, jobs, made: 0, taken: BTreeSet::new(), said, ever }
    }

    fn look(&self, now: Timestamp) -> Effects {
        let typed: CronJob = serde_json::from_value(self.cron_job.clone()).unwrap();
        let parts = [part::<Job>(&self.jobs)];
        let view = View::new(&typed, &self.cron_job, &parts).with_taken(&self.taken);
        Reconciler::reconcile(&view, now)
    }

    /// Looks and does what is wanted, with the status last, or not at all where the member fails before.
    fn step(&mut self, now: Timestamp, is_status_written: bool) -> Option<Timestamp> {
        let effects = self.look(now);
        for effect in effects.actions {
            match effect {
                Effect::Delete(it) => self.jobs.retain(|job| job["metadata"]["uid"] != it.uid),
                other => panic!("{other:?}"),
            }
        }
        if is_status_written {
            self.said.extend(effects.events.into_iter().map(|event| event.reason));
            let was = self.cron_job["status"].take();
            self.cron_job["status"] = effects.status.unwrap().unwrap();
            // Not together with another status.
            if let Some(begun) = effects.begun.filter(|_| self.cron_job["status"] == was) {
                self.begin(begun);
            }
        }
        effects.look_again
    }

    fn begin(&mut self, Begun { object: mut job, status, .. }: Begun) {
        self.made += 1;
        job["metadata"]["uid"] = format!("uid-{}", self.made).into();
        job["metadata"]["namespace"] = "default".into();
        let name = job["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(!self.ever.contains(&name), "{name} is made twice");
        self.ever.push(name);
        self.jobs.push(job);
        self.cron_job["status"] = status.unwrap();
    }

    /// Looks until there is no more to do.
    fn settle(&mut self, now: Timestamp) -> Option<Timestamp> {
        for _ in 0..10 {
            let before = (self.jobs.clone(), self.cron_job.clone());
            let next = self.step(now, true);
            if before == (self.jobs.clone(), self.cron_job.clone()) {
                return next;
            }
        }
        panic!("it never settles");
    }

    fn end(&mut self, job: usize, how: &str, at: &str) {
        let time = format!("2026-03-01T{at}Z");
        self.jobs[job]["status"] = json!({"startTime": time, "completionTime": time,
            "conditions": [{"type": how, "status": "True"}]});
    }

    fn names(&self) -> Vec<&str> {
        self.jobs.iter().map(|job| job["metadata"]["name"].as_str().unwrap()).collect()
    }

    fn active(&self) -> usize {
        self.cron_job["status"]["active"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn a_time_gets_the_job_that_its_policy_and_its_deadline_leave_to_it() {
    // A job for 00:10 is there, as it says; it is now that late.
    let table = "
        policy  | 00:10 is | now      | deadline | suspend | does              | says
        Allow   | running  | 00:19:59 |          |         |                   |
        Allow   | running  | 00:20:00 |          |         | create            |
        Allow   | ended    | 00:20:00 |          |         | create            |
        Forbid  | running  | 00:20:00 |          |         |                   | JobAlreadyActive
        Forbid  | ended    | 00:25:00 |          |         | create            |
        Replace | running  | 00:20:00 |          |         | delete            |
        Replace | ended    | 00:20:00 |          |         | create            |
        Allow   | ended    | 00:20:31 | 30       |         |                   | MissSchedule
        Allow   | ended    | 00:20:30 | 30       |         | create            |
        Allow   | ended    | 00:20:00 |          | yes     |                   |
        Allow   | ended    | 23:59:59 |          |         | create            | TooManyMissedTimes
        Allow   | ended    | 23:59:59 | 600      |         | create            |";
    for row in table.lines().skip(2) {
        let [policy, is, now, deadline, suspend, does, says] = cells(row);
        let mut world =
            World::new(&json!({"schedule": "*/10 * * * *", "concurrencyPolicy": policy}));
        world.settle(at("00:10:00"));
        assert_eq!(world.names().len(), 1);
        if is == "ended" {
            world.end(0, "Complete", "00:11:00");
        }
        world.settle(at("00:11:00"));
        world.cron_job["spec"]["suspend"] = (suspend == "yes").into();
        if let Ok(seconds) = deadline.parse::<i64>() {
            world.cron_job["spec"]["startingDeadlineSeconds"] = seconds.into();
        }
        let effects = world.look(at(now));
        let deletes = effects.actions.iter().map(|effect| match effect {
            Effect::Delete(_) => "delete",
            other => panic!("{other:?}"),
        });
        let done: Vec<&str> = deletes.chain(effects.begun.as_ref().map(|_| "create")).collect();
        let said: Vec<&str> = effects.events.iter().map(|event| event.reason.as_str()).collect();
        // A hundred and forty-two times of ten minutes have come by then.
        assert_eq!((done.join(", ").as_str(), said.join(", ").as_str()), (does, says), "{row}");
    }
}

#[test]
fn a_job_says_for_which_time_it_is_and_the_status_says_what_became_of_it() {
    let mut world = World::new(&json!({"timeZone": "Europe/Berlin"}));
    assert_eq!(world.settle(at("00:05:00")), Some(at("00:10:00")));
    assert_eq!(world.settle(at("00:10:00")), Some(at("00:20:00")));
    let job = world.jobs[0].clone();
    assert_eq!(job["metadata"]["name"], "tick-29538730");
    assert_eq!(job["metadata"]["annotations"][SCHEDULED], "2026-03-01T01:10:00+01:00");
    assert_eq!(job["metadata"]["annotations"]["n"], "m");
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    assert_eq!(job["spec"], world.cron_job["spec"]["jobTemplate"]["spec"]);
    let status = world.cron_job["status"].clone();
    assert_eq!(status["lastScheduleTime"], "2026-03-01T00:10:00Z");
    assert_eq!(status["active"][0]["name"], "tick-29538730");
    assert_eq!(status["active"][0]["uid"], "uid-1");

    world.end(0, "Complete", "00:12:00");
    world.settle(at("00:12:00"));
    let status = world.cron_job["status"].clone();
    assert_eq!(
        (world.active(), &status["lastSuccessfulTime"]),
        (0, &json!("2026-03-01T00:12:00Z"))
    );
    assert_eq!(status["lastScheduleTime"], "2026-03-01T00:10:00Z");
    assert_eq!(world.said, ["SawCompletedJob"]);

    world.settle(at("00:20:00"));
    world.jobs.pop();
    world.settle(at("00:21:00"));
    assert_eq!((world.active(), world.names().len()), (0, 1), "it is not made again");
    assert_eq!(world.said, ["SawCompletedJob", "MissingJob"]);
}

#[test]
fn what_is_replaced_is_gone_before_the_next_begins() {
    let mut world = World::new(&json!({"concurrencyPolicy": "Replace"}));
    world.settle(at("00:10:00"));
    let does = |world: &World| {
        let effects = world.look(at("00:20:00"));
        (effects.actions.len(), effects.begun.is_some())
    };
    assert_eq!(does(&world), (1, false));
    // It has been asked to go, and has not yet.
    world.jobs[0]["metadata"]["deletionTimestamp"] = "2026-03-01T00:20:00Z".into();
    assert_eq!(does(&world), (0, false));
    world.jobs.clear();
    world.settle(at("00:20:00"));
    assert_eq!(world.names(), ["tick-29538740"]);
    // One that ended by itself is in nobody's way.
    world.end(0, "Complete", "00:29:00");
    world.settle(at("00:29:00"));
    world.settle(at("00:30:00"));
    assert_eq!(world.names().len(), 2);
}

#[test]
fn a_time_is_used_as_soon_as_its_job_is_there_however_soon_that_goes() {
    let mut world = World::new(&json!({}));
    let begun = world.look(at("00:10:00")).begun.unwrap();
    world.begin(begun);
    world.jobs.clear();
    world.settle(at("00:10:01"));
    assert_eq!(world.names(), [""; 0]);
    assert_eq!(world.cron_job["status"]["lastScheduleTime"], "2026-03-01T00:10:00Z");
}

#[test]
fn what_comes_more_often_than_there_are_names_is_looked_at_when_the_next_is_free() {
    let mut world = World::new(&json!({"schedule": "@every 1s", "concurrencyPolicy": "Forbid"}));
    assert_eq!(world.settle(at("00:00:05")), Some(at("00:01:00")));
    assert_eq!(world.names(), ["tick-29538720"]);
    for minute in 1..5 {
        let effects = world.look(at(&format!("00:0{minute}:00")));
        let said: Vec<&str> = effects.events.iter().map(|event| event.reason.as_str()).collect();
        assert_eq!(said, ["JobAlreadyActive"]);
        assert_eq!(effects.look_again, Some(at(&format!("00:0{}:00", minute + 1))));
    }
    world.end(0, "Complete", "00:05:30");
    assert_eq!(world.settle(at("00:05:30")), Some(at("00:06:00")));
    assert_eq!(world.names(), ["tick-29538720", "tick-29538725"]);
    assert_eq!(world.cron_job["status"]["lastScheduleTime"], "2026-03-01T00:05:30Z");

    let mut slower = World::new(&json!({"schedule": "@every 90s"}));
    assert_eq!(slower.settle(at("00:01:30")), Some(at("00:03:00")), "it counts from the last");
}

#[test]
fn jobs_that_ended_are_kept_as_many_as_is_said_and_the_oldest_go() {
    let mut world =
        World::new(&json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0}));
    for minute in [10, 20, 30, 40] {
        world.settle(at(&format!("00:{minute}:00")));
        let last = world.jobs.len() - 1;
        let how = if minute == 20 { "Failed" } else { "Complete" };
        world.end(last, how, &format!("00:{minute}:30"));
        world.settle(at(&format!("00:{minute}:31")));
    }
    assert_eq!(world.names(), ["tick-29538750", "tick-29538760"]);
    assert_eq!(world.cron_job["status"]["lastScheduleTime"], "2026-03-01T00:40:00Z");
}

#[test]
fn a_job_that_is_made_by_hand_is_no_time_of_it_and_keeps_no_other_from_coming() {
    let mut world = World::new(&json!({"concurrencyPolicy": "Forbid"}));
    let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cj",
        "controller": true});
    world.jobs.push(json!({"metadata": {"name": "by-hand", "namespace": "default", "uid": "u",
        "ownerReferences": [owner],
        "annotations": {"cronjob.kubernetes.io/instantiate": "manual"}}}));
    world.settle(at("00:10:00"));
    assert_eq!(world.names().len(), 2);
    assert_eq!(world.active(), 1);
    assert!(world.said.iter().any(|reason| reason == "UnexpectedJob"));
    // Nor does one that says a time without having its name.
    world.jobs[0]["metadata"]["annotations"] = json!({SCHEDULED: "2026-03-01T00:20:00Z"});
    world.settle(at("00:10:01"));
    assert_eq!(world.cron_job["status"]["lastScheduleTime"], "2026-03-01T00:10:00Z");
}

#[test]
fn what_never_comes_or_cannot_be_read_waits_for_ever_and_makes_nothing() {
    for (spec, says) in [
        (json!({"schedule": "0 0 31 2 *"}), None),
        (json!({"schedule": "every day"}), Some("UnparseableSchedule")),
        (json!({"timeZone": "Europe/Atlantis"}), Some("UnknownTimeZone")),
    ] {
        let world = World::new(&spec);
        let effects = world.look(at("12:00:00"));
        let said: Vec<&str> = effects.events.iter().map(|event| event.reason.as_str()).collect();
        assert_eq!(said, says.into_iter().collect::<Vec<_>>(), "{spec}");
        assert_eq!((effects.actions, effects.look_again), (vec![], None), "{spec}");
        assert_eq!(effects.begun, None, "{spec}");
    }
}

#[test]
fn a_name_that_somebody_else_has_is_told_and_not_tried_again_and_again() {
    let mut world = World::new(&json!({}));
    world.taken.insert("tick-29538730".to_owned());
    let effects = world.look(at("00:10:00"));
    assert_eq!((effects.actions, effects.begun), (vec![], None));
    assert_eq!(effects.events[0].reason, "FailedCreate");
    assert_eq!(effects.look_again, Some(at("00:20:00")));
}

#[test]
fn one_that_is_being_deleted_begins_nothing_and_ends_nothing() {
    let mut world = World::new(&json!({"successfulJobsHistoryLimit": 0}));
    world.settle(at("00:10:00"));
    world.end(0, "Complete", "00:11:00");
    world.cron_job["metadata"]["deletionTimestamp"] = "2026-03-01T00:12:00Z".into();
    world.settle(at("00:30:00"));
    assert_eq!(world.names().len(), 1);
    assert_eq!(world.active(), 0);
}

proptest! {
    #[test]
    fn no_time_has_two_jobs_however_often_it_looks_and_whatever_is_lost(
        steps in proptest::collection::vec((0_i64..400, any::<bool>(), 0_usize..4, any::<bool>()), 1..40),
        policy in proptest::sample::select(vec!["Allow", "Forbid", "Replace"]),
        schedule in proptest::sample::select(vec!["* * * * *", "*/7 * * * *", "@every 90s", "@every 7s"]),
        limit in 0_i32..2,
    ) {
        let mut world = World::new(&json!({"schedule": schedule, "concurrencyPolicy": policy,
            "successfulJobsHistoryLimit": limit, "failedJobsHistoryLimit": limit}));
        let mut now = at("00:00:00");
        for (later, is_status_written, ends, goes) in steps {
            now += k8s_openapi::jiff::SignedDuration::from_secs(later);
            // It asserts that no name is made twice.
            world.step(now, is_status_written);
            if let Some(job) = world.jobs.get_mut(ends)
                && job["status"].is_null()
            {
                job["status"] = json!({"completionTime": now.to_string(),
                    "conditions": [{"type": "Complete", "status": "True"}]});
                // Its time to live is over, or somebody deletes it.
                if goes {
                    world.jobs.remove(ends);
                }
            }
            let running = world.jobs.iter().filter(|job| job["status"].is_null()).count();
            prop_assert!(policy == "Allow" || running <= 1, "{running} run");
        }
        let before = world.settle(now);
        prop_assert_eq!(world.settle(now), before);
        let effects = world.look(now);
        prop_assert_eq!((effects.actions, effects.begun), (vec![], None));
    }
}
