//! The REST API from the user's side, for the commands that need no kubectl.
//!
//! One connection per request, HTTP/1.1 over TLS with the certificate of a kubeconfig. Every
//! request has a deadline; only a followed log has none.

use crate::kubeconfig::{Kubeconfig, KubeconfigError};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use impresario_runtime::tasks;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest answer that is read into memory.
const ANSWER_LIMIT: usize = 512 << 20;
/// Asks for the columns that `kubectl get` shows.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Why a request has no good answer.
#[derive(Debug, Error)]
pub enum RestError {
    /// The file that says how to reach the API is unusable.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The certificates in it are.
    #[error(
        "the certificates in the kubeconfig cannot be used ({0}): start the cluster anew with `imp up`"
    )]
    Certificate(String),
    /// Nobody answered.
    #[error("the API at {server} does not answer ({reason}): `imp status` shows what runs")]
    Unreachable {
        /// Where.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The API answered with an error.
    #[error("{message}")]
    Status {
        /// The HTTP status code.
        code: u16,
        /// The reason, such as `NotFound`.
        reason: String,
        /// The message for people.
        message: String,
    },
    /// The answer is not JSON.
    #[error("the answer to {path} is not what the API promises: {reason}")]
    Answer {
        /// What was asked for.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// A way to the API.
#[derive(Clone)]
pub struct Rest {
    server: std::net::SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

impl Rest {
    /// Uses the kubeconfig at `path`.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, RestError> {
        let config = Kubeconfig::load(path)?;
        let bad = |error: &dyn std::fmt::Display| RestError::Certificate(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(config.authority.as_bytes()) {
            roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(config.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| bad(&e))?;
        let key = PrivateKeyDer::from_pem_slice(config.key.as_bytes()).map_err(|e| bad(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad(&e))?;
        Ok(Self { server: config.server, tls: Arc::new(tls) })
    }

    /// GET, as JSON.
    pub async fn get(&self, path: &str) -> Result<Value, RestError> {
        self.json(Method::GET, path, "application/json", None).await
    }

    /// GET, as the table of the server.
    pub async fn table(&self, path: &str) -> Result<Value, RestError> {
        self.json(Method::GET, path, TABLE, None).await
    }

    /// POST of an object.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, RestError> {
        let body = ("application/json", object.to_string());
        self.json(Method::POST, path, "application/json", Some(body)).await
    }

    /// PATCH with a patch of this type, such as `application/merge-patch+json`.
    pub async fn patch(
        &self,
        path: &str,
        type_: &'static str,
        patch: &Value,
    ) -> Result<Value, RestError> {
        self.json(Method::PATCH, path, "application/json", Some((type_, patch.to_string()))).await
    }

    /// DELETE, and after it what the object owns: some kinds would leave that alone.
    pub async fn delete(&self, path: &str) -> Result<Value, RestError> {
        let path = format!("{path}?propagationPolicy=Background");
        self.json(Method::DELETE, &path, "application/json", None).await
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<Value, RestError> {
        let exchange = async {
            let response = self.send(method, path, accept, body).await?;
            read_json(path, response).await
        };
        timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(self.lost("no answer in time")))
    }

    /// GET of a stream of bytes: each part as it comes goes to `part`, which says whether to go on.
    pub async fn stream(
        &self,
        path: &str,
        mut part: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), RestError> {
        let sent = timeout(DEADLINE, self.send(Method::GET, path, "*/*", None)).await;
        let mut response = sent.unwrap_or_else(|_| Err(self.lost("no answer in time")))?;
        if !response.status().is_success() {
            return read_json(path, response).await.map(drop);
        }
        while let Some(frame) = response.body_mut().frame().await {
            if let Some(data) = frame.map_err(|e| self.lost(&e))?.data_ref()
                && !part(data)
            {
                break;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<Response<Incoming>, RestError> {
        let stream = TcpStream::connect(self.server).await.map_err(|e| self.lost(&e))?;
        let name = ServerName::IpAddress(self.server.ip().into());
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(|e| self.lost(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.lost(&e))?;
        // Ends when the response is read or dropped.
        tasks::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.server.to_string())
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("imp/", env!("CARGO_PKG_VERSION")));
        let mut bytes = Bytes::new();
        if let Some((type_, text)) = body {
            request = request.header(header::CONTENT_TYPE, type_);
            bytes = text.into();
        }
        let request = request.body(Full::new(bytes)).map_err(|e| self.lost(&e))?;
        sender.send_request(request).await.map_err(|e| self.lost(&e))
    }

    fn lost(&self, reason: &(impl std::fmt::Display + ?Sized)) -> RestError {
        RestError::Unreachable { server: self.server.to_string(), reason: reason.to_string() }
    }
}

async fn read_json(path: &str, response: Response<Incoming>) -> Result<Value, RestError> {
    let code = response.status();
    let wrong = |reason: String| RestError::Answer { path: path.to_owned(), reason };
    let body = Limited::new(response.into_body(), ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|error| wrong(error.to_string()))?
        .to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    if code.is_success() {
        return Ok(value);
    }
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let message = Some(text("message")).filter(|m| !m.is_empty());
    let fallback = || StatusCode::canonical_reason(&code).unwrap_or("error").to_owned();
    Err(RestError::Status {
        code: code.as_u16(),
        reason: text("reason"),
        message: message.unwrap_or_else(fallback),
    })
}
