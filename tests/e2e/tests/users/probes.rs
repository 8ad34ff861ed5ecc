//! Commands in containers that run: probes ask, hooks tell.

use crate::manifests::{notes, noting_pod};
use impresario_e2e::{Site, eventually, with_a_kubectl};
use std::{fs, path::Path};

with_a_kubectl!(
    a_command_says_whether_a_container_is_ready,
    a_container_that_its_command_finds_dead_is_started_again,
    hooks_run_after_the_start_and_before_the_end,
    a_container_that_cannot_be_greeted_is_started_again,
);

/// Creates a pod that sees the folder at `/notes` and runs until it is asked to end.
fn create(site: &Site, name: &str, folder: &Path, more: &str) {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    site.kubectl.feed("create -f -", &noting_pod(name, folder, script, more)).ok();
}

fn a_command_says_whether_a_container_is_ready(site: &Site) {
    let (kubectl, folder) = (&site.kubectl, notes(site));
    let probe = "    readinessProbe: {periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1, exec: {command: [cat, /notes/open]}}";
    create(site, "shop", &folder, probe);
    kubectl.until("get pod shop", "{.status.phase}", "Running");
    let ready = "{.status.conditions[?(@.type=='Ready')].status}";
    let said = "{range .items[?(@.reason=='Unhealthy')]}{.message}{end}";
    eventually("the pod says why it is not ready", || {
        let said = kubectl.field("get events", said);
        let is_why = said.contains("Readiness probe failed") && said.contains("/notes/open");
        if is_why { Ok(()) } else { Err(said) }
    });
    assert_eq!(kubectl.field("get pod shop", ready), "False");
    fs::write(folder.join("open"), "").unwrap();
    kubectl.run("wait --for=condition=Ready pod/shop --timeout=120s").ok();
    fs::remove_file(folder.join("open")).unwrap();
    kubectl.until("get pod shop", ready, "False");
}

fn a_container_that_its_command_finds_dead_is_started_again(site: &Site) {
    let (kubectl, folder) = (&site.kubectl, notes(site));
    let probe = "    livenessProbe: {periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1, exec: {command: [sh, -c, \"test ! -e /notes/ill || ! rm /notes/ill\"]}}";
    create(site, "patient", &folder, probe);
    kubectl.run("wait --for=condition=Ready pod/patient --timeout=120s").ok();
    let restarts = || -> u32 {
        let path = "{.status.containerStatuses[0].restartCount}";
        kubectl.field("get pod patient", path).parse().unwrap()
    };
    let before = restarts();
    fs::write(folder.join("ill"), "").unwrap();
    eventually("it is started again", || match restarts() {
        count if count > before => Ok(()),
        count => Err(count.to_string()),
    });
}

fn hooks_run_after_the_start_and_before_the_end(site: &Site) {
    let (kubectl, folder) = (&site.kubectl, notes(site));
    let hooks = r#"    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo hello > /notes/greeted"]}}
      preStop: {exec: {command: [sh, -c, "echo goodbye > /notes/left"]}}"#;
    create(site, "guest", &folder, hooks);
    kubectl.run("wait --for=condition=Ready pod/guest --timeout=120s").ok();
    assert_eq!(fs::read_to_string(folder.join("greeted")).unwrap(), "hello\n");
    assert!(!folder.join("left").exists());
    kubectl.run("delete pod guest --timeout=120s").ok();
    assert_eq!(fs::read_to_string(folder.join("left")).unwrap(), "goodbye\n");
}

fn a_container_that_cannot_be_greeted_is_started_again(site: &Site) {
    let (kubectl, folder) = (&site.kubectl, notes(site));
    let hooks = r#"    lifecycle: {postStart: {exec: {command: [sh, -c, "echo nobody home; test -e /notes/key"]}}}"#;
    create(site, "locked", &folder, hooks);
    let said = "{range .items[?(@.reason=='FailedPostStartHook')]}{.message}{end}";
    eventually("the pod says what failed", || {
        let said = kubectl.field("get events", said);
        if said.contains("nobody home") { Ok(()) } else { Err(said) }
    });
    fs::write(folder.join("key"), "").unwrap();
    kubectl.run("wait --for=condition=Ready pod/locked --timeout=120s").ok();
    let restarts = kubectl.field("get pod locked", "{.status.containerStatuses[0].restartCount}");
    assert_ne!(restarts, "0");
}
