use super::super::super::table::{cells, pod};
use super::*;
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use std::fmt::Write as _;

mod world;

fn job(words: &str) -> Job {
    let mut spec = JobSpec { backoff_limit: Some(6), ..JobSpec::default() };
    let mut status = JobStatus::default();
    let mut metadata = ObjectMeta::default();
    let announced = |type_: &str, reason: &str| {
        let condition =
            json!([{"type": type_, "status": "True", "reason": reason, "message": "m"}]);
        serde_json::from_value(condition).unwrap()
    };
    for word in words.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = value.parse::<i32>().ok();
        match key {
            "p" => spec.parallelism = number,
            "c" => spec.completions = number,
            "limit" => spec.backoff_limit = number,
            "indexed" => spec.completion_mode = Some("Indexed".into()),
            "each" => spec.backoff_limit_per_index = number,
            "most" => spec.max_failed_indexes = number,
            "suspend" => spec.suspend = Some(true),
            "replace" => spec.pod_replacement_policy = Some(value.into()),
            "onfailure" => {
                let restart = Some("OnFailure".to_owned());
                spec.template.spec =
                    Some(PodSpec { restart_policy: restart, ..PodSpec::default() });
            }
            "fails" => {
                let codes = json!({"operator": "In", "values": [1]});
                let rules = json!({"rules": [{"action": value, "onExitCodes": codes}]});
                spec.pod_failure_policy = Some(serde_json::from_value(rules).unwrap());
            }
            "succeeds" => {
                let rule = match number {
                    Some(count) => json!({"succeededCount": count}),
                    None => json!({"succeededIndexes": value}),
                };
                let rules = json!({"rules": [rule]});
                spec.success_policy = Some(serde_json::from_value(rules).unwrap());
            }
            "by" => spec.managed_by = Some(value.into()),
            "succeeded" => status.succeeded = number,
            "failed" => status.failed = number,
            "done" => status.completed_indexes = Some(value.into()),
            "lost" => status.failed_indexes = Some(value.into()),
            "deadline" => spec.active_deadline_seconds = number.map(i64::from),
            "target" => status.conditions = Some(announced("FailureTarget", value)),
            "met" => status.conditions = Some(announced("SuccessCriteriaMet", value)),
            "deleted" => metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH)),
            other => panic!("unknown word {other}"),
        }
    }
    Job { metadata, spec: Some(spec), status: Some(status) }
}

fn pods(words: &str) -> Vec<Arc<Pod>> {
    let all = words.split_whitespace().enumerate();
    all.map(|(age, words)| Arc::new(pod(words, age, "job", "x"))).collect()
}

fn in_words(plan: &Plan) -> String {
    let mut words = Vec::new();
    let mut created = 0;
    for action in &plan.actions {
        match action {
            Action::Create(Some(Place { index, failures: None })) => {
                words.push(format!("create #{index}"));
            }
            Action::Create(Some(Place { index, failures: Some((counted, ignored)) })) => {
                words.push(format!("create #{index} after {counted}+{ignored}"));
            }
            Action::Create(None) => created += 1,
            Action::End(pod) => words.push(format!("end {}", pod.name)),
            Action::DeleteJob => words.push("delete job".into()),
            Action::Report { status, counted } => {
                if created > 0 {
                    words.push(format!("create {created}"));
                    created = 0;
                }
                let ends: Vec<_> = status
                    .conditions
                    .iter()
                    .flatten()
                    .map(|condition| {
                        let reason = condition.reason.as_deref().unwrap_or_default();
                        format!("{}/{reason}", condition.type_)
                    })
                    .collect();
                let names: Vec<_> = counted.iter().map(|pod| pod.name.as_str()).collect();
                let mut text = format!(
                    "{}+{} [{}] {}",
                    status.succeeded.unwrap_or(0),
                    status.failed.unwrap_or(0),
                    names.join(" "),
                    ends.join(" ")
                );
                text.truncate(text.trim_end().len());
                if let Some(lost) = status.failed_indexes.as_ref().filter(|lost| !lost.is_empty()) {
                    write!(text, " lost {lost}").unwrap();
                }
                words.push(text);
            }
        }
    }
    words.join(", ").trim().to_owned()
}

fn check(table: &str) {
    for row in table.lines().skip(2) {
        let [job_words, pod_words, expected] = cells(row);
        let now = Timestamp::from_second(100_000).unwrap();
        let plan = reconcile(&job(job_words), &pods(pod_words), now);
        let complete = "SuccessCriteriaMet/CompletionsReached Complete/CompletionsReached";
        let expected = expected.replace("COMPLETE", complete);
        assert_eq!(in_words(&plan), expected, "in row {row}");
    }
}

#[test]
fn every_end_is_counted_once_and_no_more_pods_run_than_are_needed() {
    // "1+2 [a b] X": one success and two failures in the status, pods a and b newly counted
    check(
        "
        job                  | pods                              | plan
        p=2 c=3              |                                   | create 2, 0+0 []
        p=2 c=3              | a:ready b:ready                   | 0+0 []
        p=2 c=3              | a:succeeded b:ready               | create 1, 1+0 [a]
        p=2 c=3 succeeded=1  | a:succeeded,counted b:ready       | create 1, 1+0 []
        p=2 c=3 succeeded=2  | a:succeeded b:ready,counted       | end b, 3+0 [a] SuccessCriteriaMet/CompletionsReached
        p=2 c=3 succeeded=2  | a:succeeded                       | 3+0 [a] COMPLETE
        p=2 c=3 succeeded=2  | b:ready,terminating a:succeeded   | 3+1 [b a] SuccessCriteriaMet/CompletionsReached
        p=1 c=2              | a:ready b:ready                   | end b, 0+0 []
        p=2 c=2 limit=0      | a:failed b:ready                  | end b, 0+1 [a] FailureTarget/BackoffLimitExceeded
        p=2 c=2 limit=0      | a:failed                          | 0+1 [a] FailureTarget/BackoffLimitExceeded Failed/BackoffLimitExceeded
        p=2 c=2 suspend      | a:ready                           | end a, 0+0 [] Suspended/JobSuspended
        p=2 c=2 suspend      | a:ready,terminating,counted       | 0+0 [] Suspended/JobSuspended
        p=2 c=3 by=example.org/other | a:succeeded               |
        p=2 c=3 by=kubernetes.io/job-controller |                | create 2, 0+0 []
        p=2                  | a:succeeded b:ready               | 1+0 [a]
        p=2 succeeded=1      | b:succeeded                       | 2+0 [b] COMPLETE
        p=1 c=1 deleted      | a:ready b:failed                  | 0+1 [b]
        p=1 c=1 deleted      | b:ready,terminating               | 0+1 [b]",
    );
}

#[test]
fn an_indexed_job_has_one_pod_for_each_index_that_it_has() {
    check(
        "
        job                    | pods                                      | plan
        p=2 c=3 indexed        | a:ready,index=1                           | create #0, 0+0 []
        p=3 c=3 indexed done=0 | a:succeeded,index=2 b:ready,index=1       | 2+0 [a]
        p=1 c=2 indexed done=0 | a:succeeded,index=0                       | create #1, 1+0 [a]
        p=3 c=3 indexed        | a:ready,index=0 b:ready,index=0           | end b, 0+0 []
        p=2 c=2 indexed        | a:ready,index=0 b:ready,index=1 c:ready,index=2 | end c, 0+0 []
        p=2 c=2 indexed        | a:ready,index=2 b:ready,index=3           | end a, end b, 0+0 []
        p=2 c=2 indexed done=0,2,3 | b:ready,index=1                       | 1+0 []
        p=2 c=2 indexed        | a:succeeded,index=2 b:ready,index=0 c:ready,index=1 | 0+0 [a]
        p=2 c=2 indexed        | a:failed,index=5 b:ready,index=0 c:ready,index=1    | 0+0 [a]",
    );
}

#[test]
fn what_a_job_announced_stays_and_nothing_is_started_after_it() {
    check(
        "
        job                       | pods            | plan
        p=1 c=1 target=Because    |                 | 0+0 [] FailureTarget/Because Failed/Because
        p=1 c=1 target=Because    | a:ready         | end a, 0+0 [] FailureTarget/Because
        p=1 c=1 target=Because    | a:ready,terminating | 0+1 [a] FailureTarget/Because
        p=2 c=2 met=SuccessPolicy |                 | 0+0 [] SuccessCriteriaMet/SuccessPolicy Complete/SuccessPolicy
        p=2 c=2 met=SuccessPolicy | a:ready,counted | end a, 0+0 [] SuccessCriteriaMet/SuccessPolicy",
    );
}

#[test]
fn each_index_may_fail_as_often_as_the_job_says() {
    check(
        "
        job                          | pods                                                | plan
        p=2 c=2 indexed each=0       | a:failed,index=0 b:ready,index=1                    | 0+1 [a] lost 0
        p=2 c=2 indexed each=0 lost=0 | b:succeeded,index=1                                | 1+0 [b] FailureTarget/FailedIndexes Failed/FailedIndexes lost 0
        p=2 c=2 indexed each=0 lost=0 | b:failed,index=1                                   | 0+1 [b] FailureTarget/FailedIndexes Failed/FailedIndexes lost 0,1
        p=1 c=3 indexed each=0 most=0 | a:failed,index=0                                   | 0+1 [a] FailureTarget/MaxFailedIndexesExceeded Failed/MaxFailedIndexesExceeded lost 0
        p=1 c=3 indexed each=0 most=1 | a:failed,index=0                                   | create #1 after 0+0, 0+1 [a] lost 0
        p=1 c=1 indexed each=1        | a:failed,index=0                                   | create #0 after 1+0, 0+0 []
        p=1 c=1 indexed each=1        | a:failed,index=0 b:ready,index=0,failures=1        | 0+1 [a]
        p=1 c=1 indexed each=1 failed=1 | a:failed,index=0,counted b:failed,index=0,failures=1 | 0+2 [b] FailureTarget/FailedIndexes Failed/FailedIndexes lost 0
        p=1 c=1 indexed each=1 deleted  | a:failed,index=0                                 | 0+1 [a]
        p=1 c=1 indexed each=1 target=X | a:failed,index=0                                 | 0+1 [a] FailureTarget/X Failed/X",
    );
}

#[test]
fn policies_say_what_failures_and_successes_mean() {
    check(
        "
        job                               | pods                                    | plan
        p=2 c=4 fails=FailJob             | a:failed b:ready                        | end b, 0+1 [a] FailureTarget/PodFailurePolicy
        p=1 c=1 fails=Ignore limit=0      | a:failed                                | create 1, 0+0 [a]
        p=1 c=1 fails=Count limit=0       | a:failed                                | 0+1 [a] FailureTarget/BackoffLimitExceeded Failed/BackoffLimitExceeded
        p=1 c=2 indexed each=3 fails=FailIndex | a:failed,index=0                   | create #1 after 0+0, 0+1 [a] lost 0
        p=1 c=1 indexed each=3 fails=Ignore | a:failed,index=0                      | create #0 after 0+1, 0+0 []
        p=3 c=3 indexed succeeds=1        | a:succeeded,index=2 b:ready,index=0     | end b, 1+0 [a] SuccessCriteriaMet/SuccessPolicy
        p=3 c=3 indexed succeeds=0,1 done=1 | a:succeeded,index=0                   | 2+0 [a] SuccessCriteriaMet/SuccessPolicy Complete/SuccessPolicy
        p=3 c=3 indexed succeeds=0-1 done=2 | a:succeeded,index=0 b:ready,index=1   | 2+0 [a]",
    );
}

#[test]
fn a_job_that_waits_for_the_end_of_its_pods_has_never_two_of_one_place() {
    check(
        "
        job                          | pods                              | plan
        p=1 c=1 replace=Failed       | a:ready,terminating               | 0+0 []
        p=1 c=1 replace=Failed       | a:failed,terminating              | create 1, 0+1 [a]
        p=1 c=1                      | a:ready,terminating               | create 1, 0+1 [a]
        p=1 c=1 fails=Count          | a:ready,terminating               | 0+0 []
        p=2 c=2 indexed replace=Failed | a:ready,terminating,index=0     | create #1, 0+0 []
        p=2 c=2 indexed              | a:ready,terminating,index=0       | create #0, create #1, 0+1 [a]",
    );
}

#[test]
fn a_container_that_is_started_again_in_place_counts_and_so_do_those_that_come_first() {
    let now = Timestamp::from_second(100_000).unwrap();
    for (limit, restarts, is_over) in [(0, 0, false), (0, 1, true), (3, 2, false), (3, 3, true)] {
        let mut pod = pod("a:ready", 0, "job", "x");
        let status = pod.status.as_mut().unwrap();
        let first = ContainerStatus { restart_count: restarts, ..ContainerStatus::default() };
        status.init_container_statuses = Some(vec![first]);
        let job = job(&format!("p=1 c=1 onfailure limit={limit}"));
        let plan = reconcile(&job, &[Arc::new(pod)], now);
        let ends = plan.actions.iter().any(|action| matches!(action, Action::End(_)));
        assert_eq!(ends, is_over, "{restarts} of {limit}");
    }
}

#[test]
fn more_ends_than_one_transaction_carries_all_count_at_once_and_are_written_in_portions() {
    let words: Vec<_> = (0..600).map(|n| format!("p{n:03}:succeeded")).collect();
    let pods = pods(&words.join(" "));
    let now = Timestamp::from_second(100_000).unwrap();
    let plan = reconcile(&job("p=600 c=601"), &pods, now);
    let created = plan.actions.iter().filter(|action| matches!(action, Action::Create(_))).count();
    assert_eq!(created, 1, "finished work is not done again");
    let Some(Action::Report { status, counted }) = plan.actions.last() else { panic!("{plan:?}") };
    assert_eq!((status.succeeded, counted.len()), (Some(250), COUNTED_AT_ONCE));

    let plan = reconcile(&job("p=600 c=600"), &pods, now);
    let Some(Action::Report { status, .. }) = plan.actions.last() else { panic!("{plan:?}") };
    assert!(!is_finished(status), "the end waits until all are counted");
}

#[test]
fn after_failures_in_a_row_the_next_pod_waits_twice_as_long() {
    let failed: Vec<_> = (0..3).map(|n| format!("f{n}:failed,counted")).collect();
    let pods = pods(&failed.join(" "));
    let last = Timestamp::from_second(1_002).unwrap();
    for (count, wait) in [(1, 10), (2, 20), (3, 40)] {
        let job = job("p=1 c=1 failed=3");
        let pods = &pods[3 - count..];
        let due = last + SignedDuration::from_secs(wait);
        let early = reconcile(&job, pods, due - SignedDuration::from_secs(1));
        assert_eq!(early.look_again, Some(due));
        assert!(!early.actions.contains(&Action::Create(None)));
        let late = reconcile(&job, pods, due);
        assert!(late.actions.contains(&Action::Create(None)));
    }
}

#[test]
fn a_success_in_the_second_of_a_failure_does_not_end_the_wait() {
    let mut both =
        [pod("a:succeeded,counted", 0, "job", "x"), pod("b:failed,counted", 0, "job", "x")];
    both[1].metadata.name = Some("b".into());
    let pods = both.map(Arc::new);
    let now = Timestamp::from_second(1_001).unwrap();
    let plan = reconcile(&job("p=2 c=4 succeeded=1 failed=1"), &pods, now);
    assert_eq!(plan.look_again, Some(Timestamp::from_second(1_010).unwrap()));
    assert!(!plan.actions.contains(&Action::Create(None)));
}

#[test]
fn an_index_waits_for_itself_alone() {
    let pods = pods("a:failed,index=0");
    let now = Timestamp::from_second(1_001).unwrap();
    let plan = reconcile(&job("p=2 c=2 indexed each=3"), &pods, now);
    assert_eq!(in_words(&plan), "create #1 after 0+0, 0+0 []");
    assert_eq!(plan.look_again, Some(Timestamp::from_second(1_010).unwrap()));
}

#[test]
fn a_job_past_its_deadline_fails_and_ends_its_pods() {
    let mut job = job("p=1 c=1 deadline=30");
    let start = Timestamp::from_second(5_000).unwrap();
    job.status.as_mut().unwrap().start_time = Some(Time(start));
    let pods = pods("a:ready");
    let before = reconcile(&job, &pods, start + SignedDuration::from_secs(29));
    assert_eq!(before.look_again, Some(start + SignedDuration::from_secs(30)));
    let after = reconcile(&job, &pods, start + SignedDuration::from_secs(30));
    assert_eq!(in_words(&after), "end a, 0+0 [] FailureTarget/DeadlineExceeded");
}

#[test]
fn once_the_status_is_written_there_is_nothing_left_to_report() {
    let pods = pods("a:ready,counted");
    let now = Timestamp::from_second(5_000).unwrap();
    let mut job = job("p=1 c=1");
    let first = reconcile(&job, &pods, now);
    let [Action::Report { status, .. }] = &first.actions[..] else { panic!("{first:?}") };
    job.status = Some((**status).clone());
    assert_eq!(reconcile(&job, &pods, now + SignedDuration::from_secs(5)).actions, []);
}
