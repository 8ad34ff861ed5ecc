//! What the fields of a job do, as its user sees it.

use impresario_e2e::{Site, eventually, with_a_kubectl};
use std::collections::BTreeSet;

with_a_kubectl!(
    a_failure_policy_ends_a_job_at_its_first_hopeless_pod,
    each_index_may_fail_for_itself,
    a_job_that_waits_for_the_end_of_its_pods_never_has_two,
    a_success_policy_ends_a_job_early,
    pods_that_the_job_ends_itself_are_no_failures,
    an_elastic_job_shrinks_from_its_end,
    a_container_s_own_index_stays_and_hosts_are_named_by_it,
    a_job_that_restarts_in_place_counts_its_restarts_and_starts_nothing_after_its_limit,
);

fn job(name: &str, spec: &str, restart: &str, containers: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {}\n  template:\n    \
         spec:\n      restartPolicy: {restart}\n      terminationGracePeriodSeconds: 1\n      {}\n",
        spec.replace('\n', "\n  "),
        containers.replace('\n', "\n      "),
    )
}

fn runs(script: &str) -> String {
    format!("containers:\n- {{name: main, image: busybox, command: [sh, -c, \"{script}\"]}}")
}

fn pods(site: &Site, job: &str) -> usize {
    let line = format!("get pods -l batch.kubernetes.io/job-name={job} -o name");
    site.kubectl.run(&line).ok().lines().count()
}

fn reason(site: &Site, job: &str, type_: &str) -> String {
    let path = format!("{{.status.conditions[?(@.type=='{type_}')].reason}}");
    site.kubectl.field(&format!("get job {job}"), &path)
}

fn a_failure_policy_ends_a_job_at_its_first_hopeless_pod(site: &Site) {
    let kubectl = &site.kubectl;
    let policy = "podFailurePolicy:\n  rules:\n  - action: FailJob\n    onExitCodes: \
                  {containerName: main, operator: In, values: [42]}";
    let spec = format!("completions: 4\nparallelism: 2\nbackoffLimit: 6\n{policy}");
    kubectl.feed("create -f -", &job("fast", &spec, "Never", &runs("exit 42"))).ok();
    kubectl.run("wait --for=condition=Failed job/fast --timeout=120s").ok();
    assert_eq!(reason(site, "fast", "FailureTarget"), "PodFailurePolicy");
    assert_eq!(reason(site, "fast", "Failed"), "PodFailurePolicy");
    let path = "{.status.conditions[?(@.type=='Failed')].message}";
    let message = kubectl.field("get job fast", path);
    assert!(message.contains("Container main") && message.contains("exit code 42"), "{message}");
    assert!(pods(site, "fast") <= 2);
    let spec = format!("backoffLimit: 0\n{policy}");
    kubectl.feed("create -f -", &job("counts", &spec, "Never", &runs("exit 7"))).ok();
    kubectl.run("wait --for=condition=Failed job/counts --timeout=120s").ok();
    assert_eq!(reason(site, "counts", "Failed"), "BackoffLimitExceeded");
    assert_eq!(kubectl.field("get job counts", "{.status.failed}"), "1");
}

fn each_index_may_fail_for_itself(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "completionMode: Indexed\ncompletions: 4\nparallelism: 4\nbackoffLimitPerIndex: 0";
    let odd = "test $(( JOB_COMPLETION_INDEX % 2 )) -eq 1";
    kubectl.feed("create -f -", &job("suites", spec, "Never", &runs(odd))).ok();
    kubectl.run("wait --for=condition=Failed job/suites --timeout=120s").ok();
    let path =
        "{.status.succeeded} {.status.failed} {.status.completedIndexes} {.status.failedIndexes}";
    assert_eq!(kubectl.field("get job suites", path), "2 2 1,3 0,2");
    assert_eq!(reason(site, "suites", "Failed"), "FailedIndexes");
    assert_eq!(pods(site, "suites"), 4);
    let spec = "completionMode: Indexed\ncompletions: 6\nparallelism: 1\nbackoffLimitPerIndex: 0\n\
                maxFailedIndexes: 1";
    kubectl.feed("create -f -", &job("capped", spec, "Never", &runs("exit 1"))).ok();
    kubectl.run("wait --for=condition=Failed job/capped --timeout=120s").ok();
    assert_eq!(reason(site, "capped", "Failed"), "MaxFailedIndexesExceeded");
    assert_eq!(pods(site, "capped"), 2);
}

fn a_job_that_waits_for_the_end_of_its_pods_never_has_two(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "backoffLimit: 5\npodReplacementPolicy: Failed";
    let go = site.cluster.scratch().join(format!("go-{}", kubectl.namespace));
    let script =
        "trap 'until [ -e GO ]; do sleep 0.1; done; exit 1' TERM; while :; do sleep 0.2; done"
            .replace("GO", &go.display().to_string());
    let manifest = job("writer", spec, "Never", &runs(&script))
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 120");
    kubectl.feed("create -f -", &manifest).ok();
    kubectl.until("get job writer", "{.status.ready}", "1");
    let label = "-l batch.kubernetes.io/job-name=writer";
    let first = kubectl.field(&format!("get pods {label}"), "{.items[0].metadata.name}");
    kubectl.run(&format!("delete pod {first} --wait=false")).ok();
    kubectl.until("get job writer", "{.status.terminating}", "1");
    std::fs::write(&go, "").unwrap();
    eventually("the pod is replaced when it has ended", || {
        let path = "{.items[*].metadata.name}";
        let names = kubectl.field(&format!("get pods {label}"), path);
        assert!(names.split_whitespace().count() <= 1, "two at once: {names}");
        let is_other = !names.is_empty() && names != first;
        if is_other { Ok(()) } else { Err(names) }
    });
    kubectl.run("delete job writer --wait=false").ok();
}

fn a_success_policy_ends_a_job_early(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "completionMode: Indexed\ncompletions: 3\nparallelism: 3\nsuccessPolicy:\n  rules:\n  \
                - {succeededIndexes: \"0\"}";
    let leader = "test $JOB_COMPLETION_INDEX -eq 0 || exec sleep 600";
    kubectl.feed("create -f -", &job("led", spec, "Never", &runs(leader))).ok();
    kubectl.run("wait --for=condition=Complete job/led --timeout=120s").ok();
    assert_eq!(reason(site, "led", "SuccessCriteriaMet"), "SuccessPolicy");
    let path = "{.status.succeeded} {.status.failed} {.status.completedIndexes}";
    assert_eq!(kubectl.field("get job led", path), "1  0", "one succeeded, none failed");
}

fn pods_that_the_job_ends_itself_are_no_failures(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "completions: 5\nparallelism: 3\nbackoffLimit: 0";
    kubectl.feed("create -f -", &job("pausing", spec, "Never", &runs("exec sleep 600"))).ok();
    kubectl.until("get job pausing", "{.status.ready}", "3");
    kubectl.run_with("patch job pausing -p", &[r#"{"spec":{"parallelism":2}}"#]).ok();
    kubectl.until("get job pausing", "{.status.ready} {.status.terminating}", "2 0");
    kubectl.run_with("patch job pausing -p", &[r#"{"spec":{"suspend":true}}"#]).ok();
    kubectl.until("get job pausing", "{.status.active} {.status.terminating}", " 0");
    assert_eq!(kubectl.field("get job pausing", "{.status.failed}"), "");
    kubectl.run_with("patch job pausing -p", &[r#"{"spec":{"suspend":false}}"#]).ok();
    kubectl.until("get job pausing", "{.status.ready}", "2");
    assert_eq!(reason(site, "pausing", "Failed"), "");
    kubectl.run("delete job pausing --wait=false").ok();
}

fn an_elastic_job_shrinks_from_its_end(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "completionMode: Indexed\ncompletions: 4\nparallelism: 4";
    kubectl.feed("create -f -", &job("elastic", spec, "Never", &runs("exec sleep 600"))).ok();
    kubectl.until("get job elastic", "{.status.ready}", "4");
    let smaller = r#"{"spec":{"completions":2,"parallelism":2}}"#;
    kubectl.run_with("patch job elastic -p", &[smaller]).ok();
    kubectl.until("get job elastic", "{.status.ready} {.status.terminating}", "2 0");
    let label = "batch.kubernetes.io/job-completion-index";
    eventually("the first two are left", || {
        let pods = kubectl.json("get pods -l batch.kubernetes.io/job-name=elastic");
        let left: BTreeSet<String> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|pod| pod["metadata"]["labels"][label].as_str().map(str::to_owned))
            .collect();
        if left == ["0", "1"].map(str::to_owned).into() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    kubectl.run("delete job elastic --wait=false").ok();
}

fn a_container_s_own_index_stays_and_hosts_are_named_by_it(site: &Site) {
    let kubectl = &site.kubectl;
    let containers = "containers:\n\
         - {name: own, image: busybox, env: [{name: JOB_COMPLETION_INDEX, value: mine}], command: [sh, -c, \"echo own=$JOB_COMPLETION_INDEX\"]}\n\
         - {name: given, image: busybox, command: [sh, -c, \"echo given=$JOB_COMPLETION_INDEX arg=$(JOB_COMPLETION_INDEX)\"]}";
    let spec = "completionMode: Indexed\ncompletions: 2\nparallelism: 2";
    kubectl.feed("create -f -", &job("shifted", spec, "Never", containers)).ok();
    kubectl.run("wait --for=condition=Complete job/shifted --timeout=120s").ok();
    let label = "-l batch.kubernetes.io/job-name=shifted";
    let said = kubectl.run(&format!("logs {label} --all-containers --tail=-1")).ok();
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["given=0 arg=0", "given=1 arg=1", "own=mine", "own=mine"]);
    let path = "{.items[*].spec.hostname} {.items[0].spec.containers[0].env[*].name}";
    let found = kubectl.field(&format!("get pods {label} --sort-by=.metadata.name"), path);
    assert_eq!(found, "shifted-0 shifted-1 JOB_COMPLETION_INDEX");
}

fn a_job_that_restarts_in_place_counts_its_restarts_and_starts_nothing_after_its_limit(
    site: &Site,
) {
    let kubectl = &site.kubectl;
    let containers = "initContainers:\n- {name: first, image: busybox, command: [sh, -c, \"exit 1\"]}\n\
                      containers:\n- {name: main, image: busybox, command: [sh, -c, \"true\"]}";
    kubectl.feed("create -f -", &job("again", "backoffLimit: 1", "OnFailure", containers)).ok();
    kubectl.run("wait --for=condition=Failed job/again --timeout=120s").ok();
    assert_eq!(reason(site, "again", "Failed"), "BackoffLimitExceeded");
    eventually("its pods are gone", || match pods(site, "again") {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
    assert_eq!(pods(site, "again"), 0, "no pod was made after the limit");
}
