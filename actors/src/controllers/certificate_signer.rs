//! Signs certificates that somebody asked for and somebody else approved, and lets requests go that are over.
//!
//! ```text
//! kubernetes.io/kube-apiserver-client          a user of the API, by name and group, but none of the cluster's own
//! kubernetes.io/kube-apiserver-client-kubelet  the user of a node, in exactly the form of a kubelet
//! ```
//!
//! What is asked of other signers is for others to sign. What cannot be signed is `Failed`, and says why. From
//! Kubernetes: `pkg/controller/certificates/signer` and `cleaner`. One singleton looks at all of them; `decide`
//! decides without IO.

use super::activation::Kind;
use super::control::{Look, LookError, Next};
use super::engine::sources::Source;
use super::looking;
use super::mirror::Mirror;
use super::view::View;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_objects::{DeleteOptions, Door, Objects, WriteOptions};
use impresario_runtime::pki::SigningRequest;
use impresario_runtime::{ClusterAuthority, clock};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The singleton that signs.
pub const CERTIFICATE_SIGNER: &str = "certificate-signer";

const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What a certificate of a client may be used for.
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
/// How long a certificate is good for at most, and where nothing else is asked for.
const VALIDITY: Duration = Duration::from_hours(365 * 24);
/// How long a request is kept that nobody decides, and one that was dealt with.
const PENDING: Duration = Duration::from_hours(24);
const DONE: Duration = Duration::from_hours(1);
/// How many are written in one look: the next one goes on.
const AT_ONCE: usize = 64;

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Sign,
    Forget,
    /// Nothing before this time.
    Wait(Timestamp),
}

struct SignerLook {
    objects: Objects,
    requests: Mirror<CertificateSigningRequest>,
    authority: Arc<ClusterAuthority>,
    row: Row,
}

impl SignerLook {
    async fn look_once(&self, now: Timestamp) -> Result<Next, LookError> {
        let (mut next, mut left) = (None::<Timestamp>, AT_ONCE);
        let mut at = |time: Timestamp| next = Some(next.map_or(time, |next| next.min(time)));
        for seen in self.requests.all() {
            let (name, request) = (&*seen.entry.key.name, &*seen.object);
            let decision = decide(request, now);
            if let Decision::Wait(until) = decision {
                at(until);
                continue;
            }
            if left == 0 {
                at(now + Duration::from_secs(1));
                break;
            }
            left -= 1;
            let uid = request.metadata.uid.as_deref().unwrap_or_default();
            let outcome = if decision == Decision::Sign {
                self.sign(name, uid, request).await
            } else {
                let options = DeleteOptions { uid: Some(uid.to_owned()), ..Default::default() };
                let write = WriteOptions::default();
                self.objects.delete(&self.row, "", name, &options, &write).await.map(drop)
            };
            if let Err(error) = outcome.map_err(LookError::from) {
                if !error.is_of_one_object() {
                    return Err(error);
                }
                // Somebody was quicker: what it is now is seen by the next look.
                tracing::debug!(name, %error, "a request for a certificate is left for later");
                at(now + Duration::from_secs(10));
            }
        }
        Ok(next.map_or(Next::WhenTold, Next::At))
    }

    async fn sign(
        &self,
        name: &str,
        uid: &str,
        request: &CertificateSigningRequest,
    ) -> Result<(), Status> {
        let signed = signed(&self.authority, request);
        match &signed {
            Ok(_) => tracing::info!(name, user = request.spec.username, "a certificate is signed"),
            Err(why) => tracing::info!(name, why, "a certificate is not signed"),
        }
        let now = clock::timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let write = WriteOptions::default();
        let change = |old: &Value| {
            let mut new = old.clone();
            if old["metadata"]["uid"] != uid || !old["status"]["certificate"].is_null() {
                return Ok(new);
            }
            match &signed {
                Ok(pem) => {
                    let bytes = ByteString(pem.clone().into_bytes());
                    new["status"]["certificate"] =
                        serde_json::to_value(bytes).map_err(Status::internal)?;
                }
                Err(why) => {
                    let failed = json!({
                        "type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                        "message": why, "lastUpdateTime": now, "lastTransitionTime": now,
                    });
                    match new["status"]["conditions"].as_array_mut() {
                        Some(all) => all.push(failed),
                        None => new["status"]["conditions"] = json!([failed]),
                    }
                }
            }
            Ok(new)
        };
        self.objects.modify(&self.row, Door::Status, "", name, &write, change).await.map(drop)
    }
}

impl Look for SignerLook {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once(clock::timestamp()).boxed()
    }
}

/// The kind of this singleton's actor.
pub fn kind(view: &View, authority: &Arc<ClusterAuthority>) -> Option<Kind> {
    let row = find("certificates.k8s.io", "v1", "certificatesigningrequests")?;
    let requests: Mirror<CertificateSigningRequest> = view.mirrors.of();
    let sources = vec![Source::of_one(CERTIFICATE_SIGNER, &requests, |_, _| true)];
    let (objects, authority) = (view.objects.clone(), authority.clone());
    Some(Kind::One {
        name: CERTIFICATE_SIGNER,
        sources,
        start: looking(move |activation| {
            Arc::new(SignerLook {
                objects: objects.fenced(activation.fence),
                requests: requests.clone(),
                authority: authority.clone(),
                row: row.clone(),
            })
        }),
    })
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default()
}

fn decide(request: &CertificateSigningRequest, now: Timestamp) -> Decision {
    let is = |kind: &str| conditions(request).iter().any(|it| it.type_ == kind);
    let has_certificate =
        request.status.as_ref().is_some_and(|status| status.certificate.is_some());
    let is_ours = matches!(request.spec.signer_name.as_str(), API_CLIENT | KUBELET_CLIENT);
    let is_going = request.metadata.deletion_timestamp.is_some();
    if is_ours && is("Approved") && !is("Denied") && !is("Failed") && !has_certificate && !is_going
    {
        return Decision::Sign;
    }
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let decided = conditions(request)
        .iter()
        .filter(|it| matches!(it.type_.as_str(), "Approved" | "Denied" | "Failed"))
        .map(|it| it.last_update_time.as_ref().map_or(created, |time| time.0))
        .max();
    // What others are to sign and have not signed yet waits for them as long as one that nobody decides.
    let is_done = has_certificate || is("Denied") || is("Failed");
    let over = match decided.filter(|_| is_done) {
        Some(decided) => decided.checked_add(DONE),
        None => created.checked_add(PENDING),
    };
    match over {
        Ok(over) if over <= now && !is_going => Decision::Forget,
        Ok(over) if over > now => Decision::Wait(over),
        // It goes, or says a time that never comes.
        _ => Decision::Wait(now + PENDING),
    }
}

/// The certificate, or why there is none.
fn signed(
    authority: &ClusterAuthority,
    request: &CertificateSigningRequest,
) -> Result<String, String> {
    let spec = &request.spec;
    let asked = SigningRequest::from_pem(&spec.request.0).map_err(|error| error.to_string())?;
    let usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    if !usages.contains(&"client auth") || usages.iter().any(|it| !USAGES.contains(it)) {
        return Err(format!(
            "usages must have \"client auth\", and besides only \"digital signature\" and \"key encipherment\": \
             they are {usages:?}"
        ));
    }
    if asked.has_other_names {
        return Err("certificates of clients are made without other names: ask for none".into());
    }
    if asked.organizations.iter().any(|it| it == "system:masters") {
        return Err("nobody becomes a member of \"system:masters\" by a request".into());
    }
    if spec.signer_name == KUBELET_CLIENT {
        let is_node = matches!(&*asked.common_names, [name] if
            name.strip_prefix("system:node:").is_some_and(|node| !node.is_empty()));
        if !is_node || asked.organizations != ["system:nodes"] {
            return Err(
                "the subject of a kubelet is CN=system:node:NAME, O=system:nodes, and nothing else"
                    .into(),
            );
        }
        if !usages.contains(&"digital signature") {
            return Err("a kubelet needs the usage \"digital signature\", too".into());
        }
    }
    let seconds = spec.expiration_seconds.and_then(|it| u64::try_from(it).ok());
    let validity = seconds.map_or(VALIDITY, Duration::from_secs).min(VALIDITY);
    authority.sign_user(&asked, validity).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
