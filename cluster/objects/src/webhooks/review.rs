//! The question that a webhook is asked, and its answer: `AdmissionReview` of `admission.k8s.io`.

use super::hook::Hook;
use base64::Engine as _;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::stored::text;
use serde_json::{Value, json};

/// The group of the question and of its answer.
const GROUP: &str = "admission.k8s.io";
/// How many warnings of one answer are passed on, and how many characters of each.
const WARNINGS: (usize, usize) = (16, 256);
/// How many characters of a webhook's words are passed on.
const MAX_WORDS: usize = 4096;

/// The whole question.
pub(super) fn question(
    version: &str,
    mut request: Value,
    uid: &str,
    object: &Value,
    old: &Value,
) -> Value {
    request["uid"] = json!(uid);
    request["object"] = object.clone();
    request["oldObject"] = old.clone();
    let version = format!("{GROUP}/{version}");
    json!({"kind": "AdmissionReview", "apiVersion": version, "request": request})
}

/// What a webhook answered.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// Nothing, or why not.
    pub(super) verdict: Result<(), Status>,
    /// A JSON patch.
    pub(super) patch: Option<Value>,
    /// What the writer should know.
    pub(super) warnings: Vec<String>,
}

/// Reads the answer of this webhook to the question of this uid.
pub(super) fn answer(hook: &Hook, uid: &str, body: &[u8]) -> Result<Answer, String> {
    let review: Value = serde_json::from_slice(body)
        .map_err(|error| format!("received invalid webhook response: {error}"))?;
    let wrong = |what: String| Err(format!("received invalid webhook response: {what}"));
    let version = text(&review, "/apiVersion");
    if version != "admission.k8s.io/v1" || text(&review, "/kind") != "AdmissionReview" {
        return wrong(format!(
            "expected an AdmissionReview of admission.k8s.io/v1, got {version:.64}"
        ));
    }
    let response = &review["response"];
    let answered = text(response, "/uid");
    if answered != uid {
        return wrong(format!("expected response.uid={uid:?}, got {answered:.64?}"));
    }
    let Some(allowed) = response["allowed"].as_bool() else {
        return wrong("response.allowed is required".to_owned());
    };
    let patch = match (&response["patch"], text(response, "/patchType")) {
        (Value::Null, "") => None,
        (Value::String(patch), "JSONPatch") => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(patch);
            let decoded =
                decoded.map_err(|error| format!("response.patch is no base64: {error}"))?;
            let patch = serde_json::from_slice(&decoded);
            Some(patch.map_err(|error| format!("response.patch is no JSON patch: {error}"))?)
        }
        (Value::Null, _) => {
            return wrong("response.patch is required with response.patchType".into());
        }
        _ => {
            return wrong("response.patchType must be JSONPatch where there is a patch".to_owned());
        }
    };
    let warnings = response["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(Value::as_str).take(WARNINGS.0);
    let warnings = warnings.map(|warning| warning.chars().take(WARNINGS.1).collect()).collect();
    let verdict = if allowed { Ok(()) } else { Err(denied(&hook.name, &response["status"])) };
    Ok(Answer { verdict, patch, warnings })
}

/// The refusal of a webhook, in Kubernetes' words.
fn denied(hook: &str, status: &Value) -> Status {
    let by = format!("admission webhook {hook:?} denied the request");
    let cut = |text: &str| -> String { text.chars().take(MAX_WORDS).collect() };
    let (message, reason) = (text(status, "/message"), text(status, "/reason"));
    let message = match (message, reason) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {}", cut(reason)),
        (message, _) => format!("{by}: {}", cut(message)),
    };
    let code = status["code"].as_u64().unwrap_or(400);
    Status::new(Reason::nearest(code, reason), message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::webhooks::hook::tests::entry;

    fn hook() -> Hook {
        Hook::read(&entry(&json!({}))).unwrap()
    }

    fn read(response: Value) -> Result<Answer, String> {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        answer(&hook(), "u", review.to_string().as_bytes())
    }

    #[test]
    fn an_answer_that_is_not_one_is_said_to_be_none() {
        for response in [
            json!({}),
            json!({"uid": "u"}),
            json!({"uid": "other", "allowed": true}),
            json!({"uid": "u", "allowed": "yes"}),
            json!({"uid": "u", "allowed": true, "patch": "W10="}),
            json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}),
            json!({"uid": "u", "allowed": true, "patch": "!", "patchType": "JSONPatch"}),
            json!({"uid": "u", "allowed": true, "patch": "e30", "patchType": "JSONPatch"}),
            json!({"uid": "u", "allowed": true, "patch": {}, "patchType": "JSONPatch"}),
        ] {
            assert!(read(response.clone()).is_err(), "{response}");
        }
        assert!(answer(&hook(), "u", b"<html>").is_err());
        let other =
            json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": "u", "allowed": true}});
        assert!(answer(&hook(), "u", other.to_string().as_bytes()).is_err());
        let allowed = read(json!({"uid": "u", "allowed": true})).unwrap();
        assert_eq!(allowed, Answer { verdict: Ok(()), patch: None, warnings: Vec::new() });
        let patched =
            read(json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}));
        assert_eq!(patched.unwrap().patch, Some(json!([])));
    }

    #[test]
    fn a_refusal_reads_as_in_kubernetes_and_is_never_a_success() {
        let told = |status: Value| {
            let answer = read(json!({"uid": "u", "allowed": false, "status": status})).unwrap();
            let status = answer.verdict.unwrap_err();
            (status.code(), status.message)
        };
        let by = "admission webhook \"a.example.com\" denied the request";
        assert_eq!(told(Value::Null), (400, format!("{by} without explanation")));
        assert_eq!(told(json!({"code": 200, "message": "no"})), (400, format!("{by}: no")));
        assert_eq!(
            told(json!({"code": 403, "reason": "Forbidden"})),
            (403, format!("{by}: Forbidden"))
        );
        assert_eq!(told(json!({"code": 422, "message": "x"})).0, 422);
        assert_eq!(told(json!({"code": 418, "message": "tea"})).0, 400);
        assert_eq!(told(json!({"code": 599})).0, 500);
        assert!(told(json!({"message": "x".repeat(100_000)})).1.len() < 5000);
    }

    #[test]
    fn warnings_are_cut_in_number_and_length() {
        let many: Vec<String> = (0..100).map(|_| "w".repeat(10_000)).collect();
        let answer = read(json!({"uid": "u", "allowed": true, "warnings": many})).unwrap();
        assert_eq!((answer.warnings.len(), answer.warnings[0].len()), (16, 256));
    }

    #[test]
    fn a_question_has_its_own_uid_and_what_was_and_what_is_to_be() {
        let asked = json!({"name": "p"});
        let question = question("v1beta1", asked, "u", &json!({"a": 1}), &json!({"a": 0}));
        assert_eq!(
            question,
            json!({
                "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1",
                "request": {"name": "p", "uid": "u", "object": {"a": 1}, "oldObject": {"a": 0}},
            })
        );
    }
}
