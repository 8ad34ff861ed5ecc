//! Peers, each with the task that drives it.

use super::{driver::Driver, network::Network, peer::Peer};
use crate::name::NodeName;
use std::sync::Arc;

impl Network {
    /// The peer of this name, with a driver.
    pub(crate) fn peer(self: &Arc<Self>, name: &NodeName) -> Arc<Peer> {
        let (peer, arrivals) = self.peer_of(name);
        if let Some(arrivals) = arrivals {
            let driver = Driver::new(self.clone(), peer.clone(), arrivals);
            let driven = Driven { network: self.clone(), peer: peer.clone() };
            self.tasks.spawn(async move {
                let _driven = driven;
                driver.run().await;
            });
        }
        peer
    }
}

/// Ends a peer with its driver, also if that fails: nobody is to wait for a peer that nobody drives.
struct Driven {
    network: Arc<Network>,
    peer: Arc<Peer>,
}

impl Drop for Driven {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        tracing::error!(peer = %self.peer.name, "the driver of a peer failed: it is begun anew when it is wanted");
        self.peer.close();
        self.network.remove(&self.peer);
    }
}
