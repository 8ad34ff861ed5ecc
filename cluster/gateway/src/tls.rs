//! TLS of the gateway: its own certificate, and client certificates that are optional.
//!
//! A client certificate is never refused in the handshake for who signed it: possession of its key
//! is proven there (the signature is checked), and the chain is checked right after, so that a wrong
//! certificate is answered with a readable 401 instead of a closed connection. The settings can be
//! replaced while serving: connections that exist keep the keys that they began with, and who is there
//! is looked at anew when a certificate expires, is revoked, or its authority is trusted no more.

use crate::authenticate::{Certificate, ends_at, user_of};
use ::ring::digest::{SHA256, digest};
use impresario_runtime::Credential;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use thiserror::Error;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What the gateway shows and whom it trusts.
pub struct TlsSettings {
    /// The gateway's certificate and what leads to its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of that certificate.
    pub key: PrivateKeyDer<'static>,
    /// The authorities whose client certificates name users.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl TlsSettings {
    /// Settings from PEM texts.
    pub fn from_pem(chain: &str, key: &str, authorities: &str) -> Result<Self, TlsError> {
        let all = |text: &str| {
            CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>()
        };
        let unreadable = |error: pem::Error| TlsError::Unreadable(error.to_string());
        Ok(Self {
            chain: all(chain).map_err(unreadable)?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable)?,
            authorities: all(authorities).map_err(unreadable)?,
        })
    }

    /// Settings of a node: its own certificate, and the cluster's authority for clients.
    pub fn of(credential: &Credential) -> Result<Self, TlsError> {
        Self::from_pem(
            credential.certificate_pem(),
            credential.key_pem(),
            credential.authority_pem(),
        )
    }
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate and its key do not fit or cannot be read.
    #[error(
        "the gateway's certificate or key cannot be used: {0}: issue them again from the cluster's authority"
    )]
    Own(#[source] rustls::Error),
    /// A PEM text cannot be read.
    #[error("a certificate or key is no PEM: {0}: give the file as it was issued")]
    Unreadable(String),
    /// An authority cannot be read.
    #[error(
        "an authority for client certificates cannot be used: {0}: give the cluster's authority certificate"
    )]
    Authority(String),
}

/// The settings in use.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    current: RwLock<Arc<Current>>,
    revoked: RwLock<HashSet<Fingerprint>>,
    /// Rises whenever it changes whom we trust.
    epoch: watch::Sender<u64>,
}

struct Current {
    acceptor: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The SHA-256 digest of a certificate, by which it is revoked.
pub type Fingerprint = [u8; 32];

/// What a client's certificates were found to be.
#[derive(Debug, Clone)]
pub(crate) struct Examined {
    /// Who is there.
    pub(crate) certificate: Arc<Certificate>,
    /// Until when that is so, in seconds of the Unix epoch; `None` where it does not end.
    pub(crate) until: Option<u64>,
    epoch: u64,
}

impl Examined {
    /// Whether it is still so.
    pub(crate) fn holds(&self, epoch: u64, now: UnixTime) -> bool {
        self.epoch == epoch && self.until.is_none_or(|until| now.as_secs() <= until)
    }
}

impl Tls {
    /// Checks the settings and makes them ready.
    pub fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(Current::new(settings)?));
        let (epoch, _) = watch::channel(0);
        Ok(Self { shared: Arc::new(Shared { current, revoked: RwLock::default(), epoch }) })
    }

    /// Uses other settings for connections from now on: how certificates rotate.
    pub fn replace(&self, settings: TlsSettings) -> Result<(), TlsError> {
        let next = Arc::new(Current::new(settings)?);
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.shared.epoch.send_modify(|epoch| *epoch += 1);
        Ok(())
    }

    /// Trusts these certificates no more, and all others again as far as they are good. Connections
    /// that began with one of them end.
    pub fn revoke(&self, fingerprints: HashSet<Fingerprint>) {
        let mut revoked = self.shared.revoked.write().unwrap_or_else(PoisonError::into_inner);
        if *revoked != fingerprints {
            *revoked = fingerprints;
            drop(revoked);
            self.shared.epoch.send_modify(|epoch| *epoch += 1);
        }
    }

    /// Which state of whom we trust it is.
    pub(crate) fn epoch(&self) -> u64 {
        *self.shared.epoch.borrow()
    }

    /// Tells when it changes whom we trust.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.epoch.subscribe()
    }

    fn now(&self) -> Arc<Current> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.now().acceptor.clone()
    }

    /// Who a connection's certificates say is there.
    pub(crate) fn examine(&self, shown: &[CertificateDer<'_>], now: UnixTime) -> Examined {
        let epoch = self.epoch();
        let found =
            |certificate, until| Examined { certificate: Arc::new(certificate), until, epoch };
        let Some((first, rest)) = shown.split_first() else {
            return found(Certificate::Absent, None);
        };
        if self.is_revoked(first) {
            return found(Certificate::Wrong("client certificate: it is revoked".into()), None);
        }
        match self.now().verifier.verify_client_cert(first, rest, now) {
            Err(error) => found(Certificate::Wrong(format!("client certificate: {error}")), None),
            Ok(_) => match user_of(first) {
                Ok(user) => found(Certificate::Of(user), ends_at(first)),
                Err(error) => found(Certificate::Wrong(error.to_string()), None),
            },
        }
    }

    fn is_revoked(&self, certificate: &[u8]) -> bool {
        let revoked = self.shared.revoked.read().unwrap_or_else(PoisonError::into_inner);
        !revoked.is_empty()
            && Fingerprint::try_from(digest(&SHA256, certificate).as_ref())
                .is_ok_and(|print| revoked.contains(&print))
    }
}

impl Current {
    fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in settings.authorities {
            roots.add(authority).map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::Authority(error.to_string()))?;
        let late = Arc::new(VerifiedLater {
            hints: verifier.root_hint_subjects().to_vec(),
            provider: Arc::clone(&provider),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Own)?
            .with_client_cert_verifier(late)
            .with_single_cert(settings.chain, settings.key)
            .map_err(TlsError::Own)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), verifier })
    }
}

/// Checks that the client holds the key of what it shows; who signed it is checked by [`Tls::examine`].
#[derive(Debug)]
struct VerifiedLater {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for VerifiedLater {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
