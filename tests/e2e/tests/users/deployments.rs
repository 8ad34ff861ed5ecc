//! Deployments: from one template to the next while users watch, go back, wait, and are served.

use crate::manifests::{web, workload};
use impresario_e2e::{Site, eventually, fetch, with_a_kubectl, with_every_kubectl};
use std::collections::BTreeSet;
use std::net::SocketAddr;

with_every_kubectl!(
    a_rollout_is_watched_undone_paused_and_repeated,
    what_a_deployment_goes_by_is_changed_by_apply,
);
with_a_kubectl!(
    a_rollout_that_fails_leaves_the_old_pods_and_is_undone,
    a_service_answers_each_request_while_its_deployment_is_rolled_over,
    a_deployment_that_is_recreated_has_no_two_templates_at_once,
);

fn deployment(name: &str, count: u32, spec: &str, container: &str) -> String {
    workload("Deployment", name, &format!("  replicas: {count}\n{spec}"), container)
}

const NEVER_READY: &str = "        readinessProbe: {exec: {command: ['false']}}";
const STATUS: &str = "rollout status deploy/app --timeout=180s";

fn a_rollout_is_watched_undone_paused_and_repeated(site: &Site) {
    let kubectl = &site.kubectl;
    let script = "trap 'exit 0' TERM; echo I am here; sleep 600 & wait";
    kubectl
        .run_with("create deployment app --image=busybox --replicas=2", &["--", "sh", "-c", script])
        .ok();
    let told = kubectl.run(STATUS).ok();
    assert!(told.contains("successfully rolled out"), "{told}");
    let shown = kubectl.run("get deploy app --no-headers").ok();
    assert_eq!(shown.split_whitespace().take(4).collect::<Vec<_>>(), ["app", "2/2", "2", "2"]);
    eventually("its log tells what a pod said", || {
        let told = kubectl.run("logs deploy/app");
        if told.out.contains("I am here") { Ok(()) } else { Err(format!("{told:?}")) }
    });
    let all = kubectl.run("get all").ok();
    for one in ["deployment.apps/app ", "replicaset.apps/app-", "pod/app-"] {
        assert!(all.contains(one), "{one}: {all}");
    }

    kubectl.run("set env deploy/app COLOUR=blue").ok();
    kubectl.run("annotate deploy/app kubernetes.io/change-cause=blue").ok();
    kubectl.run(STATUS).ok();
    let history = kubectl.run("rollout history deploy/app").ok();
    let lines: Vec<Vec<_>> = history.lines().map(|it| it.split_whitespace().collect()).collect();
    for line in [["1", "<none>"], ["2", "blue"]] {
        assert!(lines.iter().any(|it| *it == line), "{line:?}: {history}");
    }
    let revision = "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}";
    kubectl.run("set image deploy/app busybox=none/such").ok();
    kubectl.until("get deploy app", revision, "3");
    kubectl.run("rollout undo deploy/app --to-revision=1").ok();
    kubectl.run(STATUS).ok();
    let environment = "{.items[*].spec.containers[0].env}";
    kubectl.until("get pods -l app=app", environment, "");
    kubectl.until("get deploy app", revision, "4");

    kubectl.run("rollout pause deploy/app").ok();
    kubectl.run("set env deploy/app COLOUR=red").ok();
    kubectl.run("scale deploy/app --replicas=3").ok();
    kubectl.until("get deploy app", "{.status.readyReplicas} {.status.updatedReplicas}", "3 ");
    assert_eq!(kubectl.field("get pods -l app=app", environment), "");
    kubectl.run("rollout resume deploy/app").ok();
    kubectl.run(STATUS).ok();
    kubectl.until("get deploy app", "{.status.replicas} {.status.updatedReplicas}", "3 3");

    kubectl.run("rollout restart deploy/app").ok();
    kubectl.run(STATUS).ok();
    let described = kubectl.run("describe deploy app").ok();
    for word in ["ScalingReplicaSet", "NewReplicaSet:", "RollingUpdate", "NewReplicaSetAvailable"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    kubectl.run("delete deploy app --timeout=120s").ok();
    kubectl.until("get rs,pods", "{.items[*].metadata.name}", "");
}

fn a_rollout_that_fails_leaves_the_old_pods_and_is_undone(site: &Site) {
    let kubectl = &site.kubectl;
    // The deadline is there while it is to be missed, and at no other time.
    kubectl.feed("apply -f -", &deployment("app", 2, "", "")).ok();
    kubectl.run(STATUS).ok();
    let in_time = "  progressDeadlineSeconds: 10";
    kubectl.feed("apply -f -", &deployment("app", 2, in_time, NEVER_READY)).ok();
    let told = kubectl.run(STATUS).refused();
    assert!(told.contains("exceeded its progress deadline"), "{told}");
    let progress = "{.status.conditions[?(@.type=='Progressing')].reason}";
    kubectl.until("get deploy app", progress, "ProgressDeadlineExceeded");
    kubectl.until("get deploy app", "{.status.availableReplicas}", "2");
    let later = r#"{"spec":{"progressDeadlineSeconds":600}}"#;
    kubectl.run_with("patch deploy app --patch", &[later]).ok();
    kubectl.run("rollout undo deploy/app").ok();
    kubectl.run(STATUS).ok();
    kubectl.until("get deploy app", "{.status.replicas} {.status.availableReplicas}", "2 2");
}

fn a_service_answers_each_request_while_its_deployment_is_rolled_over(site: &Site) {
    let kubectl = &site.kubectl;
    let served = web("app", 3)
        .replace("apiVersion: v1", "apiVersion: apps/v1")
        .replace("kind: ReplicationController", "kind: Deployment")
        .replace("selector: {app: app}", "selector: {matchLabels: {app: app}}");
    kubectl.feed("create -f -", &served).ok();
    kubectl.run("expose deploy app --port=80 --target-port=8080").ok();
    kubectl.run(STATUS).ok();
    let ip = kubectl.field("get svc app", "{.spec.clusterIP}");
    let server = SocketAddr::new(ip.parse().unwrap(), 80);
    let get = || match fetch(server, "GET", "/", "text/plain", b"") {
        Ok(answer) if answer.code == 200 => Ok(()),
        Ok(answer) => Err(format!("{answer:?}")),
        Err(error) => Err(error.to_string()),
    };
    eventually("the service answers", get);
    for _ in 0..2 {
        let before = kubectl.field("get deploy app", "{.status.observedGeneration}");
        kubectl.run("rollout restart deploy/app").ok();
        eventually("all pods are new", || {
            for _ in 0..5 {
                get().unwrap_or_else(|error| panic!("a request failed: {error}"));
            }
            let counts = "{.status.observedGeneration} {.status.replicas} {.status.updatedReplicas} {.status.availableReplicas}";
            let now = kubectl.field("get deploy app", counts);
            let done = now
                .split_once(' ')
                .is_some_and(|(generation, counts)| generation != before && counts == "3 3 3");
            if done { Ok(()) } else { Err(now) }
        });
    }
}

fn a_deployment_that_is_recreated_has_no_two_templates_at_once(site: &Site) {
    let kubectl = &site.kubectl;
    // They take their time to end, so that new ones would come before that.
    let slow = r#"[sh, -c, "trap 'sleep 5; exit 0' TERM; sleep 600 & wait"]"#;
    let app = deployment("app", 2, "  strategy: {type: Recreate}", "")
        .replace(r#"[sleep, "600"]"#, slow)
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 30");
    kubectl.feed("apply -f -", &app).ok();
    kubectl.run(STATUS).ok();
    // Every change in its order: whoever looks now and then has seen nothing between two looks.
    let mut watch = kubectl.lines(
        r#"get pods -l app=app --watch --output-watch-events -o jsonpath={.type}/{.object.metadata.name}/{.object.status.phase}/{.object.spec.containers[0].env[0].value}{"\n"}"#,
    );
    let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
    let mut seen = Vec::new();
    let mut next = |old: &mut BTreeSet<String>, new: &mut BTreeSet<String>| {
        let line = watch.expect("/");
        let [kind, pod, phase, colour] = line.split('/').collect::<Vec<_>>()[..] else {
            panic!("no event of a pod: {line}");
        };
        let of = if colour == "blue" { &mut *new } else { &mut *old };
        if kind == "DELETED" || ["Failed", "Succeeded"].contains(&phase) {
            of.remove(pod);
        } else {
            of.insert(pod.to_owned());
        }
        seen.push(line.clone());
        assert!(old.is_empty() || new.is_empty(), "old pods beside new ones: {seen:#?}");
    };
    while old.len() < 2 {
        next(&mut old, &mut new);
    }
    kubectl.run("set env deploy/app COLOUR=blue").ok();
    while new.len() < 2 {
        next(&mut old, &mut new);
    }
    kubectl.run(STATUS).ok();
}

fn what_a_deployment_goes_by_is_changed_by_apply(site: &Site) {
    let kubectl = &site.kubectl;
    let rolling = "  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}";
    kubectl.feed("apply -f -", &deployment("app", 1, rolling, "")).ok();
    kubectl.feed("apply -f -", &deployment("app", 1, "  strategy: {type: Recreate}", "")).ok();
    let strategy = kubectl.json("get deploy app")["spec"]["strategy"].clone();
    assert_eq!(strategy, serde_json::json!({"type": "Recreate"}));
    kubectl.feed("apply -f -", &deployment("app", 1, rolling, "")).ok();
    let strategy = kubectl.json("get deploy app")["spec"]["strategy"].clone();
    assert_eq!(strategy["rollingUpdate"]["maxSurge"], 1);
}
