//! What a pod may ask for and this node does not do. Nothing of it is silent: what a pod counts on for what it is
//! (whom it sees, what it may reach) is refused by name, what only makes it stricter or more convenient is
//! warned of.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Fields that were asked for and are not done here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NotDone {
    /// Those without which the pod is not started.
    pub(super) refused: Vec<&'static str>,
    /// Those without which it is.
    pub(super) warned: Vec<&'static str>,
}

/// What of `spec` the driver of this name does not do.
pub(super) fn not_done(spec: &PodSpec, driver: &str) -> NotDone {
    if driver == "hollow" {
        return NotDone::default(); // all of it is only pretended
    }
    let is_docker = driver == "docker";
    let context = spec.security_context.clone().unwrap_or_default();
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let any = |asks: fn(&Container) -> bool| all().any(asks);
    let of = |table: &[(&'static str, bool)]| {
        table.iter().filter(|(_, asked)| *asked).map(|(field, _)| *field).collect()
    };
    let refused = [
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace == Some(true)),
        ("hostUsers: false", spec.host_users == Some(false)),
        ("os.name: windows", spec.os.as_ref().is_some_and(|os| os.name == "windows")),
        (
            // Neither set aside nor a limit: only what containers say is.
            "resources",
            spec.resources.as_ref().is_some_and(|whole| {
                [&whole.requests, &whole.limits].into_iter().flatten().any(|all| !all.is_empty())
            }),
        ),
        ("runtimeClassName", spec.runtime_class_name.is_some()),
        ("securityContext.sysctls", !context.sysctls.unwrap_or_default().is_empty()),
        (
            "securityContext.procMount",
            any(|c| {
                let context = c.security_context.as_ref();
                context.and_then(|c| c.proc_mount.as_deref()).is_some_and(|kind| kind != "Default")
            }),
        ),
    ];
    let is_confined = |kind: &str| kind != "Unconfined";
    let warned = [
        ("hostAliases", !spec.host_aliases.clone().unwrap_or_default().is_empty()),
        ("setHostnameAsFQDN", spec.set_hostname_as_fqdn == Some(true)),
        ("hostname", !is_docker && spec.hostname.is_some()),
        (
            "imagePullSecrets",
            is_docker && !spec.image_pull_secrets.clone().unwrap_or_default().is_empty(),
        ),
        (
            "securityContext.readOnlyRootFilesystem",
            any(|c| {
                let context = c.security_context.as_ref();
                context.and_then(|c| c.read_only_root_filesystem) == Some(true)
            }),
        ),
        (
            "securityContext.seccompProfile",
            context.seccomp_profile.as_ref().is_some_and(|profile| is_confined(&profile.type_))
                || any(|c| {
                    let context = c.security_context.as_ref();
                    let profile = context.and_then(|c| c.seccomp_profile.as_ref());
                    profile.is_some_and(|profile| profile.type_ != "Unconfined")
                }),
        ),
        (
            "securityContext.appArmorProfile",
            context.app_armor_profile.as_ref().is_some_and(|profile| is_confined(&profile.type_))
                || any(|c| {
                    let context = c.security_context.as_ref();
                    let profile = context.and_then(|c| c.app_armor_profile.as_ref());
                    profile.is_some_and(|profile| profile.type_ != "Unconfined")
                }),
        ),
        (
            "securityContext.seLinuxOptions",
            context.se_linux_options.is_some()
                || any(|c| {
                    c.security_context.as_ref().is_some_and(|c| c.se_linux_options.is_some())
                }),
        ),
        ("stdin", any(|c| c.stdin == Some(true))),
        ("tty", any(|c| c.tty == Some(true))),
        (
            "lifecycle.stopSignal",
            any(|c| c.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.stop_signal.is_some())),
        ),
        (
            "ports.hostPort",
            is_docker
                && spec.host_network != Some(true)
                && any(|c| c.ports.iter().flatten().any(|port| port.host_port.is_some())),
        ),
        (
            "resources.limits of ephemeral-storage",
            any(|c| {
                let limits = c.resources.as_ref().and_then(|all| all.limits.as_ref());
                limits.is_some_and(|limits| limits.contains_key("ephemeral-storage"))
            }),
        ),
    ];
    NotDone { refused: of(&refused), warned: of(&warned) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(spec: serde_json::Value, driver: &str) -> NotDone {
        not_done(&serde_json::from_value(spec).unwrap(), driver)
    }

    #[test]
    fn what_a_pod_counts_on_is_refused_by_name_and_what_protects_or_serves_it_is_warned_of() {
        let container = json!({"name": "a", "tty": true, "ports": [{"containerPort": 1, "hostPort": 1}],
            "securityContext": {"procMount": "Unmasked", "readOnlyRootFilesystem": true}});
        let spec = json!({"hostPID": true, "hostIPC": true, "hostUsers": false, "hostname": "h",
            "os": {"name": "windows"}, "resources": {"requests": {"cpu": "1"}},
            "shareProcessNamespace": true, "runtimeClassName": "gvisor",
            "securityContext": {"sysctls": [{"name": "a", "value": "1"}],
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container]});
        let found = of(spec.clone(), "process");
        let refused = [
            "hostPID",
            "hostIPC",
            "shareProcessNamespace",
            "hostUsers: false",
            "os.name: windows",
            "resources",
            "runtimeClassName",
            "securityContext.sysctls",
            "securityContext.procMount",
        ];
        assert_eq!(found.refused, refused);
        let warned = [
            "hostname",
            "securityContext.readOnlyRootFilesystem",
            "securityContext.seccompProfile",
            "tty",
        ];
        assert_eq!(found.warned, warned);
        assert!(of(spec, "docker").warned.contains(&"ports.hostPort"));
    }

    #[test]
    fn of_a_pod_that_asks_for_nothing_special_nothing_is_said() {
        let spec = json!({"hostPID": false, "hostUsers": true, "shareProcessNamespace": false,
            "os": {"name": "linux"}, "resources": {},
            "securityContext": {"seccompProfile": {"type": "Unconfined"}},
            "containers": [{"name": "a", "securityContext": {"procMount": "Default", "readOnlyRootFilesystem": false}}]});
        assert_eq!(of(spec.clone(), "process"), NotDone::default());
        assert_eq!(of(spec, "docker"), NotDone::default());
        assert_eq!(of(json!({"hostPID": true, "containers": []}), "hollow"), NotDone::default());
    }
}
