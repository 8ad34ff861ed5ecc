//! Which fields of a wrong object are told, and how often: what the API server's rules say beyond
//! the objects that were recorded.

#![expect(clippy::expect_used, reason = "an object that is admitted fails the test")]

use impresario_api::admission::{
    Context, Door, RandomAllocator, ServiceRanges, admit_create, admit_update,
};
use impresario_api::catalog::find_object;
use impresario_api::status::{CauseReason, Status};
use serde_json::{Value, json};

use CauseReason::{Duplicate, Forbidden, Invalid, NotFound, NotSupported, Required};

fn with_context<T>(act: impl FnOnce(&Context<'_>) -> T) -> T {
    let allocator = RandomAllocator::new(ServiceRanges::default());
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    act(&Context { namespace: "d", user: "tester", now, allocator: &allocator })
}

fn create(object: &Value) -> Result<Value, Status> {
    let resource = find_object(object).expect("a kind that is served");
    with_context(|context| admit_create(&resource, object.clone(), context))
}

/// The object with a JSON merge patch.
fn update(old: &Value, patch: &Value) -> Result<Value, Status> {
    let resource = find_object(old).expect("a kind that is served");
    let mut new = old.clone();
    merge(&mut new, patch);
    with_context(|context| admit_update(&resource, Door::Main, new, old, context))
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    for (key, value) in patch {
        merge(&mut object[key.as_str()], value);
    }
}

type Told<'a> = &'a [(&'a str, CauseReason)];

fn told(what: &str, answer: Result<Value, Status>, expected: Told<'_>) {
    let causes = answer.expect_err(what).causes;
    let mut ours: Vec<(String, CauseReason)> =
        causes.into_iter().map(|cause| (cause.field, cause.reason)).collect();
    let mut theirs: Vec<(String, CauseReason)> =
        expected.iter().map(|(field, reason)| ((*field).to_owned(), *reason)).collect();
    for side in [&mut ours, &mut theirs] {
        side.sort_by_key(|(field, reason)| (field.clone(), format!("{reason:?}")));
    }
    assert_eq!(ours, theirs, "{what}");
}

/// A pod with a field more in its only container, and some in its spec.
fn pod(container: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    merge(&mut pod["spec"]["containers"][0], container);
    merge(&mut pod["spec"], spec);
    pod
}

#[test]
fn a_container_is_told_each_field_that_is_wrong() {
    let dir = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let none = json!({});
    let rows: &[(&str, Value, &Value, Told<'_>)] = &[
        (
            "a key of a map without a name",
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"key": "k"}}}]}),
            &none,
            &[("spec.containers[0].env[0].valueFrom.configMapKeyRef.name", Invalid)],
        ),
        (
            "a value and an empty source",
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {}}]}),
            &none,
            &[("spec.containers[0].env[0].valueFrom", Invalid)],
        ),
        (
            "an environment from nowhere",
            json!({"envFrom": [{"prefix": "A_"}]}),
            &none,
            &[("spec.containers[0].envFrom", Invalid)],
        ),
        (
            "a map whose name is none",
            json!({"envFrom": [{"configMapRef": {"name": "A"}}]}),
            &none,
            &[("spec.containers[0].envFrom[0].configMapRef.name", Invalid)],
        ),
        (
            "a field that has no entries",
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['a']"}}}]}),
            &none,
            &[("spec.containers[0].env[0].valueFrom.fieldRef.fieldPath", Invalid)],
        ),
        (
            "a label whose key is none",
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]}),
            &none,
            &[("spec.containers[0].env[0].valueFrom.fieldRef", Invalid)],
        ),
        (
            "a piece of a CPU that is not one",
            json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]}),
            &none,
            &[("spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor", Invalid)],
        ),
        (
            "a mount without a name",
            json!({"volumeMounts": [{"mountPath": "/v"}]}),
            &dir,
            &[
                ("spec.containers[0].volumeMounts[0].name", Required),
                ("spec.containers[0].volumeMounts[0].name", NotFound),
            ],
        ),
        (
            "two mounts at a path",
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]}),
            &dir,
            &[("spec.containers[0].volumeMounts[1].mountPath", Invalid)],
        ),
        (
            "a mount that is told to the host",
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}),
            &dir,
            &[("spec.containers[0].volumeMounts.mountPropagation", Forbidden)],
        ),
        (
            "a device that is a folder",
            json!({"volumeDevices": [{"name": "v", "devicePath": "/v"}]}),
            &dir,
            &[("spec.containers[0].volumeDevices[0].name", Invalid)],
        ),
        (
            "a hook that sleeps too long",
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
            &none,
            &[("spec.containers[0].lifecycle.preStop.sleep", Invalid)],
        ),
        (
            "a readiness probe that ends the pod at once",
            json!({"readinessProbe": {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 0}}),
            &none,
            &[
                ("spec.containers[0].readinessProbe.terminationGracePeriodSeconds", Invalid),
                ("spec.containers[0].readinessProbe.terminationGracePeriodSeconds", Invalid),
            ],
        ),
        (
            "two containers without a name",
            json!({"name": ""}),
            &json!({"containers": [{"image": "i"}, {"image": "i"}]}),
            &[
                ("spec.containers[0].name", Required),
                ("spec.containers[1].name", Required),
                ("spec.containers[1].name", Duplicate),
            ],
        ),
        (
            "a resize that restarts what must not be",
            json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}),
            &json!({"restartPolicy": "Never"}),
            &[("spec.containers[0].resizePolicy", Invalid)],
        ),
        (
            "a profile of the node's without a name",
            json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
            &none,
            &[("spec.containers[0].securityContext.seccompProfile.localhostProfile", Required)],
        ),
    ];
    for (what, container, spec, expected) in rows {
        told(what, create(&pod(container, spec)), expected);
    }
}

#[test]
fn a_pod_is_told_each_field_that_is_wrong() {
    let spread = json!({"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"});
    let rows: &[(&str, Value, Told<'_>)] = &[
        (
            "two sources: the first of the list of kinds is meant",
            json!({"volumes": [{"name": "v", "configMap": {"name": "m"}, "emptyDir": {}}]}),
            &[("spec.volumes[0].configMap", Forbidden)],
        ),
        (
            "files of a pod from nowhere",
            json!({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "a"}]}}]}),
            &[("spec.volumes[0].downwardAPI", Required)],
        ),
        (
            "two projections into a file",
            json!({"volumes": [{"name": "v", "projected": {"sources": [
                {"configMap": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
                {"configMap": {"name": "b", "items": [{"key": "k", "path": "p"}]}},
            ]}}]}),
            &[("spec.volumes[0].projected", Invalid)],
        ),
        (
            "a token for too short a time",
            json!({"volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "../t", "expirationSeconds": 10}},
            ]}}]}),
            &[
                (
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds",
                    Invalid,
                ),
                ("spec.volumes[0].projected.path", Invalid),
            ],
        ),
        (
            "a host whose name is none",
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["ok", "No"]}]}),
            &[("spec.hostAliases[0].hostnames[1]", Invalid)],
        ),
        (
            "no name server",
            json!({"dnsPolicy": "None", "dnsConfig": {"searches": ["No"]}}),
            &[("spec.dnsConfig.nameservers", Required)],
        ),
        ("an unknown system", json!({"os": {"name": "plan9"}}), &[("spec.os", NotSupported)]),
        (
            "a spread that is said twice",
            json!({"topologySpreadConstraints": [spread, spread]}),
            &[("spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}", Duplicate)],
        ),
        (
            "labels to be shared by nobody",
            json!({"topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway",
                "matchLabelKeys": ["a"],
            }]}),
            &[("spec.topologySpreadConstraints[0].matchLabelKeys", Forbidden)],
        ),
        (
            "a parameter of the host's network",
            json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}),
            &[("spec.securityContext.sysctls[0].name", Invalid)],
        ),
        (
            "users of its own, processes of the host",
            json!({"hostUsers": false, "hostPID": true}),
            &[("spec.HostPID", Forbidden)],
        ),
        (
            "an init container that takes a container's name and a port twice",
            json!({"initContainers": [{"name": "c", "image": "i", "ports": [
                {"containerPort": 1, "hostPort": 1}, {"containerPort": 2, "hostPort": 1},
            ]}]}),
            &[
                ("spec.initContainers[0].name", Duplicate),
                ("spec.initContainers[0].ports[1].hostPort", Duplicate),
            ],
        ),
    ];
    for (what, spec, expected) in rows {
        told(what, create(&pod(&json!({}), spec)), expected);
    }
    let admitted = [
        (
            "a wish for nodes that cannot be",
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["a b"]}]}},
            ]}}}),
        ),
        ("domains with underscores", json!({"dnsConfig": {"searches": ["_tcp.example.org", "."]}})),
    ];
    for (what, spec) in admitted {
        create(&pod(&json!({}), &spec)).expect(what);
    }
}

#[test]
fn what_means_something_in_metadata_is_checked() {
    let mut odd = pod(&json!({}), &json!({}));
    odd["metadata"]["finalizers"] = json!(["plain"]);
    told("a finalizer of nobody", create(&odd), &[("metadata.finalizers[0]", Invalid)]);
    odd["metadata"] = json!({"name": "p", "annotations": {
        "controller.kubernetes.io/pod-deletion-cost": "+5",
    }});
    told(
        "a cost that is no number",
        create(&odd),
        &[("metadata.annotations[controller.kubernetes.io/pod-deletion-cost]", Invalid)],
    );
}

/// A change is looked at as a change and, by most kinds, as a new object too.
#[test]
fn a_change_is_told_what_is_wrong_as_often_as_it_is_looked_at() {
    let pod = create(&pod(&json!({}), &json!({}))).expect("a valid pod");
    let rows: &[(&str, Value, Told<'_>)] = &[
        (
            "a label that is none",
            json!({"metadata": {"labels": {"a": "b c"}}}),
            &[
                ("metadata.labels", Invalid),
                ("metadata.labels", Invalid),
                ("metadata.labels", Invalid),
            ],
        ),
        (
            "a deadline that is over before it begins",
            json!({"spec": {"activeDeadlineSeconds": -1}}),
            &[("spec.activeDeadlineSeconds", Invalid), ("spec.activeDeadlineSeconds", Invalid)],
        ),
        (
            "another policy, which is none",
            json!({"spec": {"restartPolicy": "Sometimes"}}),
            &[("spec.restartPolicy", NotSupported), ("spec", Forbidden)],
        ),
        ("another host name", json!({"spec": {"hostname": "h"}}), &[("spec", Forbidden)]),
    ];
    for (what, patch, expected) in rows {
        told(what, update(&pod, patch), expected);
    }
    let mut unnamed = pod.clone();
    unnamed["spec"]["containers"][0]["image"] = "".into();
    let resource = find_object(&pod).expect("a kind that is served");
    told(
        "no image",
        with_context(|context| admit_update(&resource, Door::Main, unnamed, &pod, context)),
        &[("spec.containers[0].image", Required), ("spec.containers[0].image", Required)],
    );

    let template = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let controller = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "r"},
        "spec": {"replicas": 1, "template": template},
    });
    let controller = create(&controller).expect("a valid controller");
    told(
        "fewer than none",
        update(&controller, &json!({"spec": {"replicas": -1}})),
        &[("spec.replicas", Invalid), ("spec.replicas", Invalid)],
    );
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"template": template},
    });
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    let job = create(&job).expect("a valid job");
    told(
        "fewer than none at once",
        update(&job, &json!({"spec": {"parallelism": -1}})),
        &[("spec.parallelism", Invalid), ("spec.parallelism", Invalid)],
    );
}

#[test]
fn a_pod_at_a_gate_may_only_become_more_choosy() {
    let gated = json!({
        "schedulingGates": [{"name": "example.org/g"}],
        "nodeSelector": {"a": "b"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Exists"}]}],
        }}},
    });
    let gated = create(&pod(&json!({}), &gated)).expect("a valid pod");
    let terms = |terms: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}}})
    };
    let more = terms(json!([{"matchExpressions": [
        {"key": "k", "operator": "Exists"}, {"key": "l", "operator": "Exists"},
    ]}]));
    update(&gated, &more).expect("more conditions");
    update(&gated, &json!({"spec": {"nodeSelector": {"c": "d"}}})).expect("more labels");
    let place = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let first = format!("{place}[0]");
    told(
        "another label",
        update(&gated, &json!({"spec": {"nodeSelector": {"a": "c"}}})),
        &[("spec.nodeSelector", Invalid)],
    );
    let other = terms(json!([{"matchExpressions": [{"key": "l", "operator": "Exists"}]}]));
    told("other conditions", update(&gated, &other), &[(&first, Invalid)]);
    told(
        "one way more",
        update(
            &gated,
            &terms(json!([
                {"matchExpressions": [{"key": "k", "operator": "Exists"}]},
                {"matchExpressions": [{"key": "l", "operator": "Exists"}]},
            ])),
        ),
        &[(place, Invalid)],
    );
}

#[test]
fn a_service_is_told_each_field_that_is_wrong() {
    let service = |spec: &Value| {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"port": 80}]},
        });
        merge(&mut service["spec"], spec);
        service
    };
    let rows: &[(&str, Value, Told<'_>)] = &[
        (
            "nobody balances",
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            &[("spec.LoadBalancerSourceRanges", Forbidden)],
        ),
        (
            "a family twice",
            json!({"ipFamilies": ["IPv4", "IPv4"]}),
            &[("spec.ipFamilies[1]", Duplicate)],
        ),
        (
            "an address of another family",
            json!({"clusterIP": "127.96.0.9", "ipFamilies": ["IPv6"]}),
            &[("spec.clusterIPs[0]", Invalid)],
        ),
        (
            "addresses without a first one",
            json!({"clusterIPs": ["127.96.0.9"]}),
            &[("spec.clusterIPs", Invalid)],
        ),
        (
            "none and one",
            json!({"clusterIP": "None", "clusterIPs": ["None", "127.96.0.9"]}),
            &[("spec.clusterIPs", Invalid)],
        ),
        (
            "a port of nodes for the cluster alone",
            json!({"ports": [{"port": 80, "nodePort": 30080}]}),
            &[("spec.ports[0].nodePort", Forbidden)],
        ),
        (
            "a port to ask at that nobody asks at",
            json!({"type": "LoadBalancer", "healthCheckNodePort": 30081}),
            &[("spec.healthCheckNodePort", Invalid)],
        ),
    ];
    for (what, spec, expected) in rows {
        told(what, create(&service(spec)), expected);
    }
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let local = create(&service(&local)).expect("a balanced service");
    let asked = local["spec"]["healthCheckNodePort"].clone();
    assert!(asked.as_i64().is_some_and(|port| (30_000..32_768).contains(&port)), "{asked}");
    assert_ne!(asked, local["spec"]["ports"][0]["nodePort"]);
    let kept = update(&local, &json!({"spec": {"healthCheckNodePort": 0}})).expect("no change");
    assert_eq!(kept["spec"]["healthCheckNodePort"], asked);
    let plain = update(&local, &json!({"spec": {"externalTrafficPolicy": "Cluster"}}));
    assert!(plain.expect("a change")["spec"].get("healthCheckNodePort").is_none());
    told(
        "another port to ask at",
        update(&local, &json!({"spec": {"healthCheckNodePort": 1}})),
        &[("spec.healthCheckNodePort", Forbidden)],
    );
}
