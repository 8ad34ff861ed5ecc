//! TLS settings: TLS 1.3 with ring alone, both ends with a certificate of the cluster.
//!
//! Certificates carry the DNS name [`SERVER_NAME`] for TLS's own check; who the peer really is stands in the subject and
//! is compared after the handshake. The join protocol is the one exception: its client has no certificate yet and
//! recognises the cluster by the authority's fingerprint.

use super::{Credential, PkiError, identity::fingerprint};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// The name that every certificate of a cluster carries besides its own.
pub(crate) const SERVER_NAME: &str = "node.impresario.internal";
/// The protocol between actor nodes; the number is the wire version.
pub const ALPN_NODE: &[u8] = b"imp/1";
/// The protocol by which a newcomer gets its certificate.
pub const ALPN_JOIN: &[u8] = b"imp-join/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.clone())
        .map_err(|error| PkiError::unusable("the authority's certificate", error))?;
    Ok(Arc::new(roots))
}

/// For the QUIC endpoint. With `join`, a client without certificate may complete a handshake; the endpoint then serves it
/// nothing but the join protocol.
pub(crate) fn node_server_config(
    credential: &Credential,
    join: bool,
) -> Result<ServerConfig, PkiError> {
    let unusable = |error: Error| PkiError::unusable("the credential", error);
    let roots = roots(credential.authority())?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    // The names of accepted authorities are a hint that our own clients do not need, and the cluster's name is nobody's
    // business before the handshake.
    let builder = builder.clear_root_hint_subjects();
    let builder = if join { builder.allow_unauthenticated() } else { builder };
    let verifier = builder
        .build()
        .map_err(|error| PkiError::unusable("the authority's certificate", error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain_with_authority(), credential.key())
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN_NODE.to_vec()];
    if join {
        config.alpn_protocols.push(ALPN_JOIN.to_vec());
    }
    Ok(config)
}

/// For dialling another node.
pub(crate) fn node_client_config(credential: &Credential) -> Result<ClientConfig, PkiError> {
    let mut config = tls_client_config(credential)?;
    config.alpn_protocols = vec![ALPN_NODE.to_vec()];
    // A resumed session would carry the certificate of its first handshake past a rotation.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// For a client of the cluster's own servers (the REST API for one) that shows its certificate.
pub fn tls_client_config(credential: &Credential) -> Result<ClientConfig, PkiError> {
    let unusable = |error: Error| PkiError::unusable("the credential", error);
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots(credential.authority())?)
        .with_client_auth_cert(credential.chain(), credential.key())
        .map_err(unusable)
}

/// For an HTTPS server of the cluster: a client may show a certificate of the cluster, or none (and then a token).
pub fn https_server_config(credential: &Credential) -> Result<ServerConfig, PkiError> {
    let unusable = |error: Error| PkiError::unusable("the credential", error);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(credential.authority())?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| PkiError::unusable("the authority's certificate", error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain_with_authority(), credential.key())
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For a newcomer: no certificate of its own, and the cluster recognised by its authority's fingerprint.
pub(crate) fn join_client_config(authority_fingerprint: String) -> Result<ClientConfig, PkiError> {
    let provider = provider();
    let verifier =
        Arc::new(Pinned { fingerprint: authority_fingerprint, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| PkiError::unusable("TLS 1.3", error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    Ok(config)
}

/// Verifies a server by an authority that it sends along and of which only the fingerprint is known.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = chain
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint)
            .ok_or_else(|| {
                Error::General("the cluster's authority is not the one of the token".to_owned())
            })?;
        let roots = roots(&authority.clone().into_owned())
            .map_err(|error| Error::General(error.to_string()))?;
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
