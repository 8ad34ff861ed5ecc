//! Numbers that somebody else chose: sizes of pods, and times and counts in a status.

use super::super::super::table::pod;
use super::*;
use serde_json::{Value, json};

fn job(spec: Value, status: Value) -> Job {
    serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap()
}

fn pods(words: &[&str]) -> Vec<Arc<Pod>> {
    words.iter().map(|words| Arc::new(pod(words, 0, "job", "x"))).collect()
}

#[test]
fn one_report_counts_no_more_than_a_transaction_can_carry() {
    let template = json!({"metadata": {}});
    let job = job(json!({"parallelism": 5, "completions": 5, "template": template}), json!({}));
    let pods = pods(&["a:succeeded", "b:succeeded", "c:succeeded", "d:succeeded", "e:succeeded"]);
    let counted = |size: usize| {
        let plan = reconcile_sized(&job, &pods, &[size; 5], Timestamp::UNIX_EPOCH);
        let report = plan.actions.into_iter().find_map(|action| match action {
            Action::Report { counted, .. } => Some(counted.len()),
            _ => None,
        });
        report.unwrap()
    };
    assert_eq!((counted(0), counted(12_000), counted(300_000)), (5, 5, 3));
    assert_eq!(counted(1_500_000), 1, "it goes on, one by one");
}

#[test]
fn a_time_later_than_the_calendar_never_comes() {
    let now = Timestamp::from_second(5_000).unwrap();
    let spec = |deadline: i64| {
        json!({"parallelism": 1, "completions": 1, "activeDeadlineSeconds": deadline,
            "ttlSecondsAfterFinished": i32::MAX, "template": {"metadata": {}}})
    };
    let started = json!({"startTime": "1970-01-01T01:23:20Z"});
    let plan = reconcile(&job(spec(i64::MAX), started), &pods(&["a:ready"]), now);
    assert_eq!(plan.look_again, None);
    // Who may write a status may write any time and any count into it.
    let late = "9999-12-30T21:59:00Z";
    let odd = json!({"startTime": late, "succeeded": i32::MIN, "failed": i32::MAX});
    let _ = reconcile(&job(spec(60), odd), &pods(&["a:succeeded", "b:failed"]), now);
    let ended = json!({"conditions":
        [{"type": "Complete", "status": "True", "lastTransitionTime": late}]});
    assert_eq!(reconcile(&job(spec(60), ended), &[], now).look_again, None);
}
