//! Cron jobs: what their user sees of them between two times.

use impresario_e2e::{Site, with_a_kubectl, with_every_kubectl};

with_every_kubectl!(a_cron_job_is_tried_by_hand_suspended_and_told_of);
with_a_kubectl!(what_is_no_schedule_or_no_zone_is_refused);

fn a_cron_job_is_tried_by_hand_suspended_and_told_of(site: &Site) {
    let kubectl = &site.kubectl;
    // Its time comes once in a year.
    kubectl
        .run_with(
            "create cronjob yearly --image=busybox",
            &["--schedule=0 0 1 1 *", "--", "sh", "-c", "echo done"],
        )
        .ok();
    let zone = r#"{"spec":{"timeZone":"Europe/Berlin"}}"#;
    kubectl.run_with("patch cronjob yearly --patch", &[zone]).ok();
    kubectl.run("create job by-hand --from=cronjob/yearly").ok();
    kubectl.run("wait --for=condition=Complete job/by-hand --timeout=120s").ok();
    kubectl.until("get job by-hand", "{.metadata.ownerReferences[0].kind}", "CronJob");
    let last = "{.status.lastSuccessfulTime}";
    let ended = kubectl.field("get job by-hand", "{.status.completionTime}");
    // A kubectl before 1.28 makes a job that the cron job owns and does not control: it says nothing of that one.
    if kubectl.field("get job by-hand", "{.metadata.ownerReferences[0].controller}") == "true" {
        kubectl.until("get cronjob yearly", last, &ended);
    }
    assert_eq!(kubectl.field("get cronjob yearly", "{.status.active}"), "");

    let shown = kubectl.run("get cj yearly --no-headers").ok();
    let shown: Vec<_> = shown.split_whitespace().skip(1).take(9).collect();
    assert_eq!(shown[..8], ["0", "0", "1", "1", "*", "Europe/Berlin", "False", "0"]);
    assert_eq!(shown[8], "<none>", "its time has not come");

    let suspend = r#"{"spec":{"suspend":true,"schedule":"* * * * *"}}"#;
    kubectl.run_with("patch cronjob yearly --patch", &[suspend]).ok();
    kubectl.until("get cronjob yearly", "{.spec.suspend}", "true");
    let described = kubectl.run("describe cronjob yearly").ok();
    for word in ["* * * * *", "Concurrency Policy"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    kubectl.run("delete cronjob yearly").ok();
    kubectl.until("get jobs,pods", "{.items[*].metadata.name}", "");
}

fn what_is_no_schedule_or_no_zone_is_refused(site: &Site) {
    let create = |schedule: &str| {
        let schedule = format!("--schedule={schedule}");
        site.kubectl.run_with("create cronjob bad --image=busybox", &[&schedule])
    };
    for (schedule, word) in [
        ("every day", "expected exactly 5 fields, found 2"),
        ("0 0 * * 7", "day of the week"),
        ("TZ=UTC 0 0 * * *", "use timeZone field instead"),
    ] {
        let refused = create(schedule).refused();
        assert!(refused.contains(word), "{schedule}: {refused}");
    }
    create("0 0 31 2 *").ok();
    let zone = r#"{"spec":{"timeZone":"Europe/Atlantis"}}"#;
    let refused = site.kubectl.run_with("patch cronjob bad --patch", &[zone]).refused();
    assert!(refused.contains("unknown time zone"), "{refused}");
}
