//! Between what Kubernetes says of containers and what Docker Engine does. No IO.

use crate::container::{
    ContainerSpec, ContainerState, ContainerStats, Exit, LogLine, Mount, StartError, Stream,
};
use crate::process::{
    cgroup::{cpu_shares, processes_of_a_pod},
    oom,
};
use bollard::{
    container::LogOutput,
    models::{
        self, ContainerCreateBody, ContainerStateStatusEnum, ContainerStatsResponse, DeviceRequest,
        HostConfig, HostConfigLogConfig, MountBindOptions, MountType,
    },
};
use jiff::Timestamp;
use std::{collections::HashMap, time::Duration};

pub(super) const CLUSTER: &str = "impresario.dev/cluster";
pub(super) const NODE: &str = "impresario.dev/node";
pub(super) const POD_UID: &str = "impresario.dev/pod-uid";
pub(super) const CONTAINER: &str = "impresario.dev/container";
/// The UUIDs of its GPUs.
pub(super) const GPUS: &str = "impresario.dev/gpus";
pub(super) const ATTEMPT: &str = "impresario.dev/attempt";

/// What is asked of the engine for a container of a pod whose network is `network`.
pub(super) fn body(
    spec: &ContainerSpec,
    labels: HashMap<String, String>,
    network: String,
) -> ContainerCreateBody {
    let whole = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    let user = spec.user.uid.map(|uid| match spec.user.gid {
        Some(gid) => format!("{uid}:{gid}"),
        None => uid.to_string(),
    });
    let resources = &spec.resources;
    let groups: Vec<_> = spec.user.groups.iter().map(u32::to_string).collect();
    let memory = resources.memory_limit_bytes.map(|bytes| bytes as i64);
    let log = HashMap::from([
        ("max-size".to_owned(), spec.log.file_bytes.to_string()),
        ("max-file".to_owned(), spec.log.files.max(1).to_string()),
    ]);
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: whole(&spec.command),
        // Arguments alone go to the image's entry point; a command alone takes none from it.
        cmd: whole(&spec.args).or_else(|| (!spec.command.is_empty()).then(Vec::new)),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: spec.working_dir.as_ref().map(|path| path.display().to_string()),
        user,
        labels: Some(labels),
        host_config: Some(HostConfig {
            network_mode: Some(network),
            mounts: Some(spec.mounts.iter().map(mount).collect()),
            // One who asks for nothing has next to nothing under contention, and not the kernel's default: a whole CPU.
            cpu_shares: Some(cpu_shares(resources.cpu_request_milli) as i64),
            nano_cpus: resources.cpu_limit_milli.map(|milli| (milli * 1_000_000) as i64),
            memory,
            memory_swap: memory, // none beyond it
            oom_score_adj: crate::machine::memory()
                .ok()
                .map(|memory| i64::from(oom::score(resources, memory))),
            pids_limit: Some(processes_of_a_pod() as i64),
            device_requests: (!spec.gpus.is_empty()).then(|| {
                vec![DeviceRequest {
                    driver: Some("nvidia".into()),
                    device_ids: Some(spec.gpus.clone()),
                    capabilities: Some(vec![vec!["gpu".into()]]),
                    ..DeviceRequest::default()
                }]
            }),
            privileged: Some(spec.security.privileged),
            cap_add: whole(&spec.security.add),
            cap_drop: whole(&spec.security.drop),
            security_opt: (spec.security.allow_escalation == Some(false))
                .then(|| vec!["no-new-privileges".to_owned()]),
            group_add: (!groups.is_empty()).then_some(groups),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(log),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn mount(mount: &Mount) -> models::Mount {
    models::Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.display().to_string()),
        target: Some(mount.target.display().to_string()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions::default()),
        ..models::Mount::default()
    }
}

fn time(text: Option<&String>) -> Option<Timestamp> {
    // The engine writes the first year of all for "not yet".
    text.and_then(|text| text.parse().ok()).filter(|time: &Timestamp| time.as_second() > 0)
}

/// A container's state as the engine tells it.
pub(super) fn state(state: &models::ContainerState) -> ContainerState {
    use ContainerStateStatusEnum as Status;
    let started_at = time(state.started_at.as_ref());
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => ContainerState::Running {
            started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH),
            pid: state.pid.unwrap_or(0) as u32,
        },
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => {
            let code = state.exit_code.unwrap_or(137) as i32;
            let finished_at = time(state.finished_at.as_ref()).unwrap_or_else(Timestamp::now);
            let out_of_memory = state.oom_killed.unwrap_or(false) && code != 0;
            ContainerState::Exited(Exit {
                code,
                signal: (code > 128 && code <= 128 + 64).then_some(code - 128),
                // The engine notes the start after the fact: a quick end may come before it.
                started_at: started_at.map(|started_at| started_at.min(finished_at)),
                finished_at,
                reason: Exit::reason_for(code, out_of_memory).to_owned(),
                message: state.error.clone().unwrap_or_default(),
            })
        }
        _ => ContainerState::Created,
    }
}

/// Why the engine did not start a container, from its words: it has no codes for it.
pub(super) fn start_error(spec: &ContainerSpec, message: &str) -> Option<StartError> {
    let command = spec.command.first().or(spec.args.first()).cloned().unwrap_or_default();
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["bind source path does not exist", "error mounting", "invalid mount config"]) {
        let named = |mount: &&Mount| {
            message.contains(&*mount.source.to_string_lossy())
                || message.contains(&*mount.target.to_string_lossy())
        };
        let mount = spec.mounts.iter().find(named).or(spec.mounts.first())?;
        return Some(StartError::Mount {
            volume: mount.volume.clone(),
            target: mount.target.clone(),
            cause: message.to_owned(),
        });
    }
    if says(&["permission denied", "is a directory"]) {
        return Some(StartError::PermissionDenied { command });
    }
    if says(&["executable file not found", "no such file or directory", "not a directory"]) {
        return Some(StartError::NotFound { command });
    }
    if says(&["no command specified", "No command specified"]) {
        return Some(StartError::NoCommand);
    }
    None
}

/// A line as the engine frames it: its time, a space, its bytes.
pub(super) fn line(output: LogOutput) -> Option<LogLine> {
    let (stream, mut bytes) = match output {
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => (Stream::Stdout, message),
        LogOutput::StdIn { .. } => return None,
    };
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    let partial = !bytes.ends_with(b"\n");
    let bytes = bytes.split_off(end + 1);
    let bytes = if partial { bytes } else { bytes.slice(..bytes.len() - 1) };
    Some(LogLine { time, stream, bytes, partial })
}

/// What a container uses.
pub(super) fn stats(found: &ContainerStatsResponse) -> ContainerStats {
    let memory = found.memory_stats.as_ref();
    let inactive = memory.and_then(|m| {
        let stats = m.stats.as_ref()?;
        stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")).copied()
    });
    let used = memory.and_then(|m| m.usage).unwrap_or(0);
    let cpu = found.cpu_stats.as_ref().and_then(|c| c.cpu_usage.as_ref()?.total_usage);
    ContainerStats {
        cpu: Duration::from_nanos(cpu.unwrap_or(0)),
        memory_bytes: used.saturating_sub(inactive.unwrap_or(0)),
        processes: found.pids_stats.as_ref().and_then(|p| p.current).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_line_is_split_into_time_and_bytes() {
        let message = "2026-11-24T07:00:00.000000001Z two words\n".into();
        let found = line(LogOutput::StdErr { message }).unwrap();
        assert_eq!((found.stream, found.partial), (Stream::Stderr, false));
        assert_eq!(found.bytes, "two words");
        assert_eq!(found.time.subsec_nanosecond(), 1);
        let message = "2026-11-24T07:00:00Z a piece".into();
        assert!(line(LogOutput::StdOut { message }).unwrap().partial);
    }

    #[test]
    fn who_asks_for_no_cpu_weighs_next_to_nothing_and_who_asks_for_some_as_much() {
        let mut spec = ContainerSpec {
            pod: crate::container::PodSandbox {
                uid: "uid".into(),
                namespace: "default".into(),
                name: "pod".into(),
                hostname: "pod".into(),
                address: None,
                host_network: false,
                cpu_request_milli: 0,
                annotations: std::collections::BTreeMap::new(),
            },
            name: "a".into(),
            attempt: 0,
            is_init: false,
            image: "image".into(),
            pull: crate::container::PullPolicy::Never,
            command: vec![],
            args: vec![],
            working_dir: None,
            env: vec![],
            mounts: vec![],
            resources: crate::container::Resources::default(),
            user: crate::container::User::default(),
            security: crate::container::Security::default(),
            gpus: vec![],
            log: crate::container::LogLimit::default(),
        };
        for (milli, shares) in [(0, 2), (1, 2), (500, 512), (2_000, 2_048), (1 << 40, 262_144)] {
            spec.resources.cpu_request_milli = milli;
            let body = body(&spec, HashMap::new(), "none".into());
            assert_eq!(body.host_config.unwrap().cpu_shares, Some(shares), "{milli}");
        }
    }

    #[test]
    fn a_container_that_ended_says_how_and_when() {
        let found = state(&models::ContainerState {
            status: Some(ContainerStateStatusEnum::EXITED),
            exit_code: Some(137),
            oom_killed: Some(true),
            started_at: Some("2026-11-24T07:00:00Z".into()),
            finished_at: Some("2026-11-24T07:00:01Z".into()),
            ..models::ContainerState::default()
        });
        let ContainerState::Exited(exit) = found else { panic!("{found:?}") };
        assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (137, Some(9), "OOMKilled"));
        assert!(exit.started_at.unwrap() < exit.finished_at);
    }
}
