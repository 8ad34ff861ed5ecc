//! What a service says of ports that cannot be had on some nodes: a condition and an annotation, both gone
//! when the reason is.

use crate::withheld_ports::{ALTERNATE_PORTS, PORTS_WITHHELD, Withheld};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Why ports are withheld.
pub(super) const REASON: &str = "PortsWithheld";

/// Whether the service says so already, and nothing else.
pub(super) fn is_told(service: &Service, withheld: Option<&Withheld>) -> bool {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_deref());
    let said = conditions.unwrap_or_default().iter().find(|said| said.type_ == PORTS_WITHHELD);
    let annotations = service.metadata.annotations.as_ref();
    let alternates = annotations.and_then(|all| all.get(ALTERNATE_PORTS));
    let is_said = match (said, withheld) {
        (None, None) => true,
        // On which nodes is said when it is written, and not again for each that comes or goes.
        (Some(said), Some(withheld)) => {
            said.status == "True" && said.message.starts_with(&withheld.ports)
        }
        _ => false,
    };
    is_said && alternates == withheld.map(|withheld| &withheld.alternates)
}

/// What its status says then; the annotation goes with it.
pub(super) fn status(status: &Value, withheld: Option<&Withheld>, now: Timestamp) -> Value {
    let mut status = status.clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let (said, mut conditions): (Vec<_>, Vec<_>) =
        conditions.into_iter().partition(|condition| condition["type"] == PORTS_WITHHELD);
    if let Some(withheld) = withheld {
        let since = said.first().filter(|said| said["status"] == "True");
        let since = since.and_then(|said| said["lastTransitionTime"].as_str()).map(str::to_owned);
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        conditions.push(json!({
            "type": PORTS_WITHHELD, "status": "True", "reason": REASON, "message": withheld.message,
            "lastTransitionTime": since.unwrap_or_else(|| now.to_string()),
        }));
    }
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    } else if let Some(status) = status.as_object_mut() {
        status.remove("conditions");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a service say so, or no more.
    fn tell(service: &mut Value, withheld: Option<&Withheld>, now: Timestamp) {
        service["status"] = status(&service["status"], withheld, now);
        let annotations = service["metadata"].as_object_mut().unwrap().entry("annotations");
        let annotations = annotations.or_insert_with(|| json!({})).as_object_mut().unwrap();
        match withheld {
            Some(withheld) => {
                annotations.insert(ALTERNATE_PORTS.into(), withheld.alternates.clone().into());
            }
            None => {
                annotations.remove(ALTERNATE_PORTS);
            }
        }
        if annotations.is_empty() {
            service["metadata"].as_object_mut().unwrap().remove("annotations");
        }
    }

    fn typed(service: &Value) -> Service {
        serde_json::from_value(service.clone()).unwrap()
    }

    #[test]
    fn what_is_withheld_is_said_since_when_it_is_so_and_then_no_more() {
        let bare = json!({"metadata": {"name": "web"}, "spec": {}, "status": {"loadBalancer": {}}});
        let mut service = bare.clone();
        assert!(is_told(&typed(&service), None));
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |ports: &str| Withheld {
            message: format!("{ports} Seen on n1."),
            ports: ports.into(),
            alternates: "80/TCP=8080".into(),
        };
        for (second, message) in [(0, "on one"), (60, "on two")] {
            let withheld = of(message);
            assert!(!is_told(&typed(&service), Some(&withheld)));
            tell(&mut service, Some(&withheld), at(second));
            assert!(is_told(&typed(&service), Some(&withheld)));
            let elsewhere = Withheld { message: format!("{message} Seen on n2."), ..withheld };
            assert!(is_told(&typed(&service), Some(&elsewhere)));
        }
        let condition = &service["status"]["conditions"][0];
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(service["metadata"]["annotations"][ALTERNATE_PORTS], "80/TCP=8080");
        assert!(!is_told(&typed(&service), None));
        tell(&mut service, None, at(120));
        assert_eq!(service, bare);
    }

    #[test]
    fn what_others_have_said_stays() {
        let mut service = json!({"metadata": {"annotations": {"mine": "1"}},
            "status": {"conditions": [{"type": "Other", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "1970-01-01T00:00:00Z"}]}});
        let before = service.clone();
        let withheld =
            Withheld { message: "m".into(), ports: "m".into(), alternates: String::new() };
        tell(&mut service, Some(&withheld), Timestamp::UNIX_EPOCH);
        assert_eq!(service["status"]["conditions"].as_array().unwrap().len(), 2);
        tell(&mut service, None, Timestamp::UNIX_EPOCH);
        assert_eq!(service, before);
    }
}
