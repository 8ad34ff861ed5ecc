//! This user's way into the cluster of a folder: the SDK with the admin credential.

use crate::layout::{ClusterDir, LayoutError, NodeFile};
use impresario_client::protocol::traffic::{Describe, TRAFFIC, Traffic, TrafficRole};
use impresario_client::{Client, ConnectError};
use impresario_registry::protocol::Status;
use impresario_registry::{MemberStatus, REGISTRY_ACTOR, RegistryRole};
use impresario_runtime::pki::PkiError;
use impresario_runtime::{ActorPath, Credential, NodeName};
use std::time::Duration;
use thiserror::Error;

/// How long a member has to tell how it stands.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// Why there is no way in.
#[derive(Debug, Error)]
pub enum AdminError {
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The credential is unusable.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The client did not start.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A connection of the admin.
pub struct Admin {
    /// The SDK.
    pub client: Client,
    /// The nodes that were set up in the folder.
    pub nodes: Vec<NodeFile>,
}

impl Admin {
    /// Connects to the cluster of the folder.
    pub async fn connect(dir: &ClusterDir) -> Result<Self, AdminError> {
        dir.cluster()?; // says what to do where there is none
        let mut nodes = Vec::new();
        for node in dir.nodes()? {
            nodes.push(node.load()?);
        }
        let members: Vec<_> = nodes
            .iter()
            .filter(|node| node.control.is_some())
            .map(|node| (NodeName::from(node.name.as_str()), node.advertise))
            .collect();
        let credential = Credential::load(&dir.admin())?;
        let client = Client::connect(credential, &members).await?;
        for node in &nodes {
            let name = NodeName::from(node.name.as_str());
            client.node().addresses().set(name, node.advertise);
        }
        Ok(Self { client, nodes })
    }

    /// How each control member stands; nothing for one that does not answer.
    pub async fn members(&self) -> Vec<(String, Option<MemberStatus>)> {
        self.members_within(STATUS_LIMIT).await
    }

    /// The same, for those who answer in time.
    async fn members_within(&self, limit: Duration) -> Vec<(String, Option<MemberStatus>)> {
        let control = self.nodes.iter().filter(|node| node.control.is_some());
        let asks = control.map(async |node| {
            let path = ActorPath::new(NodeName::from(node.name.as_str()), REGISTRY_ACTOR);
            let member = self.client.actor::<RegistryRole>(path);
            (node.name.clone(), member.ask(Status, limit).await.ok())
        });
        futures_util::future::join_all(asks).await
    }

    /// What the network end of each of these nodes tells; nothing for one that does not answer in time.
    pub async fn traffic(&self, nodes: &[NodeName]) -> Vec<(NodeName, Option<Traffic>)> {
        let asks = nodes.iter().map(async |node| {
            let end = self.client.actor::<TrafficRole>(ActorPath::new(node.clone(), TRAFFIC));
            (node.clone(), end.ask(Describe, STATUS_LIMIT).await.ok())
        });
        futures_util::future::join_all(asks).await
    }

    /// The leader that the member with the newest term knows, of those who answer in time.
    pub async fn leader_within(&self, limit: Duration) -> Option<String> {
        let members = self.members_within(limit).await;
        let newest = members.into_iter().filter_map(|(_, status)| status).max_by_key(|s| s.term)?;
        newest.leader
    }
}
