//! What becomes of certificates that are trusted no more, on every node, and of members that were removed.
//!
//! The fingerprints stand in a config map that each node follows: control members in their own process, others at
//! the door of a member. What comes with such a certificate is refused, and what was opened with it before ends. So
//! does what a member had opened that is taken out of the group: the gate asks for each message, and once for a watch.
//!
//! A node begins with what it has kept of the list. A member that starts opens no door at which a certificate is worth
//! something before a leader has told the list, or is not there for a while; its own replica knows no sooner.

mod kept;

use super::gate::ClusterGate;
use crate::layout::{LayoutError, NodeDir};
use impresario_gateway::{Fingerprint, Revocations};
use impresario_objects::Reader;
use impresario_registry::{Member, RegistryHandle};
use impresario_runtime::{ActorNode, NodeName};
use kept::{Kept, in_hex};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Who is trusted no more, as far as a node knows when it starts.
#[derive(Debug, Default)]
pub struct Known {
    prints: HashSet<Fingerprint>,
    /// Where what is heard is written down, and what lies there.
    kept: Option<(Kept, HashSet<Fingerprint>)>,
}

impl Known {
    /// What the node has kept.
    pub fn of(dir: &NodeDir) -> Result<Self, LayoutError> {
        let kept = Kept::of(dir);
        let prints = kept.load()?;
        Ok(Self { prints: prints.clone(), kept: Some((kept, prints)) })
    }

    /// A gate that trusts none of them, before anything can come.
    pub fn gate(&self) -> ClusterGate {
        let gate = ClusterGate::default();
        *gate.revoked.write() = in_words(&self.prints);
        gate
    }
}

/// Follows who is revoked. Ends when dropped.
#[derive(Debug)]
pub struct Following {
    _revocations: Revocations,
    has_read: watch::Receiver<bool>,
}

impl Following {
    /// Waits so long until the list has been read; whether it has.
    pub async fn has_read_within(&mut self, limit: Duration) -> bool {
        let read = timeout(limit, self.has_read.wait_for(|has_read| *has_read)).await;
        matches!(read, Ok(Ok(_)))
    }
}

/// Follows what is revoked, at the node's gate and its links; `told` hears it too, and at once what is known now.
pub fn follow(
    known: Known,
    registry: RegistryHandle,
    node: ActorNode,
    gate: &ClusterGate,
    told: impl Fn(HashSet<Fingerprint>) + Send + Sync + 'static,
) -> Following {
    let (revoked, is_unread) = (gate.revoked.clone(), gate.is_unread.clone());
    let apply = move |found: HashSet<Fingerprint>| {
        let prints = in_words(&found);
        if !prints.is_empty() && *revoked.read() != prints {
            tracing::info!(node = %node.name(), certificates = prints.len(), "certificates are revoked");
        }
        revoked.write().clone_from(&prints);
        // What was opened before ends with its link.
        node.shut_out(prints);
        told(found);
    };
    apply(known.prints);
    let keep = known.kept.map(|(kept, there)| kept.keep(there));
    let (read, has_read) = watch::channel(false);
    let revocations = Revocations::follow(Reader::new(registry), move |found| {
        apply(found.clone());
        if let Some(keep) = &keep {
            keep.send_if_modified(|kept| {
                let differs = *kept != found;
                *kept = found;
                differs
            });
        }
        is_unread.store(false, Ordering::Relaxed);
        read.send_replace(true);
    });
    Following { _revocations: revocations, has_read }
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

fn in_words(prints: &HashSet<Fingerprint>) -> HashSet<String> {
    prints.iter().map(|print| in_hex(print)).collect()
}
