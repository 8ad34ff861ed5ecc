//! The conditions of a status (API conventions, "Typical status properties").

use super::effects::Shortfall;
use impresario_api::admission::metadata_time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Sets the condition `kind` of a status to true for this reason, or takes it off. One that gives this
/// reason already stays as it is: each attempt may fail in other words.
pub fn set(status: &mut Value, kind: &str, why: Option<&Shortfall>, now: Timestamp) {
    let mut conditions = match status.get_mut("conditions").map(Value::take) {
        Some(Value::Array(conditions)) => conditions,
        _ => Vec::new(),
    };
    let said = conditions.iter().position(|condition| condition["type"] == kind);
    let said = said.map(|at| conditions.remove(at));
    if let Some(why) = why {
        let same = said.filter(|said| said["reason"] == why.reason.as_str());
        conditions.push(same.unwrap_or_else(|| {
            json!({
                "type": kind,
                "status": "True",
                "reason": why.reason,
                "message": why.message,
                "lastTransitionTime": metadata_time(now),
            })
        }));
    }
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    } else if let Some(status) = status.as_object_mut() {
        status.remove("conditions");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_and_until_it_is_none_any_more() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let failing = |message: &str| {
            Some(Shortfall { reason: "FailedCreate".into(), message: message.into() })
        };
        let before = json!({"replicas": 1, "conditions": [{"type": "Other", "status": "True"}]});
        let mut status = before.clone();
        set(&mut status, "Failing", failing("web-1 is refused").as_ref(), at(1));
        let first = status.clone();
        let said = &first["conditions"][1];
        assert_eq!((&said["type"], &said["reason"]), (&json!("Failing"), &json!("FailedCreate")));
        assert_eq!(said["lastTransitionTime"], "1970-01-01T00:00:01Z");
        set(&mut status, "Failing", failing("web-2 is refused").as_ref(), at(2));
        assert_eq!(status, first);
        set(&mut status, "Failing", None, at(3));
        assert_eq!(status, before);
        let mut bare = json!({"replicas": 1});
        set(&mut bare, "Failing", None, at(3));
        assert_eq!(bare, json!({"replicas": 1}));
    }
}
