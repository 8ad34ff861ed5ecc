//! What the containers of a pod share.

use super::guest;
use impresario_host::{PodSandbox, container::Mount, volumes};
use std::{collections::BTreeMap, net::IpAddr};

/// What was made for them.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) address: IpAddr,
    pub(super) sandbox: PodSandbox,
    pub(super) volumes: BTreeMap<String, volumes::Placed>,
    /// What the runtime adds for a guest.
    pub(super) guest: guest::Given,
    /// The file with which its containers find services by name.
    pub(super) resolver: Option<Mount>,
}
