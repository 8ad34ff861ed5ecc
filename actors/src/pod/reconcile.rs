//! Decides what a Pod actor does next. No IO, no clock.
//!
//! Guarantees: init containers run one after the other before anything else; the other containers
//! are started in order; nothing is started once the pod ends or has ended; a container runs in
//! one life at a time; when the actions have been carried out the next look gives none but
//! [`Action::WakeAt`]. Sidecars end after the containers that they serve.

use super::life::{Container, Ending, Life, Part, Pod, Sandbox};
use std::time::{Duration, Instant};

/// Something for the actor to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make what the containers share.
    Prepare,
    /// Start the container.
    Start(String),
    /// Stop the container within the grace period.
    Stop(String, Duration),
    /// End what may run although its start failed.
    Settle,
    /// The pod has run for longer than it may.
    Overdue,
    /// Remove every trace of the pod from the machine.
    Remove,
    /// Nothing is left: let the object go, and stop.
    Finish,
    /// Look again at that moment.
    WakeAt(Instant),
}

/// What must happen so that the pod becomes what its spec says.
pub fn reconcile(pod: &Pod, now: Instant) -> Vec<Action> {
    if pod.ending.is_some() {
        return end(pod);
    }
    if pod.outcome().is_some() {
        let mut actions = stop_sidecars(pod, pod.grace);
        actions.extend(settle(pod));
        return actions;
    }
    let mut actions = Vec::new();
    match pod.deadline {
        Some(deadline) if deadline <= now => return vec![Action::Overdue],
        Some(deadline) => actions.push(Action::WakeAt(deadline)),
        None => {}
    }
    match pod.sandbox {
        Sandbox::Absent { retry: Some(retry) } if retry > now => {
            actions.push(Action::WakeAt(retry));
        }
        Sandbox::Absent { .. } => actions.push(Action::Prepare),
        Sandbox::Ready => run(pod, now, &mut actions),
        Sandbox::Preparing | Sandbox::Removing | Sandbox::Removed => {}
    }
    earliest_wake(actions)
}

fn run(pod: &Pod, now: Instant, actions: &mut Vec<Action>) {
    for container in &pod.containers {
        if container.given_up.is_some()
            && let Life::Running { stopping: None, .. } = container.life
        {
            let grace = container.given_up_grace.unwrap_or(pod.grace);
            actions.push(Action::Stop(container.name.clone(), grace));
        }
    }
    for container in &pod.containers {
        let first = !container.ever_started();
        match startable(pod, container, now) {
            Startable::Now => {
                actions.push(Action::Start(container.name.clone()));
                if first {
                    return; // the next one when this one is up
                }
            }
            Startable::At(when) => actions.push(Action::WakeAt(when)),
            Startable::No => {}
        }
        let holds_up_the_next = match container.part {
            Part::Init => !matches!(&container.life, Life::Ended(ended) if ended.exit.code == 0),
            Part::Sidecar => first || !(container.started || container.restarts > 0),
            Part::Main => (container.life == Life::Starting && first) || container.is_greeting,
        };
        if holds_up_the_next {
            return;
        }
    }
}

enum Startable {
    Now,
    At(Instant),
    No,
}

fn startable(pod: &Pod, container: &Container, now: Instant) -> Startable {
    let wanted = match &container.life {
        Life::Waiting { .. } => true,
        Life::Ended(ended) => pod.restarts(container, ended.exit.code),
        Life::Starting | Life::Running { .. } => false,
    };
    match (wanted, container.backoff.blocked_until(now)) {
        (false, _) => Startable::No,
        (true, Some(until)) => Startable::At(until),
        (true, None) => Startable::Now,
    }
}

fn end(pod: &Pod) -> Vec<Action> {
    let serves = |container: &&Container| container.part == Part::Sidecar;
    let active =
        |container: &Container| matches!(container.life, Life::Running { .. } | Life::Starting);
    if pod.containers.iter().filter(|container| !serves(container)).any(active) {
        return pod
            .containers
            .iter()
            .filter(|c| !serves(c))
            .filter_map(|c| stop(c, pod.grace))
            .collect();
    }
    if pod.containers.iter().any(active) {
        return stop_sidecars(pod, pod.grace);
    }
    match (&pod.ending, pod.sandbox) {
        (Some(Ending::Failed { .. }) | None, _) => settle(pod).into_iter().collect(),
        (_, Sandbox::Preparing | Sandbox::Removing) => Vec::new(),
        (Some(Ending::Deleted), Sandbox::Removed) => vec![Action::Finish],
        (Some(Ending::Deleted), Sandbox::Absent { .. } | Sandbox::Ready) => vec![Action::Remove],
    }
}

/// A pod that is removed needs none of it.
fn settle(pod: &Pod) -> Option<Action> {
    let in_doubt = pod.containers.iter().any(|container| container.in_doubt);
    (in_doubt && !pod.is_settling).then_some(Action::Settle)
}

fn stop_sidecars(pod: &Pod, grace: Duration) -> Vec<Action> {
    let sidecars = pod.containers.iter().filter(|container| container.part == Part::Sidecar);
    sidecars.filter_map(|container| stop(container, grace)).collect()
}

fn stop(container: &Container, grace: Duration) -> Option<Action> {
    match container.life {
        Life::Running { stopping, .. } if stopping.is_none_or(|ordered| grace < ordered) => {
            Some(Action::Stop(container.name.clone(), grace))
        }
        _ => None,
    }
}

/// One timer is enough: later moments are found again on the next look.
fn earliest_wake(actions: Vec<Action>) -> Vec<Action> {
    let (wakes, mut rest): (Vec<_>, Vec<_>) =
        actions.into_iter().partition(|action| matches!(action, Action::WakeAt(_)));
    let earliest = wakes.into_iter().filter_map(|wake| match wake {
        Action::WakeAt(when) => Some(when),
        _ => None,
    });
    rest.extend(earliest.min().map(Action::WakeAt));
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{
        backoff::BackoffScale,
        life::{Outcome, Probed, RestartPolicy},
    };
    use impresario_host::{ContainerId, Exit};
    use impresario_runtime::clock;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn exit(code: i32) -> Exit {
        Exit {
            code,
            signal: None,
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
            reason: Exit::reason_for(code, false).to_owned(),
            message: String::new(),
        }
    }

    /// Containers by name; `i*` are init containers, `s*` sidecars.
    fn pod(policy: RestartPolicy, names: &[&str]) -> Pod {
        let containers = names.iter().map(|name| {
            let part = match name.as_bytes().first() {
                Some(b'i') => Part::Init,
                Some(b's') => Part::Sidecar,
                _ => Part::Main,
            };
            Container::new(name, part, Probed::default())
        });
        let mut pod = Pod::new(policy, BackoffScale::default(), containers.collect());
        pod.sandbox = Sandbox::Ready;
        pod
    }

    fn start(pod: &mut Pod, name: &str, now: Instant) {
        let attempt = pod.starting(name);
        pod.started(name, ContainerId(format!("{name}-{attempt}")), Timestamp::UNIX_EPOCH, now);
    }

    fn in_words(actions: &[Action]) -> String {
        let words = actions.iter().map(|action| match action {
            Action::Start(name) => format!("start {name}"),
            Action::Stop(name, grace) => format!("stop {name} in {}s", grace.as_secs()),
            Action::WakeAt(_) => "wake".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Runs a story: `+a` starts a, `a=1` ends it with 1, `!` deletes, `>20` passes 20 s,
    /// `?` notes what would be done now.
    fn told(policy: RestartPolicy, names: &[&str], story: &str) -> (String, Option<Outcome>) {
        let mut pod = pod(policy, names);
        let mut now = clock::now();
        for word in story.split_whitespace() {
            if let Some(name) = word.strip_prefix('+') {
                start(&mut pod, name, now);
            } else if let Some((name, code)) = word.split_once('=') {
                pod.ended(name, None, exit(code.parse().unwrap()), now);
            } else if let Some(seconds) = word.strip_prefix('>') {
                now += Duration::from_secs(seconds.parse().unwrap());
            } else {
                pod.end(Ending::Deleted, Duration::from_secs(5));
            }
        }
        (in_words(&reconcile(&pod, now)), pod.outcome())
    }

    #[test]
    fn containers_start_in_order_and_end_as_the_restart_policy_says() {
        type Row<'a> = (RestartPolicy, &'a [&'a str], &'a str, &'a str, Option<Outcome>);
        use Outcome::{Failed, Succeeded};
        use RestartPolicy::{Always, Never, OnFailure};
        let table: &[Row<'_>] = &[
            (Always, &["a", "b"], "", "start a", None),
            (Always, &["a", "b"], "+a", "start b", None),
            (Always, &["a", "b"], "+a +b", "", None),
            (Always, &["a"], "+a a=0", "start a", None),
            (Always, &["a"], "+a a=1 +a a=1", "wake", None),
            (Always, &["a"], "+a a=1 +a a=1 >10", "start a", None),
            (OnFailure, &["a"], "+a a=0", "", Some(Succeeded)),
            (OnFailure, &["a"], "+a a=3", "start a", None),
            (Never, &["a", "b"], "+a +b a=0", "", None),
            (Never, &["a", "b"], "+a +b a=0 b=0", "", Some(Succeeded)),
            (Never, &["a", "b"], "+a +b a=0 b=2", "", Some(Failed)),
            (Always, &["i1", "i2", "a"], "", "start i1", None),
            (Always, &["i1", "i2", "a"], "+i1", "", None),
            (Always, &["i1", "i2", "a"], "+i1 i1=0", "start i2", None),
            (Always, &["i1", "i2", "a"], "+i1 i1=0 +i2 i2=0", "start a", None),
            (Always, &["i1", "a"], "+i1 i1=1", "start i1", None),
            (Never, &["i1", "a"], "+i1 i1=1", "", Some(Failed)),
            (Never, &["s", "a"], "", "start s", None),
            (Never, &["s", "a"], "+s", "start a", None),
            (Never, &["s", "a"], "+s +a a=0", "stop s in 30s", Some(Succeeded)),
            (Never, &["s", "a"], "+s s=1 +a", "start s", None),
            (Always, &["a", "b"], "+a +b !", "stop a in 5s, stop b in 5s", None),
            (Always, &["a", "b"], "+a +b ! a=143", "stop b in 5s", None),
            (Always, &["s", "a"], "+s +a !", "stop a in 5s", None),
            (Always, &["s", "a"], "+s +a ! a=0", "stop s in 5s", None),
            (Always, &["a"], "+a ! a=143", "remove", Some(Failed)),
            (Always, &["a"], "!", "remove", Some(Failed)),
        ];
        for (policy, names, story, expected, outcome) in table {
            let told = told(*policy, names, story);
            assert_eq!(
                (told.0.as_str(), told.1),
                (*expected, *outcome),
                "{policy:?} {names:?}: {story}"
            );
        }
    }

    #[test]
    fn a_shorter_grace_period_overrides_one_that_is_running() {
        let now = clock::now();
        let mut pod = pod(RestartPolicy::Always, &["a"]);
        start(&mut pod, "a", now);
        pod.end(Ending::Deleted, Duration::from_secs(30));
        pod.stopping("a", Duration::from_secs(30));
        assert!(reconcile(&pod, now).is_empty());
        pod.end(Ending::Deleted, Duration::from_secs(1));
        assert_eq!(in_words(&reconcile(&pod, now)), "stop a in 1s");
        pod.end(Ending::Deleted, Duration::from_mins(1));
        pod.stopping("a", Duration::from_secs(1));
        assert!(reconcile(&pod, now).is_empty());
    }

    #[test]
    fn a_pod_that_has_run_for_too_long_is_overdue() {
        let now = clock::now();
        let mut pod = pod(RestartPolicy::Always, &["a"]);
        start(&mut pod, "a", now);
        pod.deadline = Some(now + Duration::from_secs(5));
        assert_eq!(reconcile(&pod, now), [Action::WakeAt(now + Duration::from_secs(5))]);
        assert_eq!(reconcile(&pod, now + Duration::from_secs(5)), [Action::Overdue]);
    }

    #[test]
    fn a_container_that_a_probe_gave_up_has_the_probes_own_grace_period() {
        let now = clock::now();
        let mut pod = pod(RestartPolicy::Always, &["a", "b"]);
        for name in ["a", "b"] {
            start(&mut pod, name, now);
            let container = pod.container_mut(name).unwrap();
            container.given_up = Some("failed liveness probe".into());
            container.given_up_grace = (name == "b").then_some(Duration::from_secs(2));
        }
        assert_eq!(in_words(&reconcile(&pod, now)), "stop a in 30s, stop b in 2s");
    }

    #[test]
    fn an_image_that_cannot_be_pulled_holds_up_only_its_own_container() {
        let now = clock::now();
        let mut pod = pod(RestartPolicy::Never, &["a", "b"]);
        pod.starting("a");
        pod.start_failed("a", "ErrImagePull", "no such image", now);
        assert_eq!(in_words(&reconcile(&pod, now)), "start b, wake");
        start(&mut pod, "b", now);
        assert_eq!(reconcile(&pod, now), [Action::WakeAt(now + Duration::from_secs(10))]);
        assert_eq!(pod.container("a").map(|a| (a.restarts, a.attempt)), Some((0, 0)));
    }

    /// A pod whose container was started without an answer.
    fn unheard(now: Instant) -> Pod {
        let mut pod = pod(RestartPolicy::Never, &["a"]);
        pod.starting("a");
        pod.doubt("a", true);
        pod.start_failed("a", "CreateContainerError", "no answer", now);
        pod
    }

    #[test]
    fn what_may_run_unheard_of_is_ended_before_its_pod_counts_as_over() {
        let now = clock::now();
        let mut pod = unheard(now);
        assert_eq!(in_words(&reconcile(&pod, now)), "wake", "the next try looks");
        let failed = Ending::Failed { reason: "DeadlineExceeded".into(), message: String::new() };
        pod.end(failed, Duration::ZERO);
        assert_eq!((reconcile(&pod, now), pod.outcome()), (vec![Action::Settle], None));
        pod.is_settling = true;
        assert!(reconcile(&pod, now).is_empty() && pod.is_active(), "it is asked for once");
        pod.settled();
        assert_eq!((reconcile(&pod, now), pod.outcome()), (vec![], Some(Outcome::Failed)));
        assert!(!pod.is_active());
    }

    #[test]
    fn a_pod_that_is_deleted_is_removed_whatever_may_run_of_it() {
        let now = clock::now();
        let mut pod = unheard(now);
        pod.end(Ending::Deleted, Duration::ZERO);
        assert_eq!(reconcile(&pod, now), [Action::Remove]);
    }

    proptest! {
        /// Whatever containers do and in whatever order it is heard, the pod settles: carrying
        /// the actions out leaves nothing to do, and a deletion always comes to its end.
        #[test]
        fn every_story_settles_and_every_deletion_finishes(
            policy in prop_oneof![
                Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)
            ],
            events in proptest::collection::vec((0..4usize, 0..3i32), 0..30),
        ) {
            let names = ["i1", "s1", "a", "b"];
            let mut pod = pod(policy, &names);
            pod.sandbox = Sandbox::Absent { retry: None };
            let mut now = clock::now();
            let settle = |pod: &mut Pod, now: Instant| {
                for _ in 0..40 {
                    let actions = reconcile(pod, now);
                    if actions.iter().all(|action| matches!(action, Action::WakeAt(_))) {
                        return None;
                    }
                    for action in actions {
                        match action {
                            Action::Prepare => pod.sandbox = Sandbox::Ready,
                            Action::Remove => pod.sandbox = Sandbox::Removed,
                            Action::Start(name) => start(pod, &name, now),
                            Action::Stop(name, _) => pod.ended(&name, None, exit(143), now),
                            Action::Settle => pod.settled(),
                            Action::Finish => return Some(()),
                            Action::Overdue | Action::WakeAt(_) => {}
                        }
                    }
                }
                panic!("never settles: {pod:?}");
            };
            for (index, code) in events {
                prop_assert!(settle(&mut pod, now).is_none());
                if pod.container(names[index]).is_some_and(Container::is_running) {
                    pod.ended(names[index], None, exit(code), now);
                }
                now += Duration::from_secs(7);
                if pod.outcome().is_some() {
                    prop_assert!(!reconcile(&pod, now).iter().any(|a| matches!(a, Action::Start(_))));
                }
            }
            pod.end(Ending::Deleted, Duration::ZERO);
            prop_assert!(settle(&mut pod, now).is_some());
            prop_assert!(!pod.is_active());
        }
    }
}
