//! A real HTTPS server over a registry in memory, and clients for it.

use crate::mirror::Mirror;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use impresario_api::status::Status;
use impresario_client::protocol::pod::Logs;
use impresario_client::protocol::usage::{Amounts, ContainerUsage, PodUsage};
use impresario_gateway::authenticate::{HashedTokens, User};
use impresario_gateway::logs::LogSource;
use impresario_gateway::usage::{Measured, UsageSource};
use impresario_gateway::{Gateway, Limits, Revocations, Server, Tls, TlsSettings};
use impresario_objects::accounts::Accounts;
use impresario_objects::rbac::Roles;
use impresario_objects::{Objects, Policies, Reader, Refusals, Webhooks};
use impresario_registry::MemoryRegistry;
use impresario_registry_api::Registry;
use impresario_runtime::{ClusterAuthority, Credential, PeerRole};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

pub const TOKEN: &str = "viewer-token";

/// The pod whose logs panic.
pub const PANICS: &str = "panics";

/// Logs that say what they were asked for.
struct Echo;

impl LogSource for Echo {
    fn open<'a>(
        &'a self,
        pod: &'a Value,
        ask: Logs,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async move {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            assert_ne!(name, PANICS, "as a test wants it");
            let line =
                format!("{name}/{} tail={:?}\n", ask.container.unwrap_or_default(), ask.tail_lines);
            let lines = [Ok(Bytes::from(line)), Ok(Bytes::from("second line\n"))];
            Ok(stream::iter(lines).boxed())
        })
    }
}

/// Knows of node `n1` and its pods.
struct OfOneNode;

impl UsageSource for OfOneNode {
    fn node(&self, node: &str) -> Option<Measured<Amounts>> {
        (node == "n1").then(|| measured(Amounts { cpu_nanos: 250_000_000, memory_bytes: 3 << 20 }))
    }

    fn pod(&self, node: &str, uid: &str) -> Option<Measured<Arc<PodUsage>>> {
        let amounts = Amounts { cpu_nanos: 1_000_000, memory_bytes: 1 << 20 };
        let containers = vec![ContainerUsage { name: "c".into(), amounts }];
        let pod = PodUsage { uid: uid.to_owned(), window_ms: 5000, containers };
        (node == "n1").then(|| measured(Arc::new(pod)))
    }
}

fn measured<T>(of: T) -> Measured<T> {
    Measured { taken: jiff::Timestamp::UNIX_EPOCH, window: Duration::from_secs(5), of }
}

pub struct Harness {
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    /// What the server serves.
    pub registry: Arc<dyn Registry>,
    /// What it knows of who may do what.
    pub roles: Roles,
    /// Whom it has refused what.
    pub refusals: Arc<Refusals>,
    /// How many sessions with pods are open.
    pub sessions: watch::Sender<usize>,
    admin: Credential,
    pub authority: ClusterAuthority,
    _revocations: Revocations,
    _server: Server,
}

/// What a client shows.
#[derive(Clone, Copy)]
pub enum Shows<'a> {
    Admin,
    Nothing,
    Token(&'a str),
    Certificate(&'a Credential),
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Harness {
    pub async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub async fn start_with(limits: Limits) -> Self {
        crate::logged::begin();
        let day = Duration::from_hours(24);
        let authority = ClusterAuthority::create("test").unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let own = authority.issue("control", PeerRole::Control, &names, day).unwrap();
        let admin = authority.issue("admin", PeerRole::Admin, &[], day).unwrap();
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        let reader = Reader::new(objects.registry().clone());
        let (policies, webhooks) = (Policies::follow(&reader), Webhooks::follow(&reader));
        let objects = objects.with_policies(policies).with_webhooks(webhooks);
        objects.lay_foundation(own.authority_pem(), 6443).await.unwrap();
        let accounts =
            Accounts::new(objects.registry().clone(), &authority.secret("test")).unwrap();
        let mut tokens = HashedTokens::default();
        tokens.insert(TOKEN, User::new("eve", ["impresario:viewers"]));
        let refusals = Arc::new(Refusals::default());
        let roles = Roles::follow(&Reader::new(objects.registry().clone()));
        assert!(roles.has_read_within(Duration::from_mins(1)).await);
        let mirror = Mirror::new();
        let sessions = mirror.0.clone();
        let gateway = Gateway::new(objects.clone(), roles.clone(), Arc::new(Echo))
            .with_tokens(tokens)
            .with_sessions(mirror)
            .with_accounts(accounts)
            .with_limits(limits)
            .with_refusals(refusals.clone())
            .with_usage(Arc::new(OfOneNode));
        let tls = Tls::new(TlsSettings::of(&own).unwrap()).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let revocations = {
            let (reader, tls) = (Reader::new(objects.registry().clone()), tls.clone());
            Revocations::follow(reader, move |revoked| tls.revoke(revoked))
        };
        let server = Server::start(any, tls, Arc::new(gateway)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let address = server.address();
        let registry = objects.registry().clone();
        let harness = Self {
            address,
            folder,
            registry,
            roles,
            refusals,
            sessions,
            admin,
            authority,
            _revocations: revocations,
            _server: server,
        };
        harness.write_kubeconfig();
        harness
    }

    /// How often somebody in this role was refused by this rule.
    pub fn refused(&self, role: &str, rule: &str) -> u64 {
        let all = self.refusals.read();
        all.iter().find(|of| of.role == role && of.rule == rule).map_or(0, |of| of.count)
    }

    /// A credential of an administrator.
    pub fn issue(&self, name: &str, validity: Duration) -> Credential {
        self.issue_as(name, PeerRole::Admin, validity)
    }

    pub fn issue_as(&self, name: &str, role: PeerRole, validity: Duration) -> Credential {
        self.authority.issue(name, role, &[], validity).unwrap()
    }

    /// Trusts a credential no more, as an operator does it.
    pub async fn revoke(&self, credential: &Credential) {
        let pem = credential.certificate_pem().as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        let print = ring::digest::digest(&ring::digest::SHA256, &certificate);
        let hex = print.as_ref().iter().map(|byte| format!("{byte:02x}"));
        let print = hex.collect::<Vec<_>>().concat();
        let map = serde_json::json!({"metadata": {"name": "revoked-certificates"}, "data": {print: "left"}});
        let path = "/api/v1/namespaces/kube-system/configmaps";
        assert_eq!(self.ask("POST", path, &map).await.code, 201);
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.admin.authority_pem().as_bytes()).unwrap())
            .unwrap();
        roots
    }

    pub async fn connect(&self, shows: Shows<'_>) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.connect_by(shows, &[]).await
    }

    pub async fn connect_http2(
        &self,
        shows: Shows<'_>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.connect_by(shows, &["h2"]).await
    }

    async fn connect_by(
        &self,
        shows: Shows<'_>,
        protocols: &[&str],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(self.roots());
        let with = |credential: &Credential| {
            let chain = CertificateDer::pem_slice_iter(credential.certificate_pem().as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .unwrap();
            (chain, PrivateKeyDer::from_pem_slice(credential.key_pem().as_bytes()).unwrap())
        };
        let mut config = match shows {
            Shows::Admin => {
                let (chain, key) = with(&self.admin);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            Shows::Certificate(credential) => {
                let (chain, key) = with(credential);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            Shows::Nothing | Shows::Token(_) => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends a request and gives the answer with its body still to come.
    pub async fn open(
        &self,
        shows: Shows<'_>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let stream = self.connect(shows).await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Shows::Token(token) = shows {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub async fn send(
        &self,
        shows: Shows<'_>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.open(shows, method, path, headers, body).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let limit = Duration::from_secs(60);
        let collected = tokio::time::timeout(limit, response.into_body().collect()).await;
        Answer { code, headers, body: collected.expect("a body in time").unwrap().to_bytes() }
    }

    /// As an administrator, in JSON.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let kind =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        self.send(Shows::Admin, method, path, &[("content-type", kind)], bytes).await
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn write_kubeconfig(&self) {
        let file = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters:\n- name: t\n  cluster:\n    server: https://{}\n    \
             certificate-authority: {}\nusers:\n- name: t\n  user:\n    client-certificate: {}\n    client-key: {}\ncontexts:\n\
             - name: t\n  context: {{cluster: t, user: t}}\n",
            self.address,
            file("ca.crt", self.admin.authority_pem()),
            file("admin.crt", self.admin.certificate_pem()),
            file("admin.key", self.admin.key_pem()),
        );
        std::fs::write(self.kubeconfig(), text).unwrap();
    }

    /// A kubectl of this version, talking to this server, with a home of its own.
    pub fn kubectl(&self, version: &str) -> Kubectl {
        let home = self.folder.path().join(format!("home-{version}"));
        std::fs::create_dir_all(&home).unwrap();
        Kubectl { program: find_kubectl(version), kubeconfig: self.kubeconfig(), home }
    }
}

/// The kubectl binary of a version; a test that needs it fails without it.
fn find_kubectl(version: &str) -> PathBuf {
    let name = format!("kubectl.{version}");
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(["/root/google-cloud-sdk/bin", "/usr/lib/google-cloud-sdk/bin"].map(PathBuf::from));
    let mut candidates = folders.map(|folder| folder.join(&name));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| {
        panic!("{name} is not installed: tests/run installs it, or put it on the PATH")
    })
}

pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Kubectl {
    pub fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(words)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env("KUBECTL_EXPLAIN_OPENAPIV3", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, words: &[&str]) -> Said {
        let limit = Duration::from_mins(1);
        let output = tokio::time::timeout(limit, self.command(words).output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {words:?} did not end")).unwrap();
        Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed; gives what it printed.
    pub async fn good(&self, words: &[&str]) -> String {
        let said = self.run(words).await;
        assert!(said.ok, "{} {words:?}: {}{}", self.program.display(), said.out, said.err);
        said.out
    }

    /// Writes a manifest to apply or create.
    pub fn manifest(&self, name: &str, text: &str) -> String {
        let path: &Path = &self.home.join(name);
        std::fs::write(path, text).unwrap();
        path.display().to_string()
    }
}
