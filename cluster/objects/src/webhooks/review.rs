//! The question that a webhook is asked, and its answer: `AdmissionReview` of `admission.k8s.io/v1`.

use super::hook::Hook;
use super::rule::Action;
use base64::Engine as _;
use impresario_api::resource::Resource;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::WriteOptions;
use impresario_client::objects::stored::text;
use serde_json::{Value, json};

/// The group of the question and of its answer.
const GROUP: &str = "admission.k8s.io";
/// Who writes where nobody is named: an actor of a control member.
const ITSELF: &str = "system:impresario";
/// How many warnings of one answer are passed on, and how many characters of each.
const WARNINGS: (usize, usize) = (16, 256);
/// How many characters of a webhook's words are passed on.
const MAX_WORDS: usize = 4096;

/// What is asked for, apart from the object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The kind of the object.
    pub(crate) resource: &'a Resource,
    /// The subresource, or empty.
    pub(crate) subresource: &'a str,
    /// What is done.
    pub(crate) action: Action,
    /// In which namespace; empty where there are none.
    pub(crate) namespace: &'a str,
    /// To which object; empty where its name is yet to be drawn.
    pub(crate) name: &'a str,
    /// How.
    pub(crate) options: &'a WriteOptions,
}

impl Asked<'_> {
    /// The `request` of a review, without its uid and objects.
    pub(super) fn request(&self) -> Value {
        let resource = self.resource;
        let kind =
            json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let plural = json!({
            "group": resource.group, "version": resource.version, "resource": resource.plural,
        });
        let (user, groups) = match self.options.user.as_str() {
            "" => (ITSELF, json!(["system:masters", "system:authenticated"])),
            user => (user, json!(self.options.groups)),
        };
        let dry: &[&str] = if self.options.dry_run { &["All"] } else { &[] };
        let kind_of_options = match self.action {
            Action::Create => "CreateOptions",
            Action::Update => "UpdateOptions",
            Action::Delete => "DeleteOptions",
        };
        let mut options = json!({"kind": kind_of_options, "apiVersion": "meta.k8s.io/v1"});
        if !dry.is_empty() {
            options["dryRun"] = json!(dry);
        }
        if !self.options.manager.is_empty() && self.action != Action::Delete {
            options["fieldManager"] = json!(self.options.manager);
        }
        let mut request = json!({
            "kind": kind, "requestKind": kind,
            "resource": plural, "requestResource": plural,
            "operation": self.action.as_str(),
            "userInfo": {"username": user, "groups": groups},
            "dryRun": self.options.dry_run,
            "options": options,
        });
        for (field, value) in [
            ("name", self.name),
            ("namespace", self.namespace),
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
        ] {
            if !value.is_empty() {
                request[field] = json!(value);
            }
        }
        request
    }
}

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
    use impresario_api::catalog::find;

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
    fn a_question_tells_who_asks_for_what() {
        let pods = find("", "v1", "pods").unwrap();
        let options = WriteOptions {
            dry_run: true,
            manager: "m".into(),
            user: "eve".into(),
            groups: vec!["g".into()],
            ..WriteOptions::default()
        };
        let asked = Asked {
            resource: &pods,
            subresource: "status",
            action: Action::Update,
            namespace: "ns",
            name: "p",
            options: &options,
        };
        let question = question("v1", asked.request(), "u", &json!({"a": 1}), &json!({"a": 0}));
        for (pointer, expected) in [
            ("/request/uid", json!("u")),
            ("/request/resource", json!({"group": "", "version": "v1", "resource": "pods"})),
            ("/request/kind/kind", json!("Pod")),
            ("/request/subResource", json!("status")),
            ("/request/namespace", json!("ns")),
            ("/request/name", json!("p")),
            ("/request/operation", json!("UPDATE")),
            ("/request/userInfo", json!({"username": "eve", "groups": ["g"]})),
            ("/request/dryRun", json!(true)),
            ("/request/options/dryRun", json!(["All"])),
            ("/request/options/fieldManager", json!("m")),
            ("/request/object/a", json!(1)),
            ("/request/oldObject/a", json!(0)),
        ] {
            assert_eq!(question.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
