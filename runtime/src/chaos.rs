//! The actor through which a harness sets fault rules. Spawned only on a node started with `chaos: true`.

use crate::fault::{FaultRule, FaultTable};
use actix::{Actor, Context, Handler};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The name of the chaos actor on each node that has one.
pub const CHAOS_ACTOR: &str = "chaos";

/// Replaces all fault rules of the node; an empty list heals it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetFaults {
    /// The rules.
    pub rules: Vec<FaultRule>,
}

crate::message!(SetFaults => (), "chaos.SetFaults", crate::Lane::Control);

crate::role! {
    /// Sets the faults of a node that was started for chaos tests.
    pub ChaosRole = "chaos" { asks: [SetFaults] }
}

pub(crate) struct Chaos(pub(crate) Arc<FaultTable>);

impl Actor for Chaos {
    type Context = Context<Self>;
}

impl Handler<SetFaults> for Chaos {
    type Result = ();

    fn handle(&mut self, message: SetFaults, _: &mut Self::Context) {
        tracing::warn!(rules = ?message.rules, "fault rules replaced");
        self.0.replace(message.rules);
    }
}
