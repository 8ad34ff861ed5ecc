use super::*;
use crate::catalog::find;
use serde_json::json;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn row(plural: &str) -> crate::resource::Row {
    let (plural, group) = plural.split_once('.').unwrap_or((plural, ""));
    find(group, "v1", plural).unwrap()
}

fn told(amounts: &Amounts) -> String {
    let each = amounts.iter().map(|(name, amount)| format!("{name}={amount}"));
    each.collect::<Vec<_>>().join(" ")
}

fn quota(hard: &Value, used: &Value) -> Quota {
    Quota::read(
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}}),
    )
}

fn pod(requests: &Value, limits: &Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
}

#[test]
fn an_object_counts_for_what_kubernetes_counts_it_for() {
    let asked = pod(
        &json!({"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Mi", "nvidia.com/gpu": "2"}),
        &json!({"cpu": "1", "nvidia.com/gpu": "2"}),
    );
    let ended = json!({"status": {"phase": "Failed"}});
    let overdue = json!({"metadata": {"deletionTimestamp": "2025-12-31T23:59:00Z",
        "deletionGracePeriodSeconds": 30}});
    let going = json!({"metadata": {"deletionTimestamp": "2025-12-31T23:59:50Z",
        "deletionGracePeriodSeconds": 30}});
    let service = |spec: Value| json!({ "spec": spec });
    let rows = [
        (
            "pods",
            asked,
            "count/pods=1 cpu=500m ephemeral-storage=1Mi limits.cpu=1 memory=1Gi pods=1 requests.cpu=500m \
             requests.ephemeral-storage=1Mi requests.memory=1Gi requests.nvidia.com/gpu=2",
        ),
        ("pods", ended, "count/pods=1"),
        ("pods", overdue, "count/pods=1"),
        ("pods", going, "count/pods=1 pods=1"),
        (
            "services",
            service(json!({"type": "ClusterIP", "ports": [{"port": 1}]})),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0",
        ),
        (
            "services",
            service(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]})),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
        ),
        (
            "services",
            service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                "ports": [{"port": 1, "nodePort": 30_000}, {"port": 2}]})),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1",
        ),
        ("configmaps", json!({}), "configmaps=1 count/configmaps=1"),
        ("secrets", json!({}), "count/secrets=1 secrets=1"),
        ("resourcequotas", json!({}), "count/resourcequotas=1 resourcequotas=1"),
        (
            "replicationcontrollers",
            json!({}),
            "count/replicationcontrollers=1 replicationcontrollers=1",
        ),
        ("deployments.apps", json!({}), "count/deployments.apps=1"),
    ];
    for (plural, object, expected) in rows {
        assert_eq!(told(&usage(&row(plural), &object, now())), expected, "{plural} {object}");
    }
}

/// The row of a kind that may not be served here.
fn claims() -> Resource {
    Resource::named(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        "api.core.v1.PersistentVolumeClaim",
    )
}

#[test]
fn a_claim_counts_for_its_size_and_in_its_class() {
    let claim = |size: &str| json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": size}}}});
    assert_eq!(
        told(&usage(&claims(), &claim("1Gi"), now())),
        "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
         fast.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"
    );
    let hard = json!({"requests.storage": "3Gi"});
    let mut quota = quota(&hard, &json!({"requests.storage": "1Gi"}));
    assert_eq!(quota.charge(&claims(), &claim("2Gi"), Some(&claim("1Gi")), now()), Ok(true));
    assert_eq!(quota.object()["status"]["used"]["requests.storage"], "2Gi");
    // What needs less is counted anew by another.
    assert_eq!(quota.charge(&claims(), &claim("1Gi"), Some(&claim("2Gi")), now()), Ok(false));
    let refused = quota.charge(&claims(), &claim("4Gi"), Some(&claim("1Gi")), now()).unwrap_err();
    assert_eq!(
        refused,
        "exceeded quota: q, requested: requests.storage=3Gi, used: requests.storage=2Gi, limited: \
         requests.storage=3Gi"
    );
}

#[test]
fn what_there_is_room_for_is_charged_and_the_rest_refused_in_the_words_of_kubernetes() {
    let pods = &row("pods");
    let none = || pod(&json!({}), &json!({}));
    let cpu = |amount: &str| pod(&json!({ "cpu": amount }), &json!({}));
    let gpus =
        |count: &str| pod(&json!({"nvidia.com/gpu": count}), &json!({"nvidia.com/gpu": count}));
    let rows = [
        (json!({"pods": "5"}), json!({"pods": "4"}), none(), Ok(true)),
        (
            json!({"pods": "5"}),
            json!({"pods": "5"}),
            none(),
            Err("exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5"),
        ),
        (
            json!({"pods": "5", "requests.cpu": "1"}),
            json!({"pods": "1", "requests.cpu": "800m"}),
            cpu("300m"),
            Err(
                "exceeded quota: q, requested: requests.cpu=300m, used: requests.cpu=800m, limited: requests.cpu=1",
            ),
        ),
        (
            json!({"cpu": "1", "limits.memory": "1Gi"}),
            json!({"cpu": "0", "limits.memory": "0"}),
            none(),
            Err("failed quota: q: must specify cpu for: c; limits.memory for: c"),
        ),
        (
            json!({"requests.nvidia.com/gpu": "2"}),
            json!({"requests.nvidia.com/gpu": "1"}),
            gpus("2"),
            Err(
                "exceeded quota: q, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=1, \
                 limited: requests.nvidia.com/gpu=2",
            ),
        ),
        // Who asks for no devices needs not name any.
        (
            json!({"requests.nvidia.com/gpu": "2"}),
            json!({"requests.nvidia.com/gpu": "2"}),
            none(),
            Ok(false),
        ),
        (
            json!({"pods": "5"}),
            json!({}),
            none(),
            Err("status unknown for quota: q, resources: pods"),
        ),
        // A quota of other things has nothing to say.
        (json!({"secrets": "1"}), json!({"secrets": "1"}), none(), Ok(false)),
    ];
    for (hard, used, object, expected) in rows {
        let mut quota = quota(&hard, &used);
        let charged = quota.charge(pods, &object, None, now());
        assert_eq!(charged, expected.map_err(str::to_owned), "{hard} {used}");
    }
}

#[test]
fn a_quota_is_about_the_objects_of_all_its_scopes() {
    let spec = |fields: Value| json!({ "spec": fields });
    let asking = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
    let idle = json!([{"name": "c"}]);
    let affinity = |term: Value| {
        json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": term}]}}})
    };
    let classed = |class: &str| spec(json!({"containers": idle, "priorityClassName": class}));
    let term = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let scopes = |names: Value| json!({ "scopes": names });
    let rows = [
        (scopes(json!(["Terminating"])), spec(json!({"activeDeadlineSeconds": 5})), true),
        (scopes(json!(["Terminating"])), spec(json!({})), false),
        (scopes(json!(["NotTerminating"])), spec(json!({})), true),
        (scopes(json!(["NotTerminating"])), spec(json!({"activeDeadlineSeconds": 0})), false),
        (scopes(json!(["BestEffort"])), spec(json!({"containers": idle})), true),
        (scopes(json!(["BestEffort"])), spec(json!({"containers": asking})), false),
        (scopes(json!(["NotBestEffort"])), spec(json!({"containers": asking})), true),
        (scopes(json!(["NotBestEffort"])), spec(json!({"containers": idle})), false),
        (
            scopes(json!(["NotBestEffort", "Terminating"])),
            spec(json!({"containers": asking})),
            false,
        ),
        (scopes(json!(["PriorityClass"])), classed("a"), true),
        (scopes(json!(["PriorityClass"])), classed(""), false),
        (term("In", json!(["a", "b"])), classed("b"), true),
        (term("In", json!(["a", "b"])), classed("c"), false),
        (term("NotIn", json!(["a"])), classed("b"), true),
        (term("NotIn", json!(["a"])), classed(""), true),
        (term("NotIn", json!(["a"])), classed("a"), false),
        (term("Exists", json!([])), classed("a"), true),
        (term("DoesNotExist", json!([])), classed("a"), false),
        (term("DoesNotExist", json!([])), classed(""), true),
        (
            scopes(json!(["CrossNamespacePodAffinity"])),
            spec(affinity(json!({"namespaces": ["x"]}))),
            true,
        ),
        (
            scopes(json!(["CrossNamespacePodAffinity"])),
            spec(affinity(json!({"namespaceSelector": {}}))),
            true,
        ),
        (
            scopes(json!(["CrossNamespacePodAffinity"])),
            spec(affinity(json!({"topologyKey": "x"}))),
            false,
        ),
    ];
    for (mut within, object, expected) in rows {
        within["hard"] = json!({"pods": "1"});
        let quota = Quota::read(json!({"metadata": {"name": "q"}, "spec": within}));
        assert_eq!(quota.is_about_object(&row("pods"), &object), expected, "{within} {object}");
        let other =
            Quota::read(json!({"metadata": {"name": "q"}, "spec": {"hard": {"secrets": "1"},
            "scopes": within["scopes"], "scopeSelector": within["scopeSelector"]}}));
        assert!(!other.is_about_object(&row("secrets"), &json!({})), "of no scope");
    }
}

#[test]
fn what_is_counted_anew_is_what_all_objects_come_to() {
    let quota = Quota::read(
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5", "secrets": "3",
        "requests.cpu": "1"}}}),
    );
    let mut counted = quota.nothing();
    for cpu in ["250m", "500m"] {
        quota.count(&mut counted, &row("pods"), &pod(&json!({ "cpu": cpu }), &json!({})), now());
    }
    quota.count(&mut counted, &row("secrets"), &json!({}), now());
    quota.count(&mut counted, &row("configmaps"), &json!({}), now());
    let object = quota.counted(&counted).unwrap();
    assert_eq!(
        object["status"],
        json!({"hard": {"pods": "5", "secrets": "3", "requests.cpu": "1"},
            "used": {"pods": "2", "secrets": "1", "requests.cpu": "750m"}})
    );
    assert_eq!(Quota::read(object).counted(&counted), None, "nothing is left to say");
}
