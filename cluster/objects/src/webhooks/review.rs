//! The question that a webhook is asked, and its answer: `AdmissionReview` of `admission.k8s.io`.

use super::known::Turn;
use base64::Engine as _;
use impresario_api::status::{Reason, Status};
use impresario_api::wire;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;

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

/// What is read of an answer. The rest of it is passed over without being kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response<'a> {
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
    allowed: Option<bool>,
    #[serde(borrow)]
    patch: Option<Cow<'a, str>>,
    #[serde(borrow)]
    patch_type: Option<Cow<'a, str>>,
    warnings: Warnings,
    #[serde(borrow)]
    status: Option<Refusal<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal<'a> {
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    code: Option<u64>,
}

/// The first few warnings, cut; however many there are, no more of them is kept.
#[derive(Debug, Default)]
struct Warnings(Vec<String>);

impl<'de> Deserialize<'de> for Warnings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FirstWarnings)
    }
}

struct FirstWarnings;

impl<'de> Visitor<'de> for FirstWarnings {
    type Value = Warnings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_unit<E>(self) -> Result<Warnings, E> {
        Ok(Warnings::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Warnings, A::Error> {
        let mut first = Vec::new();
        while first.len() < WARNINGS.0 {
            let Some(warning) = all.next_element::<Cow<'de, str>>()? else {
                return Ok(Warnings(first));
            };
            first.push(warning.chars().take(WARNINGS.1).collect());
        }
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Warnings(first))
    }
}

/// Reads the answer of the webhook of this name to the question of this uid. Only those that may change something are
/// asked for a patch.
pub(super) fn answer(hook: &str, uid: &str, body: &[u8], turn: Turn) -> Result<Answer, String> {
    let review: Review<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("received invalid webhook response: {error}"))?;
    let wrong = |what: String| Err(format!("received invalid webhook response: {what}"));
    let version = review.api_version.as_deref().unwrap_or_default();
    if version != "admission.k8s.io/v1" || review.kind.as_deref() != Some("AdmissionReview") {
        return wrong(format!(
            "expected an AdmissionReview of admission.k8s.io/v1, got {version:.64}"
        ));
    }
    let response = review.response.unwrap_or_default();
    let answered = response.uid.as_deref().unwrap_or_default();
    if answered != uid {
        return wrong(format!("expected response.uid={uid:?}, got {answered:.64?}"));
    }
    let Some(allowed) = response.allowed else {
        return wrong("response.allowed is required".to_owned());
    };
    let patch = match (response.patch.as_deref(), response.patch_type.as_deref()) {
        (None, None | Some("")) => None,
        // Who only says yes or no is not asked for one.
        (Some(_), Some("JSONPatch")) if turn == Turn::Validating => None,
        (Some(patch), Some("JSONPatch")) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(patch);
            let decoded =
                decoded.map_err(|error| format!("response.patch is no base64: {error}"))?;
            let patch = wire::parse(wire::JSON, &decoded)
                .map_err(|error| format!("response.patch is no JSON patch: {error}"))?;
            Some(patch)
        }
        (None, _) => {
            return wrong("response.patch is required with response.patchType".into());
        }
        _ => {
            return wrong("response.patchType must be JSONPatch where there is a patch".to_owned());
        }
    };
    let refusal = response.status.unwrap_or_default();
    let verdict = if allowed { Ok(()) } else { Err(denied(hook, &refusal)) };
    Ok(Answer { verdict, patch, warnings: response.warnings.0 })
}

/// The refusal of a webhook, in Kubernetes' words. That something is not there, or is no longer what it was, is what the
/// store says, and who reads that of it goes on as if nothing had been refused: of a webhook both are a refusal.
fn denied(hook: &str, refusal: &Refusal<'_>) -> Status {
    let by = format!("admission webhook {hook:?} denied the request");
    let cut = |text: &str| -> String { text.chars().take(MAX_WORDS).collect() };
    let message = refusal.message.as_deref().unwrap_or_default();
    let reason = refusal.reason.as_deref().unwrap_or_default();
    let message = match (message, reason) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {}", cut(reason)),
        (message, _) => format!("{by}: {}", cut(message)),
    };
    let reason = match refusal.code.unwrap_or(400) {
        404 | 409 | 410 => Reason::Forbidden,
        code => Reason::nearest(code, reason),
    };
    Status::new(reason, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const HOOK: &str = "a.example.com";

    fn read(response: Value) -> Result<Answer, String> {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        answer(HOOK, "u", review.to_string().as_bytes(), Turn::Mutating)
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
        assert!(answer(HOOK, "u", b"<html>", Turn::Mutating).is_err());
        let other =
            json!({"apiVersion": "v1", "kind": "Pod", "response": {"uid": "u", "allowed": true}});
        assert!(answer(HOOK, "u", other.to_string().as_bytes(), Turn::Mutating).is_err());
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
    fn no_refusal_reads_like_the_state_of_the_store() {
        for (code, reason) in [(404, "NotFound"), (409, "Conflict"), (410, "Expired")] {
            let status = json!({"code": code, "reason": reason, "message": "no"});
            let read = read(json!({"uid": "u", "allowed": false, "status": status})).unwrap();
            let status = read.verdict.unwrap_err();
            assert_eq!(status.code(), 403, "{code}");
            assert!(status.message.ends_with(": no"), "{}", status.message);
        }
    }

    #[test]
    fn of_an_answer_only_what_is_asked_for_is_kept() {
        // Lists of nothing take some thirty times as much memory as text.
        let nothing = format!("[{}0]", "0,".repeat(1 << 20));
        let patch = base64::engine::general_purpose::STANDARD.encode(&nothing);
        let review = |more: &str| {
            format!(
                r#"{{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "other": {nothing}, "response": {{"uid": "u", "allowed": true{more}}}}}"#
            )
        };
        let said = |more: &str, turn| answer(HOOK, "u", review(more).as_bytes(), turn);
        assert!(said("", Turn::Mutating).is_ok());
        let patched = format!(r#", "patchType": "JSONPatch", "patch": "{patch}""#);
        let refused = said(&patched, Turn::Mutating).unwrap_err();
        assert!(refused.contains("memory"), "{refused}");
        assert_eq!(said(&patched, Turn::Validating).unwrap().patch, None, "nobody asks for it");
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
