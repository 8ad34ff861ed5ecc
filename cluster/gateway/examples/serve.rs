//! Serves the API over a registry in memory: `serve FOLDER [PORT]`, then `kubectl --kubeconfig FOLDER/kubeconfig`.
//!
//! For looking at the API by hand. There are no nodes: pods stay pending and logs are refused.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use impresario_api::status::Status;
use impresario_client::protocol::pod::Logs;
use impresario_gateway::logs::LogSource;
use impresario_gateway::{Gateway, Server, Tls, TlsSettings};
use impresario_objects::rbac::Roles;
use impresario_objects::{Objects, Reader};
use impresario_registry::MemoryRegistry;
use impresario_runtime::{ClusterAuthority, Credential, PeerRole};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

struct NoNodes;

impl LogSource for NoNodes {
    fn open<'a>(
        &'a self,
        _: &'a Value,
        _: Logs,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async { Err(Status::bad_request("no node runs here, so there are no logs")) })
    }
}

fn kubeconfig(address: SocketAddr, admin: &Credential) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: memory\nclusters:\n- name: memory\n  cluster:\n    server: \
         https://{address}\n    certificate-authority-data: {}\nusers:\n- name: admin\n  user:\n    \
         client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: memory\n  context:\n    cluster: \
         memory\n    user: admin\n",
        encode(admin.authority_pem()),
        encode(admin.certificate_pem()),
        encode(admin.key_pem()),
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: serve FOLDER [PORT]")?);
    let port = arguments.next().map_or(Ok(0), |text| text.parse())?;
    std::fs::create_dir_all(&folder)?;
    let authority = ClusterAuthority::create("memory")?;
    let day = Duration::from_hours(24);
    let own = authority.issue(
        "memory",
        PeerRole::Control,
        &["127.0.0.1".into(), "localhost".into()],
        day,
    )?;
    let admin = authority.issue("admin", PeerRole::Admin, &[], day)?;
    let objects = Objects::new(Arc::new(MemoryRegistry::new()));
    objects.lay_foundation(own.authority_pem(), port).await?;
    let roles = Roles::follow(&Reader::new(objects.registry().clone()));
    let gateway = Arc::new(Gateway::new(objects, roles, Arc::new(NoNodes)));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = Server::start(address, Tls::new(TlsSettings::of(&own)?)?, gateway)?;
    let file = folder.join("kubeconfig");
    std::fs::write(&file, kubeconfig(server.address(), &admin))?;
    println!("kubectl --kubeconfig {} get namespaces", file.display());
    tokio::signal::ctrl_c().await?;
    server.stop(Duration::from_secs(2)).await;
    Ok(())
}
