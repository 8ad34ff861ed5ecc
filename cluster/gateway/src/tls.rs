//! TLS of the gateway: its own certificate, and client certificates that are optional.
//!
//! A client certificate is never refused in the handshake for who signed it: possession of its key
//! is proven there (the signature is checked), and the chain is checked right after, so that a wrong
//! certificate is answered with a readable 401 instead of a closed connection. The settings can be
//! replaced while serving; connections that exist keep what they began with.

use crate::authenticate::{Certificate, user_of};
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
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use thiserror::Error;
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
    current: Arc<RwLock<Arc<Current>>>,
}

struct Current {
    acceptor: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// Checks the settings and makes them ready.
    pub fn new(settings: TlsSettings) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(Current::new(settings)?))) })
    }

    /// Uses other settings for connections from now on: how certificates rotate.
    pub fn replace(&self, settings: TlsSettings) -> Result<(), TlsError> {
        let next = Arc::new(Current::new(settings)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn now(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.now().acceptor.clone()
    }

    /// Who a connection's certificates say is there.
    pub(crate) fn examine(&self, shown: Option<&[CertificateDer<'_>]>) -> Certificate {
        let Some((first, rest)) = shown.and_then(<[_]>::split_first) else {
            return Certificate::Absent;
        };
        match self.now().verifier.verify_client_cert(first, rest, UnixTime::now()) {
            Err(error) => Certificate::Wrong(format!("client certificate: {error}")),
            Ok(_) => match user_of(first) {
                Ok(user) => Certificate::Of(user),
                Err(error) => Certificate::Wrong(error.to_string()),
            },
        }
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
