//! Who may have certificates signed: admission of requests for them.
//!
//! As the admission plugins `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction` of Kubernetes
//! have it, but by what a write changes and not by the path that it came on: who decides needs `approve` on the signer,
//! who gives the certificate, or says that there will be none, `sign`.

use crate::rbac::{Asked, Asker, Roles, Verdict, unread};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use impresario_api::catalog::find_object;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use impresario_runtime::pki::SigningRequest;
use serde_json::Value;

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "CertificateSigningRequest";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Whether somebody may make `new` of `old`, or of nothing.
pub(crate) fn guard(
    roles: &Roles,
    asker: Asker<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<(), Status> {
    let Some(new) = new.filter(|new| is_request(new)) else { return Ok(()) };
    let signer = text(new, "/spec/signerName");
    let Some(old) = old else { return subject(signer, new) };
    let name = text(new, "/metadata/name");
    let certificate = |object: &Value| text(object, "/status/certificate").to_owned();
    let has_signed = certificate(old) != certificate(new) || changes(old, new, &["Failed"]);
    for (verb, needed) in
        [("approve", changes(old, new, &["Approved", "Denied"])), ("sign", has_signed)]
    {
        if needed && !may(roles, asker, verb, signer)? {
            let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
            return Err(forbidden(new, name, &why));
        }
    }
    Ok(())
}

fn is_request(object: &Value) -> bool {
    let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    group == GROUP && text(object, "/kind") == KIND
}

fn changes(old: &Value, new: &Value, kinds: &[&str]) -> bool {
    let of = |object: &Value| -> Vec<Value> {
        let all = object.pointer("/status/conditions").and_then(Value::as_array);
        let is = |condition: &&Value| kinds.contains(&text(condition, "/type"));
        all.into_iter().flatten().filter(is).cloned().collect()
    };
    of(old) != of(new)
}

/// By the signer's name, or by all of its domain.
fn may(roles: &Roles, asker: Asker<'_>, verb: &str, signer: &str) -> Result<bool, Status> {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer, &format!("{domain}/*")] {
        let asked = Asked::Resource {
            verb,
            group: GROUP,
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
        };
        match roles.may(asker, asked) {
            Verdict::Allowed(_) => return Ok(true),
            Verdict::Unread => return Err(unread()),
            Verdict::Denied => {}
        }
    }
    Ok(false)
}

/// Nobody asks to be an administrator, or one of the cluster's own.
fn subject(signer: &str, new: &Value) -> Result<(), Status> {
    if signer != API_CLIENT {
        return Ok(());
    }
    let pem = STANDARD.decode(text(new, "/spec/request")).unwrap_or_default();
    // What cannot be read is not signed either.
    let Ok(asked) = SigningRequest::from_pem(&pem) else { return Ok(()) };
    let masters = asked.organizations.iter().any(|it| it == crate::may::MASTERS);
    if masters || asked.asks_for_role() {
        let why = format!(
            "use of {API_CLIENT} signer with {:?} group is not allowed",
            asked.organizations
        );
        return Err(forbidden(new, text(new, "/metadata/name"), &why));
    }
    Ok(())
}

fn forbidden(object: &Value, name: &str, why: &str) -> Status {
    match find_object(object) {
        Some(row) => Status::forbidden(&row, name, why),
        None => Status::internal("no requests for certificates are served"),
    }
}
