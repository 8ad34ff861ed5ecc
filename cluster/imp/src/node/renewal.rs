//! Keeps the certificate of the REST API young while the member runs: its own authority makes the next one.

use impresario_client::renewal::{Renewal, await_due, left};
use impresario_gateway::{Tls, TlsError, TlsSettings};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{Backoff, ClusterAuthority, Credential, PeerRole};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// Pauses after a renewal that failed.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(5) };

/// Why the API's certificate was not renewed this time.
#[derive(Debug, Error)]
enum ApiRenewalError {
    /// It cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The API does not take it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Renews the certificate of the REST API, of which `first` is in use.
#[must_use]
pub fn of_api(api: ApiCertificate, tls: Tls, first: &Credential) -> Renewal {
    let mut until = first.validity().1;
    Renewal::by(async move {
        loop {
            await_due(until).await;
            let mut attempt = 0;
            loop {
                match api.replace(&tls) {
                    Ok(next) => break until = next,
                    Err(error) => {
                        tracing::warn!(%error, "the API's certificate is not renewed yet");
                        tokio::time::sleep(PAUSES.wait(attempt, rand::random())).await;
                        attempt += 1;
                    }
                }
            }
            tracing::info!(valid_for = ?left(until), "the API has a new certificate");
        }
    })
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

    fn replace(&self, tls: &Tls) -> Result<SystemTime, ApiRenewalError> {
        let next = self.issue()?;
        tls.replace(TlsSettings::of(&next)?)?;
        Ok(next.validity().1)
    }
}
