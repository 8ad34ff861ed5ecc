use super::*;
use serde_json::json;

/// A pod that the strictest level allows.
fn good() -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]
        }
    })
}

/// The pod with a JSON merge patch; of the one container, what is under `container`.
fn with(patch: &Value) -> Value {
    fn merge(object: &mut Value, patch: &Value) {
        match patch {
            Value::Object(fields) => {
                for (key, value) in fields {
                    merge(&mut object[key.as_str()], value);
                }
            }
            other => *object = other.clone(),
        }
    }
    let mut pod = good();
    for (key, value) in patch.as_object().unwrap() {
        match key.as_str() {
            "container" => merge(&mut pod["spec"]["containers"][0], value),
            "metadata" => merge(&mut pod["metadata"], value),
            field => merge(&mut pod["spec"][field], value),
        }
    }
    pod
}

fn standard(level: Level) -> Standard {
    Standard { level, minor: LATEST }
}

fn told(pod: &Value, standard: Standard) -> String {
    let found = violations(pod, standard);
    let prefix = format!("violates PodSecurity \"{standard}\": ");
    found.map_or_else(String::new, |it| it.told(false).strip_prefix(&prefix).unwrap().to_owned())
}

#[test]
fn each_control_of_the_baseline_refuses_what_it_is_about_and_nothing_else() {
    const ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/a";
    let context = |fields: Value| json!({"container": {"securityContext": fields}});
    let whole = |fields: Value| json!({"securityContext": fields});
    let probe = |fields: Value| json!({"container": {"livenessProbe": fields}});
    let rows = [
        (json!({}), ""),
        (whole(json!({"appArmorProfile": {"type": "Localhost"}})), ""),
        (
            whole(json!({"appArmorProfile": {"type": "Unconfined"}})),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            json!({"metadata": {"annotations": {ARMOR: "unconfined"}}}),
            r#"forbidden AppArmor profile (annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
        ),
        (context(json!({"capabilities": {"add": ["CHOWN"]}})), ""),
        (
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "NET_ADMIN", "CHOWN"]}})),
            r#"non-default capabilities (container "a" must not include "NET_ADMIN", "SYS_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (json!({"hostNetwork": false}), ""),
        (
            json!({"hostNetwork": true, "hostIPC": true}),
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (json!({"hostPID": true}), "host namespaces (hostPID=true)"),
        (json!({"volumes": [{"name": "v", "emptyDir": {}}]}), ""),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
            r#"hostPath volumes (volumes "v", "w")"#,
        ),
        (json!({"container": {"ports": [{"containerPort": 80}]}}), ""),
        (
            json!({"container": {"ports": [{"hostPort": 80}, {"hostPort": 8080}]}}),
            r#"hostPort (container "a" uses hostPorts 80, 8080)"#,
        ),
        (probe(json!({"httpGet": {"port": 80}})), ""),
        (
            probe(json!({"httpGet": {"port": 80, "host": "127.0.0.1"}})),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "127.0.0.1")"#,
        ),
        (
            json!({"container": {"lifecycle": {"preStop": {"tcpSocket": {"host": "h", "port": 1}}}}}),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "h")"#,
        ),
        (context(json!({"privileged": false})), ""),
        (
            context(json!({"privileged": true})),
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (context(json!({"procMount": "Default"})), ""),
        (
            context(json!({"procMount": "Unmasked"})),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (whole(json!({"seLinuxOptions": {"type": "container_engine_t", "level": "s0"}})), ""),
        (
            whole(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)"#,
        ),
        (
            context(json!({"seLinuxOptions": {"role": "r"}})),
            r#"seLinuxOptions (container "a" set forbidden securityContext.seLinuxOptions: role may not be set)"#,
        ),
        (context(json!({"seccompProfile": {"type": "Localhost"}})), ""),
        (
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
            r#"seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (whole(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]})), ""),
        (
            whole(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (whole(json!({"windowsOptions": {"hostProcess": false}})), ""),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}},
                "container": {"securityContext": {"windowsOptions": {"hostProcess": true}}}}),
            r#"hostProcess (pod and container "a" must not set securityContext.windowsOptions.hostProcess=true)"#,
        ),
    ];
    for (patch, expected) in rows {
        let pod = with(&patch);
        assert_eq!(told(&pod, standard(Level::Baseline)), expected, "{patch}");
        assert_eq!(told(&pod, standard(Level::Privileged)), "", "{patch}");
        // The strict level refuses all that this one does.
        assert_eq!(
            told(&pod, standard(Level::Restricted)).is_empty(),
            expected.is_empty() && !patch.to_string().contains("CHOWN"),
            "{patch}"
        );
    }
}

#[test]
fn each_control_of_the_restricted_level_refuses_what_it_is_about_and_nothing_else() {
    let context = |fields: Value| json!({"container": {"securityContext": fields}});
    let whole = |fields: Value| json!({"securityContext": fields});
    let windows = |fields: Value| json!({"os": {"name": "windows"}, "container": fields});
    let rows = [
        (json!({}), ""),
        (
            context(json!({"allowPrivilegeEscalation": null})),
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
        (
            context(json!({"allowPrivilegeEscalation": true})),
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
        (context(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}})), ""),
        (
            context(json!({"capabilities": {"add": ["CHOWN"], "drop": []}})),
            r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
        ),
        (json!({"volumes": [{"name": "v", "secret": {}}, {"name": "w", "image": {}}]}), ""),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {}}]}),
            r#"restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")"#,
        ),
        (
            json!({"securityContext": {"runAsNonRoot": null}, "container": {"securityContext": {"runAsNonRoot": true}}}),
            "",
        ),
        (
            whole(json!({"runAsNonRoot": null})),
            r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#,
        ),
        (
            whole(json!({"runAsNonRoot": false})),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            context(json!({"runAsNonRoot": false})),
            r#"runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)"#,
        ),
        (context(json!({"runAsUser": 1000})), ""),
        (
            context(json!({"runAsUser": 0})),
            r#"runAsUser=0 (container "a" must not set runAsUser=0)"#,
        ),
        (
            json!({"securityContext": {"seccompProfile": null}, "container": {"securityContext": {"seccompProfile": {"type": "Localhost"}}}}),
            "",
        ),
        (
            whole(json!({"seccompProfile": null})),
            r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            whole(json!({"seccompProfile": {"type": "Unconfined"}})),
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            windows(
                json!({"securityContext": {"allowPrivilegeEscalation": true, "capabilities": {"add": ["SYS_ADMIN"]},
                    "seccompProfile": {"type": "Unconfined"}}}),
            ),
            concat!(
                r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), "#,
                r#"unrestricted capabilities (container "a" must not include "SYS_ADMIN" in securityContext.capabilities.add), "#,
                r#"seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#
            ),
        ),
    ];
    for (patch, expected) in rows {
        assert_eq!(told(&with(&patch), standard(Level::Restricted)), expected, "{patch}");
    }
}

#[test]
fn all_that_is_wrong_is_told_the_baseline_first() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "hostNetwork": true, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}});
    assert_eq!(
        violations(&pod, standard(Level::Restricted)).unwrap().told(true),
        "would violate PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true), \
         allowPrivilegeEscalation != false (containers \"i\", \"a\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"i\", \"a\" must \
         set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"i\", \"a\" \
         must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"i\", \"a\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn an_earlier_version_asks_for_what_it_asked_for() {
    let at = |minor: u32| Standard { level: Level::Restricted, minor };
    let rows = [
        (json!({"securityContext": {"seccompProfile": null}}), 18, 19),
        (json!({"container": {"securityContext": {"capabilities": {"drop": []}}}}), 21, 22),
        (json!({"container": {"securityContext": {"runAsUser": 0}}}), 22, 23),
        (json!({"container": {"livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}}), 33, 34),
    ];
    for (patch, allowed, refused) in rows {
        assert_eq!(told(&with(&patch), at(allowed)), "", "{patch} in {allowed}");
        assert_ne!(told(&with(&patch), at(refused)), "", "{patch} in {refused}");
    }
    let later =
        json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_wmem", "value": "1"}]}});
    assert_ne!(told(&with(&later), at(31)), "");
    assert_eq!(told(&with(&later), at(32)), "");
}

#[test]
fn the_labels_of_a_namespace_say_what_is_asked_and_what_is_no_level_is_the_strictest() {
    let namespace = |labels: Value| json!({"metadata": {"name": "n", "labels": labels}});
    let policy = |labels: Value| Policy::of(&namespace(labels));
    let (enforce, warn) = ("pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn");
    let version = "pod-security.kubernetes.io/enforce-version";
    assert!(policy(json!({})).is_silent());
    let said = policy(json!({enforce: "baseline", version: "v1.30", warn: "restricted"}));
    assert_eq!(
        (said.enforce.to_string(), said.warn.to_string()),
        ("baseline:v1.30".into(), "restricted:latest".into())
    );
    assert!(!said.is_silent());
    assert_eq!(policy(json!({enforce: "strict"})).enforce.level, Level::Restricted);
    let wrong =
        wrong_labels(&namespace(json!({enforce: "strict", version: "v1.07", warn: "baseline"})));
    let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(
        wrong,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of \
             privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"v1.07\": must be \
             \"latest\" or \"v1.x\"",
        ]
    );
}

#[test]
fn pods_that_are_there_when_a_level_becomes_stricter_are_told_of_by_what_is_wrong() {
    let namespace = json!({"metadata": {"name": "n", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let pod = |name: &str, host: bool| {
        json!({"metadata": {"name": name}, "spec": {"hostPID": host, "containers": [
        {"name": "a", "securityContext": {"privileged": !host}}]}})
    };
    let pods = [pod("c", true), pod("b", true), pod("a", false), good()];
    assert_eq!(
        told_of_present(&namespace, pods.iter(), true),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a: privileged",
            "b (and 1 other pod): host namespaces",
        ]
    );
    assert!(told_of_present(&namespace, pods[3..].iter(), true).is_empty());
}
