//! A webhook, and the ways in which one goes wrong.

use crate::harness::Harness;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use impresario_runtime::PeerRole;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What a webhook answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaves {
    /// Sets a field to a text.
    Sets(&'static str, &'static str),
    /// Copies a field that is there to another.
    Copies(&'static str, &'static str),
    /// Refuses what has a field, and warns of what has it not.
    Refuses(&'static str),
    /// Never answers.
    Hangs,
    /// Answers another question.
    Lies,
    /// Sends elsewhere.
    Redirects,
    /// Gives a patch that does not apply.
    Breaks,
    /// Answers without an end.
    Floods,
}

pub struct HookServer {
    address: SocketAddr,
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HookServer {
    pub async fn start(server: &Harness, behaves: Behaves) -> Self {
        let day = Duration::from_hours(24);
        let names = ["127.0.0.1".to_owned()];
        let own = server.authority.issue("hook", PeerRole::Node, &names, day).unwrap();
        let chain = CertificateDer::pem_slice_iter(own.certificate_pem().as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, told) = (acceptor.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, behaves, told.clone()));
                    _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let bundle = STANDARD.encode(own.authority_pem());
        Self { address, bundle, asked, task }
    }

    pub fn url(&self) -> String {
        format!("https://{}/review", self.address)
    }

    /// The authority of its certificate, as configurations have it.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The last question.
    pub fn last(&self) -> Value {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Does something until it is asked for that.
    pub async fn until_asked<F: Future<Output = ()>>(&self, mut ask: impl FnMut() -> F) {
        let before = self.count();
        let asked = async {
            while self.count() == before {
                ask().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is asked in time");
    }
}

async fn answer(
    request: Request<Incoming>,
    behaves: Behaves,
    asked: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    asked.lock().unwrap().push(review.clone());
    let object = &review["request"]["object"];
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    let mut patch = |operations: Value| {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(operations.to_string()));
    };
    match behaves {
        Behaves::Sets(field, value) => {
            // A parent that is not there would make the patch fail.
            let mut operations = Vec::new();
            if object.get("data").is_none() {
                operations.push(json!({"op": "add", "path": "/data", "value": {}}));
            }
            operations.push(json!({"op": "add", "path": field, "value": value}));
            patch(operations.into());
        }
        Behaves::Copies(from, to) => {
            if let Some(value) = object.pointer(from) {
                patch(json!([{"op": "add", "path": to, "value": value}]));
            }
        }
        Behaves::Refuses(field) if object.pointer(field).is_some() => {
            response["allowed"] = json!(false);
            response["status"] = json!({"code": 403, "message": "no bad here"});
        }
        Behaves::Refuses(_) => response["warnings"] = json!(["it was looked at"]),
        Behaves::Hangs => std::future::pending().await,
        Behaves::Lies => response["uid"] = json!("another"),
        Behaves::Redirects => {
            let elsewhere =
                Response::builder().status(307).header("location", "https://127.0.0.1:1/");
            return Ok(elsewhere.body(Full::default()).unwrap());
        }
        Behaves::Breaks => patch(json!([{"op": "remove", "path": "/no/such/field"}])),
        Behaves::Floods => {
            return Ok(Response::new(Full::new(Bytes::from(vec![b' '; 64 << 20]))));
        }
    }
    let review = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::new(Bytes::from(review.to_string()))))
}
