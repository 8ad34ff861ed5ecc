//! Probes and lifecycle hooks: how a container is asked, and told.

use crate::field::{Causes, Path, get, has, list, number, text};
use crate::names;
use serde_json::Value;

/// A port by its number or by its name.
pub fn port(value: &Value, path: &Path, causes: &mut Causes) {
    if let Some(name) = value.as_str() {
        causes.invalid_all(path, name, names::port_name(name));
    } else {
        let number = value.as_i64().unwrap_or(0);
        if let Some(why) = names::port_number(number) {
            causes.invalid(path, number, why);
        }
    }
}

/// Exactly one of the handlers that are allowed here must be given.
fn handler(object: &Value, path: &Path, kinds: &[&str], causes: &mut Causes) {
    let mut count = 0;
    for kind in kinds.iter().filter(|kind| has(object, kind)) {
        let (handler, path) = (get(object, kind), path.child(kind));
        if count > 0 {
            causes.forbidden(&path, "may not specify more than 1 handler type");
            count += 1;
            continue;
        }
        count += 1;
        match *kind {
            "exec" if list(handler, "command").is_empty() => {
                causes.required(&path.child("command"), "");
            }
            "httpGet" => {
                if text(handler, "path").is_empty() {
                    causes.required(&path.child("path"), "");
                }
                port(get(handler, "port"), &path.child("port"), causes);
                causes.one_of(&path.child("scheme"), text(handler, "scheme"), &["HTTP", "HTTPS"]);
                for header in list(handler, "httpHeaders") {
                    let name = text(header, "name");
                    causes.invalid_all(&path.child("httpHeaders"), name, names::http_header(name));
                }
            }
            "tcpSocket" | "grpc" => port(get(handler, "port"), &path.child("port"), causes),
            _ => {}
        }
    }
    if count == 0 {
        causes.required(path, "must specify a handler type");
    }
}

/// What a probe is for decides what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of its services while it fails.
    Readiness,
    /// Holds the other probes back until it succeeds.
    Startup,
}

/// One probe; null is none.
pub fn probe(probe: &Value, purpose: Use, path: &Path, causes: &mut Causes) {
    if probe.is_null() {
        return;
    }
    handler(probe, path, &["exec", "httpGet", "tcpSocket", "grpc"], causes);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        causes.not_negative(&path.child(field), number(probe, field));
    }
    let grace_path = path.child("terminationGracePeriodSeconds");
    if let Some(grace) = number(probe, "terminationGracePeriodSeconds") {
        if grace <= 0 {
            causes.invalid(&grace_path, grace, "must be greater than 0");
        }
        if purpose == Use::Readiness {
            causes.invalid(&grace_path, grace, "must not be set for readinessProbes");
        }
    }
    let successes = number(probe, "successThreshold").unwrap_or(1);
    if purpose != Use::Readiness && successes != 1 {
        causes.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
}

/// The hooks of a container; `grace` is how long its pod gets to end.
pub fn lifecycle(lifecycle: &Value, grace: i64, path: &Path, causes: &mut Causes) {
    for hook in ["postStart", "preStop"] {
        let given = get(lifecycle, hook);
        if given.is_null() {
            continue;
        }
        let path = path.child(hook);
        handler(given, &path, &["exec", "httpGet", "tcpSocket", "sleep"], causes);
        if let Some(seconds) = number(given, "sleep.seconds")
            && (seconds < 0 || seconds > grace)
        {
            let why = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            );
            causes.invalid(&path.child("sleep"), seconds, &why);
        }
    }
}
