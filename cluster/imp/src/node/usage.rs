//! What a control member knows of what is used on the nodes: heard by an actor, shown by the API.

use impresario_actors::usage::{Known, Usage, UsageActor};
use impresario_client::protocol::usage::{Amounts, PodUsage, USAGE, UsageRole};
use impresario_gateway::usage::{Measured, UsageSource};
use impresario_runtime::{ActorNode, SpawnError, SpawnOptions, clock};
use std::sync::Arc;

/// Starts the actor to which nodes tell it. What it hears is in what is given back.
pub fn listen(node: &ActorNode) -> Result<Usage, SpawnError> {
    let usage = Usage::default();
    let heard = usage.clone();
    node.spawn::<UsageRole, _>(USAGE, SpawnOptions::default(), move |_| UsageActor(heard.clone()))?;
    Ok(usage)
}

/// The same, for the API.
pub struct ForApi(pub Usage);

impl UsageSource for ForApi {
    fn node(&self, node: &str) -> Option<Measured<Amounts>> {
        let Known { taken, window, of } = self.0.of_node(node, clock::now())?;
        Some(Measured { taken, window, of })
    }

    fn pod(&self, node: &str, uid: &str) -> Option<Measured<Arc<PodUsage>>> {
        let Known { taken, window, of } = self.0.of_pod(node, uid, clock::now())?;
        Some(Measured { taken, window, of })
    }
}
