//! What managed fields cost: `managed [SECONDS]` tells how many of each a core does in a second, and the bytes of pods.
//!
//! One thread, no server: the plain functions alone, on a pod of about 10 KiB with three managers that apply, and on a
//! pod as a replica set makes it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a program for looking at figures

use impresario_api::catalog::find;
use impresario_api::managed::{Writer, apply, created, kept, tell, took, updated};
use impresario_api::resource::Row;
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn writer<'a>(manager: &'a str, subresource: &'a str) -> Writer<'a> {
    Writer { manager, subresource, now: jiff::Timestamp::UNIX_EPOCH }
}

/// A pod as a replica set makes it.
fn small() -> Value {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f7c9b6d",
        "uid": "d1b654b8-a117-4b5d-a2cc-85cbac3cf8ca", "controller": true, "blockOwnerDeletion": true });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web-5d8f7c9b6d-x2x4z", "generateName": "web-5d8f7c9b6d-", "namespace": "default",
            "uid": "d1b654b8-a117-4b5d-a2cc-85cbac3cf8cb", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
            "labels": { "app": "web", "pod-template-hash": "5d8f7c9b6d" }, "ownerReferences": [owner] },
        "spec": {
            "containers": [{ "name": "main", "image": "registry.example.com/web:1.27", "imagePullPolicy": "IfNotPresent",
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
                "ports": [{ "containerPort": 80, "protocol": "TCP" }],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{ "name": "kube-api-access-x2x4z", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }] }],
            "volumes": [{ "name": "kube-api-access-x2x4z", "projected": { "defaultMode": 420, "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } }] } }],
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "serviceAccount": "default", "serviceAccountName": "default", "securityContext": {}, "priority": 0,
            "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority", "terminationGracePeriodSeconds": 30,
        },
        "status": { "phase": "Pending", "qosClass": "Burstable" },
    })
}

/// What a node says of it.
fn status() -> Value {
    let condition = |kind: &str| {
        json!({ "type": kind, "status": "True", "lastProbeTime": null,
        "lastTransitionTime": "2026-01-01T00:00:02Z", "observedGeneration": 1 })
    };
    let kinds =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let container = json!({ "name": "main", "ready": true, "started": true, "restartCount": 0,
        "image": "registry.example.com/web:1.27", "imageID": "registry.example.com/web@sha256:1234567890abcdef",
        "containerID": "process://0123456789abcdef", "state": { "running": { "startedAt": "2026-01-01T00:00:01Z" } } });
    json!({ "phase": "Running", "qosClass": "Burstable", "hostIP": "10.0.0.1", "podIP": "127.64.0.9",
        "podIPs": [{ "ip": "127.64.0.9" }], "startTime": "2026-01-01T00:00:01Z",
        "conditions": kinds.map(condition), "containerStatuses": [container] })
}

/// A pod of about 10 KiB, the part of it that one of three managers applies.
fn part(name: &str) -> Value {
    let env: Vec<_> = (0..14)
        .map(|number| json!({ "name": format!("VARIABLE_{number:02}"), "value": "x".repeat(60) }))
        .collect();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "big", "namespace": "default",
            "labels": { name: "1" }, "annotations": { format!("example.com/{name}"): "y".repeat(600) } },
        "spec": { "containers": [{ "name": name, "image": "i", "args": ["z".repeat(700)], "env": env,
            "ports": [{ "containerPort": 80, "name": "web" }], "resources": { "limits": { "cpu": "1" } } }] } })
}

fn rate(name: &str, limit: Duration, mut once: impl FnMut()) {
    let begun = Instant::now();
    let mut times = 0_u64;
    while begun.elapsed() < limit {
        once();
        times += 1;
    }
    let each = begun.elapsed().as_secs_f64() / times as f64;
    println!("{name:<44} {:>10.0} a second {:>9.1} µs each", 1.0 / each, each * 1e6);
}

fn live(row: &Row) -> Value {
    let mut pod = small();
    created(row, &mut pod, &writer("impresario-controller", "")).unwrap();
    pod["spec"]["nodeName"] = "node-1".into();
    took(&mut pod, &writer("impresario-scheduler", ""), &["spec", "nodeName"]);
    let mut running = pod.clone();
    running["status"] = status();
    updated(row, &pod, &mut running, &writer("impresario-node", "status")).unwrap();
    running
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(1.0, |text| text.parse().expect("seconds"));
    let limit = Duration::from_secs_f64(seconds);
    let row = find("", "v1", "pods").expect("pods");
    let bytes = |value: &Value| serde_json::to_vec(value).unwrap().len();

    let running = live(&row);
    let (mut told, mut without) = (running.clone(), running.clone());
    tell(&row, &mut told);
    without["metadata"].as_object_mut().unwrap().remove("managedFields");
    let ratio = |value: &Value| bytes(value) as f64 / bytes(&without) as f64;
    println!(
        "a running pod: {} bytes without, {} as kept ({:.2}), {} as told ({:.2})",
        bytes(&without),
        bytes(&running),
        ratio(&running),
        bytes(&told),
        ratio(&told),
    );
    rate("create: note the manager", limit, || {
        let mut pod = small();
        created(&row, &mut pod, &writer("a", "")).unwrap();
        black_box(&pod);
    });
    rate("  of which a copy of the pod", limit, || drop(black_box(small())));
    let mut next = running.clone();
    next["status"]["containerStatuses"][0]["restartCount"] = 1.into();
    rate("status: note what changed", limit, || {
        let mut new = next.clone();
        updated(&row, &running, &mut new, &writer("impresario-node", "status")).unwrap();
        black_box(&new);
    });
    rate("  of which a copy of the pod", limit, || drop(black_box(next.clone())));
    let kept_bytes = serde_json::to_vec(&running).unwrap();
    rate("read: parse, write out, to bytes", limit, || {
        let mut pod: Value = serde_json::from_slice(&kept_bytes).unwrap();
        tell(&row, &mut pod);
        black_box(serde_json::to_vec(&pod).unwrap());
    });
    rate("  the same without writing out", limit, || {
        let pod: Value = serde_json::from_slice(&kept_bytes).unwrap();
        black_box(serde_json::to_vec(&pod).unwrap());
    });

    let managers = ["a", "b", "c"];
    let mut big = Value::Null;
    for manager in managers {
        let merged = apply(&row, &big, &part(manager), &writer(manager, ""), false).unwrap();
        let mut object = merged.object.clone();
        merged.note(&row, &mut object);
        big = object;
    }
    println!("a pod of {} managers that apply: {} bytes as kept", kept(&big).len(), bytes(&big));
    let mut other = part("b");
    let mut number = 0_u64;
    rate("apply to it, one value changes", limit, || {
        number += 1;
        other["spec"]["containers"][0]["env"][3]["value"] = number.to_string().into();
        let merged = apply(&row, &big, &other, &writer("b", ""), false).unwrap();
        let mut object = merged.object.clone();
        merged.note(&row, &mut object);
        big = object;
    });
}
