//! One GET.

use super::{AskError, Pump};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
    http::Error as RequestError,
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGet {
    /// Where.
    pub to: SocketAddr,
    /// Whether over TLS. The certificate is not verified, as the kubelet does not (API reference, HTTPGetAction
    /// v1: probes say whether something answers, not who).
    pub tls: bool,
    /// What the `Host` header says.
    pub host: String,
    /// The path, with its query.
    pub path: String,
    /// Further headers; they override those that are sent anyway.
    pub headers: Vec<(String, String)>,
}

impl HttpGet {
    /// Sends it; the status of the answer, whose body is not read.
    pub async fn send(&self) -> Result<u16, AskError> {
        let stream = TcpStream::connect(self.to).await.map_err(AskError::Connect)?;
        if !self.tls {
            return self.send_over(stream).await;
        }
        // A name that is none is sent to nobody: servers choose their certificate by names, not by addresses.
        let name =
            self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name).to_owned();
        let name = ServerName::try_from(name).unwrap_or_else(|_| self.to.ip().into());
        let config = UNVERIFIED.clone().map_err(|error| AskError::Tls(io::Error::other(error)))?;
        let connector = TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(AskError::Tls)?;
        self.send_over(stream).await
    }

    async fn send_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<u16, AskError> {
        let mut request = Request::get(&self.path)
            .header(HOST, &self.host)
            .header(USER_AGENT, concat!("impresario-probe/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "*/*")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        for (name, value) in
            self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
        {
            let name = HeaderName::try_from(name).map_err(RequestError::from)?;
            let value = HeaderValue::try_from(value).map_err(RequestError::from)?;
            request.headers_mut().insert(name, value);
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _pump = Pump::start(connection);
        Ok(sender.send_request(request).await?.status().as_u16())
    }
}

/// Made once: probes ask every second.
static UNVERIFIED: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
});

/// Believes every certificate; that the server holds its key is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
            &self.0.signature_verification_algorithms,
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
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
