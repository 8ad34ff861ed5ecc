//! A job's world in which anything may happen, and in which what the plan says is done at once.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One thing that happens to a job's world.
#[derive(Debug, Clone)]
enum Step {
    Succeed(usize),
    Fail(usize),
    Delete(usize),
    Leave(usize),
    Scale(i32, i32),
    Suspend(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8usize).prop_map(Step::Succeed),
        2 => (0..8usize).prop_map(Step::Fail),
        1 => (0..8usize).prop_map(Step::Delete),
        2 => (0..8usize).prop_map(Step::Leave),
        1 => (1..5i32, 1..7i32).prop_map(|(p, c)| Step::Scale(p, c)),
        1 => any::<bool>().prop_map(Step::Suspend),
    ];
    proptest::collection::vec(step, 0..40)
}

/// A world in which what the plan says is done at once.
struct World {
    job: Job,
    pods: BTreeMap<String, Pod>,
    made: usize,
    now: Timestamp,
    /// Successes that the job has counted, and pods that it ended itself.
    ended: BTreeSet<String>,
}

impl World {
    fn look(&mut self) {
        for _ in 0..20 {
            let seen: Vec<_> = self.pods.values().cloned().map(Arc::new).collect();
            let plan = reconcile(&self.job, &seen, self.now);
            if plan.actions.is_empty() {
                return;
            }
            for action in plan.actions {
                match action {
                    Action::Create(place) => {
                        let name = format!("p{:04}", self.made);
                        self.made += 1;
                        let mut words = format!("{name}:ready");
                        if let Some(Place { index, failures }) = place {
                            write!(words, ",index={index}").unwrap();
                            if let Some((counted, _)) = failures {
                                write!(words, ",failures={counted}").unwrap();
                            }
                        }
                        self.pods.insert(name, pod(&words, self.made, "job", "x"));
                    }
                    Action::End(id) => {
                        let pod = self.pods.get_mut(&id.name).unwrap();
                        pod.metadata.finalizers = None;
                        pod.metadata.deletion_timestamp = Some(Time(self.now));
                        self.ended.insert(id.name);
                    }
                    Action::Report { status, counted } => {
                        self.job.status = Some(*status);
                        for id in counted {
                            let pod = self.pods.get_mut(&id.name).unwrap();
                            assert!(pod.metadata.finalizers.take().is_some(), "counted twice");
                        }
                    }
                    Action::DeleteJob => {}
                }
            }
        }
        panic!("it does not come to rest: {:?}", self.job.status);
    }

    fn nth(&mut self, n: usize) -> Option<&mut Pod> {
        let count = self.pods.len();
        (count > 0).then(|| self.pods.values_mut().nth(n % count)).flatten()
    }

    fn happen(&mut self, step: &Step) {
        let ended = |pod: &Pod| pod.finished();
        let end = |pod: &mut Pod, phase: &str, now: Timestamp| {
            if !ended(pod) {
                let status = pod.status.as_mut().unwrap();
                status.phase = Some(phase.into());
                let ended = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"terminated": {
                        "exitCode": i32::from(phase == "Failed"), "finishedAt": now}}}]);
                status.container_statuses = serde_json::from_value(ended).ok();
            }
        };
        let now = self.now;
        match step {
            Step::Succeed(n) => drop(self.nth(*n).map(|pod| end(pod, "Succeeded", now))),
            Step::Fail(n) => drop(self.nth(*n).map(|pod| end(pod, "Failed", now))),
            Step::Delete(n) => {
                if let Some(pod) = self.nth(*n) {
                    pod.metadata.deletion_timestamp.get_or_insert(Time(now));
                }
            }
            // A pod that is being deleted goes when it has ended and nothing holds it.
            Step::Leave(n) => {
                let Some(pod) = self.nth(*n) else { return };
                if pod.terminating() && pod.metadata.finalizers.is_none() {
                    let name = pod.name().to_owned();
                    self.pods.remove(&name);
                }
            }
            Step::Scale(p, c) => {
                // What was announced is not taken back for a job that grows after it.
                if self.job.status.as_ref().and_then(Verdict::announced).is_some() {
                    return;
                }
                let spec = self.job.spec.as_mut().unwrap();
                spec.parallelism = Some(*p);
                if spec.completion_mode.is_some() {
                    spec.completions = Some(*c);
                }
            }
            Step::Suspend(suspend) => {
                self.job.spec.as_mut().unwrap().suspend = Some(*suspend);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_end_counts_twice_and_a_job_comes_to_its_end(
        steps in steps(),
        kind in 0..5usize,
    ) {
        let words = [
            "p=3 c=5 limit=1000",
            "p=3 c=5 indexed limit=1000",
            "p=3 c=5 indexed each=1 limit=1000",
            "p=3 c=5 replace=Failed limit=1000",
            "p=2 c=4 indexed each=2 fails=Count limit=1000",
        ][kind];
        let now = Timestamp::from_second(10_000).unwrap();
        let mut world =
            World { job: job(words), pods: BTreeMap::new(), made: 0, now, ended: BTreeSet::new() };
        for step in &steps {
            world.look();
            world.happen(step);
            world.now += SignedDuration::from_secs(400);
            world.look();
            let spec = world.job.spec.clone().unwrap();
            let status = world.job.status.clone().unwrap_or_default();
            let alive: Vec<_> = world
                .pods
                .values()
                .filter(|pod| !pod.finished() && !pod.terminating())
                .collect();
            let most = usize::try_from(spec.parallelism.unwrap()).unwrap();
            prop_assert!(alive.len() <= most, "{} of {most}", alive.len());
            if spec.completion_mode.is_some() {
                let indexes: BTreeSet<_> = alive.iter().map(|pod| index(pod)).collect();
                prop_assert_eq!(indexes.len(), alive.len(), "one pod for an index");
                let done = status.succeeded.unwrap_or(0) <= spec.completions.unwrap();
                prop_assert!(done, "{:?}", status);
            }
            if is_finished(&status) {
                prop_assert!(alive.is_empty());
            }
        }
        // From now on all goes well.
        world.happen(&Step::Suspend(false));
        for round in 0..60 {
            world.look();
            world.now += SignedDuration::from_secs(400);
            for n in 0..world.pods.len() {
                world.happen(&Step::Succeed(n));
            }
            world.look();
            for n in (0..world.pods.len()).rev() {
                world.happen(&Step::Leave(n));
            }
            world.look();
            if is_finished(world.job.status.as_ref().unwrap()) {
                break;
            }
            prop_assert!(round < 59, "it never ends: {:?} {:?}", world.job.status, world.pods);
        }
        let status = world.job.status.clone().unwrap();
        let is_complete =
            status.conditions.iter().flatten().any(|condition| condition.type_ == "Complete");
        if is_complete && world.job.spec.as_ref().unwrap().completion_mode.is_some() {
            prop_assert_eq!(status.succeeded, world.job.spec.as_ref().unwrap().completions);
        }
        let uncounted = world.pods.values().filter(|pod| pod.metadata.finalizers.is_some());
        prop_assert_eq!(uncounted.count(), 0, "all ends are counted");
    }
}
