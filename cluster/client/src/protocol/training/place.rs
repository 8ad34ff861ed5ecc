//! Where an actor of a job is.

use super::names::guest_node;
use impresario_runtime::ActorPath;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Where an actor of the job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its node and name.
    pub path: ActorPath,
    /// Its node's QUIC address.
    pub address: SocketAddr,
}

impl Place {
    /// Whether this can be a parameter server: an actor of that role on the node of its own pod.
    pub fn is_parameter_server(&self) -> bool {
        let uid = self.path.actor.as_str().strip_prefix("parameterserver/");
        uid.is_some_and(|uid| guest_node(uid) == self.path.node)
    }
}
