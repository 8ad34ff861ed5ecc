//! What becomes of certificates that are trusted no more, on every node, and of members that were removed.
//!
//! The fingerprints stand in a config map that each node follows: control members in their own process, others at
//! the door of a member. What comes with such a certificate is refused, and what was opened with it before ends. So
//! does what a member had opened that is taken out of the group: the gate asks for each message, and once for a watch.

use super::gate::ClusterGate;
use impresario_gateway::{Fingerprint, Revocations};
use impresario_objects::Reader;
use impresario_registry::{Member, RegistryHandle};
use impresario_runtime::{ActorNode, NodeName};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Follows what is revoked, at the node's gate and its links; `told` hears it too. Ends when dropped.
pub fn follow(
    registry: RegistryHandle,
    node: ActorNode,
    gate: &ClusterGate,
    told: impl Fn(HashSet<Fingerprint>) + Send + Sync + 'static,
) -> Revocations {
    let revoked = gate.revoked.clone();
    Revocations::follow(Reader::new(registry), move |found| {
        let prints: HashSet<String> = found.iter().map(|print| in_hex(print)).collect();
        if !prints.is_empty() && *revoked.read() != prints {
            tracing::info!(node = %node.name(), certificates = prints.len(), "certificates are revoked");
        }
        revoked.write().clone_from(&prints);
        // What was opened before ends with its link.
        node.shut_out(prints);
        told(found);
    })
}

/// Ends the link to each member that is taken out of the group, as far as this one hears. Runs until the member stops.
pub fn end_links_of_removed(
    member: &Member,
    node: ActorNode,
) -> impl Future<Output = ()> + Send + 'static {
    member.departures(move |name| {
        tracing::info!(member = name, "a member was taken out: its link ends");
        node.end_link(&NodeName::from(name));
    })
}

/// As the runtime writes fingerprints.
fn in_hex(print: &[u8]) -> String {
    print.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
