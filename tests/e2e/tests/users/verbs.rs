//! `imp apply|get|describe|delete|logs|scale|status`, for people without kubectl.

use crate::manifests::{replicas, waiting_pod};
use impresario_e2e::{Site, eventually, with_a_kubectl};
use serde_json::{Value, json};
use std::process::Output;

with_a_kubectl!(
    imp_applies_gets_scales_and_deletes,
    imp_apply_takes_out_what_the_manifest_no_longer_names,
    imp_prints_logs,
    imp_tells_the_state_of_the_cluster,
    imp_tells_which_actors_live_where,
    imp_says_what_is_wrong,
);

fn imp(site: &Site, line: &str) -> Output {
    let mut command = site.cluster.imp(line.split_whitespace());
    command.args(["--namespace", &site.kubectl.namespace]).output().unwrap()
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn file(site: &Site, text: &str) -> String {
    let name = format!("{}-{}.yaml", site.kubectl.namespace, text.len());
    let path = site.cluster.scratch().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn imp_applies_gets_scales_and_deletes(site: &Site) {
    let manifest = file(site, &format!("{}---\n{}", replicas("app", 1), waiting_pod("alone")));
    let applied = ok(&imp(site, &format!("apply -f {manifest}")));
    assert_eq!(applied, "replicationcontroller/app created\npod/alone created\n");
    // Who binds it writes, too.
    site.kubectl.run("wait --for=condition=Ready pod/alone --timeout=120s").ok();
    let again = ok(&imp(site, &format!("apply -f {manifest}")));
    assert_eq!(again, "replicationcontroller/app unchanged\npod/alone unchanged\n");
    ok(&imp(site, "scale rc app --replicas 2"));
    eventually("two are ready", || {
        let object: Value = serde_json::from_str(&ok(&imp(site, "get rc app -o json"))).unwrap();
        if object["status"]["readyReplicas"] == 2 {
            Ok(())
        } else {
            Err(object["status"].to_string())
        }
    });
    let table = ok(&imp(site, "get pods -l app=app"));
    assert!(table.starts_with("NAME") && table.lines().count() == 3, "{table}");
    assert!(ok(&imp(site, "get pods -o wide")).contains("node-"));
    assert_eq!(ok(&imp(site, "get pod alone -o name")), "pod/alone\n");
    assert!(ok(&imp(site, "get pod alone -o yaml")).contains("kind: Pod"));
    assert!(ok(&imp(site, "get ns -A")).contains("default"));
    eventually("events are described", || {
        let text = ok(&imp(site, "describe pod alone"));
        if text.contains("Started") && text.contains("phase: Running") { Ok(()) } else { Err(text) }
    });
    assert_eq!(ok(&imp(site, "delete pod alone")), "pod \"alone\" deleted\n");
    ok(&imp(site, "delete rc app"));
    site.kubectl.until("get pods", "{.items[*].metadata.name}", "");
}

fn imp_apply_takes_out_what_the_manifest_no_longer_names(site: &Site) {
    let map = |data: &str, labels: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, labels: {labels}}}\ndata: {data}\n"
        );
        format!("apply -f {}", file(site, &text))
    };
    let first = map("{a: '1', b: '2'}", "{team: red, tier: db}");
    assert_eq!(ok(&imp(site, &first)), "configmap/settings created\n");
    assert_eq!(ok(&imp(site, &first)), "configmap/settings unchanged\n");
    // kubectl goes on from where imp was, and imp from where kubectl was.
    site.kubectl.run("label configmap settings theirs=kept");
    let second = map("{a: '9'}", "{team: red}");
    assert_eq!(ok(&imp(site, &second)), "configmap/settings configured\n");
    let object: Value = serde_json::from_str(&ok(&imp(site, "get cm settings -o json"))).unwrap();
    assert_eq!(object["data"], json!({ "a": "9" }));
    assert_eq!(object["metadata"]["labels"], json!({ "team": "red", "theirs": "kept" }));
}

fn imp_prints_logs(site: &Site) {
    ok(&imp(site, &format!("apply -f {}", file(site, &waiting_pod("talks")))));
    eventually("its line is there", || {
        let output = imp(site, "logs talks");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text == "I am talks\n" { Ok(()) } else { Err(format!("{output:?}")) }
    });
    assert_eq!(ok(&imp(site, "logs talks -c main --tail 1")), "I am talks\n");
}

fn imp_tells_the_state_of_the_cluster(site: &Site) {
    // A node that gets no processor for a while is not ready for a while.
    eventually("three nodes are ready and one leads", || {
        let status = site.cluster.status();
        let nodes = status["nodes"].as_array().unwrap();
        let is_well = |node: &Value| node["ready"] == true && node["running"] == true;
        let leads = status["leader"].as_str().is_some_and(|leader| leader.starts_with("node-"));
        let is_written = status["revision"].as_u64().is_some_and(|revision| revision > 0);
        let is_so = nodes.len() == 3 && nodes.iter().all(is_well) && leads && is_written;
        if is_so { Ok(()) } else { Err(status.to_string()) }
    });
    eventually("a table says so too", || {
        let output = site.cluster.imp(["status"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let is_so = text.contains(&site.cluster.leader()) && text.contains("Ready");
        if is_so { Ok(()) } else { Err(text) }
    });
}

fn imp_tells_which_actors_live_where(site: &Site) {
    let actors = |line: &str| site.cluster.imp(line.split_whitespace()).output().unwrap();
    let manifest = file(site, &waiting_pod("seen"));
    ok(&imp(site, &format!("apply -f {manifest}")));
    site.kubectl.until("get pod seen", "{.status.phase}", "Running");
    let pod: Value = serde_json::from_str(&ok(&imp(site, "get pod seen -o json"))).unwrap();
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    let name = format!("pod/{}", pod["metadata"]["uid"].as_str().unwrap());

    let told: Value =
        serde_json::from_str(&ok(&actors(&format!("actors {node} -o json")))).unwrap();
    let all = told["nodes"][0]["actors"].as_array().unwrap();
    let own = all.iter().find(|actor| actor["name"] == name.as_str()).unwrap();
    assert_eq!((&own["role"], &own["restarts"]), (&json!("pod"), &json!(0)), "{own}");
    assert!(own["mailbox"]["limitMessages"].as_u64() > own["mailbox"]["messages"].as_u64());
    assert!(all.iter().any(|actor| actor["name"] == "node"), "{told}");
    // The scheduler lives on one control member; who is asked for all of them finds it.
    let text = ok(&actors("actors"));
    assert!(text.starts_with("NODE") && text.contains(&name), "{text}");
    assert!(text.contains("scheduler/default-scheduler"), "{text}");
    let missing = actors("actors nosuch");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no node nosuch"));
}

fn imp_says_what_is_wrong(site: &Site) {
    let missing = imp(site, "get pod nosuch");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("pods \"nosuch\" not found"));
    let unknown = imp(site, "get nonsense");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("nonsense"));
    assert_eq!(unknown.status.code(), Some(1));
    for line in ["scale rc app --replicas few", "delete pods", "delete"] {
        assert_eq!(imp(site, line).status.code(), Some(2), "{line}");
    }
    let invalid = imp(site, &format!("apply -f {}", file(site, &replicas("Bad_Name", 1))));
    assert_eq!(invalid.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&invalid.stderr).contains("metadata.name"), "{invalid:?}");
    let nowhere = site.cluster.imp(["status", "--data-dir", "/nonexistent"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("imp up"), "{nowhere:?}");
}
