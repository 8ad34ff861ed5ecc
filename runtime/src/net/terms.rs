//! The terms on which a peer is served: its role's budget, and what it has used of it.

use crate::{
    budget::{Account, Budget, Pool},
    config::Limits,
    name::NodeName,
    pki::{PeerIdentity, PeerRole},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What each peer may hold whatever the others of its kind do.
const FLOOR_BYTES: usize = 64 << 10;

/// What is held for all peers of a kind together.
pub(crate) struct Pools {
    control: Arc<Pool>,
    node: Arc<Pool>,
    lesser: Arc<Pool>,
    /// What one peer may take up.
    limits: Limits,
    /// The terms of certificates that many processes share, by role and name: one for all of them.
    shared: Mutex<HashMap<(&'static str, NodeName), Weak<Terms>>>,
}

impl Pools {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            control: Pool::new(limits.control_pool_bytes, FLOOR_BYTES),
            node: Pool::new(limits.node_pool_bytes, FLOOR_BYTES),
            lesser: Pool::new(limits.lesser_pool_bytes, FLOOR_BYTES),
            limits: *limits,
            shared: Mutex::default(),
        }
    }

    /// The terms of a new peer. Processes of one certificate have them together: who starts more gets no more.
    pub(crate) fn terms(&self, identity: &PeerIdentity) -> Arc<Terms> {
        if !identity.role.is_shared() {
            return Terms::new(self, &identity.role);
        }
        let mut shared = self.shared.lock();
        shared.retain(|_, terms| terms.strong_count() > 0);
        let key = (identity.role.word(), identity.node.clone());
        if let Some(terms) = shared.get(&key).and_then(Weak::upgrade) {
            return terms;
        }
        let terms = Terms::new(self, &identity.role);
        shared.insert(key, Arc::downgrade(&terms));
        terms
    }

    fn of(&self, role: &PeerRole) -> &Arc<Pool> {
        match role {
            PeerRole::Control => &self.control,
            PeerRole::Node => &self.node,
            PeerRole::Guest { .. } | PeerRole::Client | PeerRole::Admin => &self.lesser,
        }
    }
}

pub(crate) struct Terms {
    /// The role in a word.
    pub(crate) role: &'static str,
    pub(crate) budget: Budget,
    pub(crate) account: Arc<Account>,
    asks: Arc<Semaphore>,
}

impl Terms {
    fn new(pools: &Pools, role: &PeerRole) -> Arc<Self> {
        let budget = *pools.limits.budget(role);
        Arc::new(Self {
            role: role.word(),
            budget,
            account: Account::new(pools.of(role), budget.bytes),
            asks: Arc::new(Semaphore::new(budget.asks)),
        })
    }

    /// Room for one more ask of the peer, or other work for it.
    pub(crate) fn ask(&self) -> Option<OwnedSemaphorePermit> {
        self.asks.clone().try_acquire_owned().ok()
    }

    /// Asks of the peer, and other work for it, that have not ended.
    pub(crate) fn open_asks(&self) -> usize {
        self.budget.asks.saturating_sub(self.asks.available_permits())
    }

    /// The deadline that the peer chose, or the longest that it may.
    pub(crate) fn deadline(&self, deadline_ms: u32) -> Duration {
        Duration::from_millis(deadline_ms.into()).min(self.budget.deadline)
    }
}
