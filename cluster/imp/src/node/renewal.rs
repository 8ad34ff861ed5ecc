//! Keeps certificates young while the node runs.
//!
//! When two thirds of what is left of a certificate's life are over, the next one is asked for: the
//! node's own from any control member's authority, the one of the REST API from the authority that
//! the member holds itself. Connections that stand keep what they began with, so none is dropped.
//! The node's key stays: one rename replaces the certificate on the disk, and a crash leaves a pair
//! that fits.

use impresario_client::protocol::authority::{
    AUTHORITY, AuthorityRole, JoinRole, Renew, RenewError,
};
use impresario_gateway::{Tls, TlsError, TlsSettings};
use impresario_runtime::pki::{KeyRequest, PkiError};
use impresario_runtime::{
    ActorNode, ActorPath, AskError, Backoff, ClusterAuthority, Credential, NodeName, PeerRole,
    clock, random, tasks,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long one authority has to answer.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Pauses after a renewal that failed.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(5) };
/// The longest sleep: clocks are looked at again, since a machine may have been suspended.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// Why a certificate was not renewed this time.
#[derive(Debug, Error)]
enum RenewalError {
    /// The authority said no.
    #[error(transparent)]
    Refused(#[from] RenewError),
    /// No control member answered.
    #[error("no control member answered ({0})")]
    Unreachable(String),
    /// What came back, or what is on the disk, cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The API does not take its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A task that renews one certificate. Ends when dropped.
pub struct Renewal {
    task: JoinHandle<()>,
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a node's own certificate depends on.
pub struct OwnCertificate {
    /// The process's actor node.
    pub node: ActorNode,
    /// The certificate that it has now.
    pub credential: Credential,
    /// Where it lies, if it is kept.
    pub folder: Option<PathBuf>,
    /// The addresses and names that it is good for.
    pub subjects: Vec<String>,
    /// Who can be asked for the next one.
    pub members: watch::Receiver<Vec<NodeName>>,
}

impl Renewal {
    /// Renews the node's own certificate as long as the node runs.
    #[must_use]
    pub fn of_node(mut own: OwnCertificate) -> Self {
        let task = tasks::spawn(async move {
            loop {
                await_due(own.credential.validity().1).await;
                let mut attempt = 0;
                while let Err(error) = own.renew().await {
                    let valid_for = left(own.credential.validity().1);
                    tracing::warn!(%error, ?valid_for, "the node's certificate is not renewed yet");
                    tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
                    attempt += 1;
                }
                let valid_for = left(own.credential.validity().1);
                tracing::info!(?valid_for, "the node has a new certificate");
            }
        });
        Self { task }
    }

    /// Renews the certificate of the REST API, of which `first` is in use.
    #[must_use]
    pub fn of_api(api: ApiCertificate, tls: Tls, first: &Credential) -> Self {
        let mut until = first.validity().1;
        let task = tasks::spawn(async move {
            loop {
                await_due(until).await;
                let mut attempt = 0;
                loop {
                    match api.replace(&tls) {
                        Ok(next) => break until = next,
                        Err(error) => {
                            tracing::warn!(%error, "the API's certificate is not renewed yet");
                            tokio::time::sleep(PAUSES.wait(attempt, random::random())).await;
                            attempt += 1;
                        }
                    }
                }
                tracing::info!(valid_for = ?left(until), "the API has a new certificate");
            }
        });
        Self { task }
    }
}

impl OwnCertificate {
    async fn renew(&mut self) -> Result<(), RenewalError> {
        let identity = self.credential.identity();
        let request = KeyRequest::of(&self.credential)?;
        let renew = Renew {
            name: identity.node.to_string(),
            role: match identity.role {
                PeerRole::Control => JoinRole::Control,
                _ => JoinRole::Node,
            },
            subjects: self.subjects.clone(),
            csr_pem: request.csr_pem().to_owned(),
        };
        let mut members = self.members.borrow().clone();
        // Its own authority answers without a network; otherwise any.
        members.sort_by_key(|member| (*member != identity.node, random::random::<u32>()));
        let mut last = "the cluster has no control member".to_owned();
        for member in members {
            let path = ActorPath::new(member, AUTHORITY);
            match self.node.actor::<AuthorityRole>(path).ask(renew.clone(), ASK_LIMIT).await {
                Ok(Ok(renewed)) => {
                    let (certificate, authority) = (renewed.certificate_pem, renewed.authority_pem);
                    let next = request.into_credential(&certificate, &authority)?;
                    // On the disk first: a process that starts now must not begin with less.
                    if let Some(folder) = &self.folder {
                        next.save(folder)?;
                    }
                    self.node.replace_credential(&next)?;
                    self.credential = next;
                    return Ok(());
                }
                Ok(Err(error @ RenewError::Unavailable { .. })) => last = error.to_string(),
                Ok(Err(error)) => return Err(error.into()),
                Err(error @ AskError::Refused { .. }) => {
                    return Err(RenewalError::Unreachable(error.to_string()));
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(RenewalError::Unreachable(last))
    }
}

/// How a member makes certificates for its REST API.
pub struct ApiCertificate {
    /// Who signs.
    pub authority: Arc<ClusterAuthority>,
    /// The member.
    pub name: String,
    /// The names and addresses under which clients reach the API.
    pub subjects: Vec<String>,
    /// How long one is good for.
    pub lifetime: Duration,
}

impl ApiCertificate {
    /// A new one.
    pub fn issue(&self) -> Result<Credential, PkiError> {
        let name = format!("{}-api", self.name);
        self.authority.issue(&name, PeerRole::Control, &self.subjects, self.lifetime)
    }

    fn replace(&self, tls: &Tls) -> Result<SystemTime, RenewalError> {
        let next = self.issue()?;
        tls.replace(TlsSettings::of(&next)?)?;
        Ok(next.validity().1)
    }
}

/// Waits until the next certificate is due.
async fn await_due(until: SystemTime) {
    let due = due(clock::wall(), until, random::random());
    while let Ok(left) = due.duration_since(clock::wall()) {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// When two thirds of the time from `now` to `until` are over, or up to a tenth of that earlier, so
/// that nodes that were made together do not ask together.
fn due(now: SystemTime, until: SystemTime, jitter: f64) -> SystemTime {
    let left = until.duration_since(now).unwrap_or(Duration::ZERO);
    now + (left * 2 / 3).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 10.0)
}

/// How long it is until then, in whole seconds.
fn left(until: SystemTime) -> Duration {
    let left = until.duration_since(clock::wall()).unwrap_or(Duration::ZERO);
    Duration::from_secs(left.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_before_it_ends_and_at_once_when_it_has() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1_000);
        let day = Duration::from_hours(24);
        assert_eq!(due(now, now + day, 0.0), now + day * 2 / 3);
        assert!(due(now, now + day, 1.0) >= now + day * 6 / 10);
        assert!(due(now, now + day, 1.0) < now + day * 2 / 3);
        assert_eq!(due(now, now - day, 0.5), now);
    }
}
