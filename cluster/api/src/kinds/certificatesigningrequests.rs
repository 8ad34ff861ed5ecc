//! CertificateSigningRequest: a certificate that somebody wants, and what was decided about it.
//!
//! What is asked for never changes. The `approval` door takes what is decided, the status door the certificate.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, get, has, list, number, object_mut, remove, same, set, text};
use crate::names;
use crate::resource::{Column, Effect, FieldLabel, Resource, Rules, Subresource, Verb, words};
use crate::rules::declared;
use crate::status::Status;
use crate::table::{NONE, age, human_duration, name};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

const EXPIRATION_SECONDS_MIN: i64 = 600;
const SIGNER_MAX: usize = names::SUBDOMAIN_MAX + 1 + 317;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The row.
pub fn resource() -> Resource {
    let kind = "CertificateSigningRequest";
    Resource {
        short_names: words(["csr"]),
        effect: Effect::by("the signer of certificates for clients of the API"),
        namespaced: false,
        subresources: vec![
            Subresource::own("approval", &[Verb::Get, Verb::Patch, Verb::Update], kind),
            Subresource::status(kind),
        ],
        columns: vec![
            Column::name(),
            Column::age(),
            Column::text("SignerName", "Who is asked to sign."),
            Column::text("Requestor", "Who asks."),
            Column::text("RequestedDuration", "For how long."),
            Column::text("Condition", "What was decided, and done."),
        ],
        cells: Arc::new(cells),
        rules: Rules {
            default: Arc::new(|request| {
                object_mut(request, "status");
            }),
            prepare_create: Arc::new(prepare_create),
            prepare_update: Arc::new(|new, old, _| {
                set(new, "spec", get(old, "spec").clone());
                Ok(())
            }),
            validate: Arc::new(validate),
            validate_status: Arc::new(validate_status),
            ..Rules::plain()
        },
        fields: vec![FieldLabel::new("spec.signerName", "/spec/signerName")],
        ..Resource::named(
            "certificates.k8s.io",
            "v1",
            kind,
            "certificatesigningrequests",
            "certificatesigningrequest",
            "api.certificates.v1.CertificateSigningRequest",
        )
    }
}

/// Who asks is who has shown a credential, whatever the request says.
fn prepare_create(request: &mut Value, context: &Context<'_>) -> Result<(), Status> {
    let spec = object_mut(request, "spec");
    for field in ["uid", "groups", "extra"] {
        remove(spec, field);
    }
    set(spec, "username", context.user);
    set(request, "status", json!({}));
    Ok(())
}

fn validate(request: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(request, "spec"), Path::new("spec"));
    let body = text(spec, "request");
    if !body.is_empty() && !is_request(body) {
        let why = "unable to parse as a PEM-encoded CERTIFICATE REQUEST";
        causes.invalid(&path.child("request"), "<request>", why);
    }
    usages(spec, &path.child("usages"), &mut causes);
    signer(text(spec, "signerName"), &path.child("signerName"), &mut causes);
    let seconds = number(spec, "expirationSeconds");
    if let Some(seconds) = seconds.filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
        let why = format!(
            "may not specify a duration less than {EXPIRATION_SECONDS_MIN} seconds (10 minutes)"
        );
        causes.invalid(&path.child("expirationSeconds"), seconds, &why);
    }
    declared::validate("api.certificates.v1.CertificateSigningRequest", request, &mut causes);
    causes.into_vec()
}

/// Whether bytes in base64 are one block of PEM of a request, and nothing behind it.
fn is_request(base64: &str) -> bool {
    const LABEL: &str = "CERTIFICATE REQUEST-----";
    let text = STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(text) = text else { return false };
    let block = text
        .split_once("-----BEGIN ")
        .and_then(|(_, rest)| rest.strip_prefix(LABEL))
        .and_then(|rest| rest.split_once("-----END "))
        .and_then(|(block, rest)| Some((block, rest.strip_prefix(LABEL)?)));
    block.is_some_and(|(block, rest)| {
        let der: String = block.chars().filter(|c| !c.is_whitespace()).collect();
        // A sequence, as every request is.
        let begins = STANDARD.decode(der).is_ok_and(|der| der.first() == Some(&0x30));
        begins && rest.trim().is_empty()
    })
}

fn usages(spec: &Value, path: &Path, causes: &mut Causes) {
    let all = list(spec, "usages");
    if all.is_empty() {
        causes.required(path, "usages must be specified");
    }
    let mut seen = HashSet::new();
    for (index, usage) in all.iter().filter_map(Value::as_str).enumerate() {
        if causes.is_full() {
            return;
        }
        if !USAGES.contains(&usage) {
            causes.not_supported(&path.index(index), usage, &USAGES);
        }
        if !seen.insert(usage) {
            causes.duplicate(&path.index(index), usage);
        }
    }
}

/// `domain/path`, as `kubernetes.io/kubelet-serving`.
fn signer(given: &str, path: &Path, causes: &mut Causes) {
    if given.is_empty() {
        return; // the tables require it
    }
    if given.len() > SIGNER_MAX {
        causes.too_long(path, SIGNER_MAX);
    }
    let Some((domain, rest)) = given.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        causes.invalid(path, given, why);
        return;
    };
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        causes.invalid(path, domain, why);
    }
    causes.invalid_all(path, domain, names::dns_subdomain(domain));
    if rest.is_empty() {
        causes.invalid(path, given, "validating signerName: path is empty");
    } else {
        causes.invalid_all(path, rest, names::dns_subdomain(rest));
    }
}

/// What was decided stays decided, and not both; a certificate stays the same.
fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status").child("conditions");
    let conditions = list(new, "status.conditions");
    let has_one = |object: &Value, kind: &str| {
        list(object, "status.conditions").iter().any(|one| text(one, "type") == kind)
    };
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, kind) = (path.index(index), text(condition, "type"));
        if kind.is_empty() {
            causes.required(&path.child("type"), "");
        }
        let status = text(condition, "status");
        if status.is_empty() {
            causes.required(&path.child("status"), "");
        } else if matches!(kind, "Approved" | "Denied" | "Failed") && status != "True" {
            causes.not_supported(&path.child("status"), status, &["True"]);
        } else {
            causes.one_of(&path.child("status"), status, &["True", "False", "Unknown"]);
        }
        if !seen.insert(kind) {
            causes.duplicate(&path.child("type"), kind);
        }
    }
    if has_one(new, "Approved") && has_one(new, "Denied") {
        causes.invalid(&path, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if has_one(old, kind) && !has_one(new, kind) {
            let why = format!("updates may not remove a condition of type {kind:?}");
            causes.forbidden(&path, &why);
        }
    }
    let certificate = |object: &Value| get(get(object, "status"), "certificate").clone();
    if has(old, "status.certificate") && !same(&certificate(new), &certificate(old)) {
        let path = Path::new("status").child("certificate");
        causes.forbidden(&path, "updates may not set certificate content, it is set already");
    }
    causes.into_vec()
}

fn cells(request: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = list(request, "status.conditions");
    let is = |kind: &str| conditions.iter().any(|one| text(one, "type") == kind);
    let mut told: Vec<&str> =
        ["Approved", "Denied", "Failed"].into_iter().filter(|kind| is(kind)).collect();
    if told.is_empty() {
        told.push("Pending");
    }
    if has(request, "status.certificate") {
        told.push("Issued");
    }
    let duration = number(request, "spec.expirationSeconds");
    vec![
        name(request),
        age(request, now),
        text(request, "spec.signerName").into(),
        text(request, "spec.username").into(),
        duration.map_or_else(|| NONE.to_owned(), human_duration).into(),
        told.join(",").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: Vec<Cause>) -> String {
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>().join(" ")
    }

    fn request(more: &Value) -> Value {
        let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        let mut request = json!({"spec": {"request": STANDARD.encode(pem), "usages": ["client auth"],
            "signerName": "example.com/signer"}});
        for (field, value) in more.as_object().unwrap() {
            request["spec"][field] = value.clone();
        }
        request
    }

    #[test]
    fn a_request_is_one_and_says_who_should_sign_it_for_what() {
        let rows = [
            (json!({}), ""),
            (json!({"request": ""}), "spec.request"),
            (json!({"request": STANDARD.encode("hello")}), "spec.request"),
            (json!({"usages": []}), "spec.usages"),
            (json!({"usages": ["fun"]}), "spec.usages[0]"),
            (json!({"usages": ["any", "any"]}), "spec.usages[1]"),
            (json!({"signerName": ""}), "spec.signerName"),
            (json!({"signerName": "signer"}), "spec.signerName"),
            (json!({"signerName": "com/signer"}), "spec.signerName"),
            (json!({"signerName": "example.com/A"}), "spec.signerName"),
            (json!({"expirationSeconds": 599}), "spec.expirationSeconds"),
        ];
        for (spec, expected) in rows {
            assert_eq!(told(validate(&request(&spec))), expected, "{spec}");
        }
    }

    #[test]
    fn what_is_decided_stays_and_is_one_thing() {
        let decided = |kinds: &[&str]| {
            let conditions: Vec<Value> =
                kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            json!({"status": {"conditions": conditions}})
        };
        let path = "status.conditions";
        assert_eq!(told(validate_status(&decided(&["Approved"]), &json!({}))), "");
        assert_eq!(told(validate_status(&decided(&["Approved", "Denied"]), &json!({}))), path);
        assert_eq!(told(validate_status(&json!({}), &decided(&["Denied"]))), path);
        let twice = decided(&["Approved", "Approved"]);
        assert_eq!(told(validate_status(&twice, &json!({}))), format!("{path}[1].type"));
        let no = json!({"status": {"conditions": [{"type": "Approved", "status": "False"}]}});
        assert_eq!(told(validate_status(&no, &json!({}))), format!("{path}[0].status"));
        let [one, other] = ["YQ==", "Yg=="].map(|it| json!({"status": {"certificate": it}}));
        assert_eq!(told(validate_status(&one, &one)), "");
        assert_eq!(told(validate_status(&one, &other)), "status.certificate");
    }
}
