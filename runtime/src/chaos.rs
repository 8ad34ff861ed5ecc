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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, fault::Direction};
    use std::time::Duration;

    #[test]
    fn fault_rules_travel_in_the_format_that_harnesses_speak() {
        let rule = FaultRule {
            drop: 0.5,
            delay: Duration::from_millis(3),
            cut: true,
            ..FaultRule::new(Some("b".into()), Direction::Receive)
        };
        let message = SetFaults { rules: vec![rule, FaultRule::new(None, Direction::Send)] };
        let bytes = codec::encode(&message).unwrap();
        let golden = [
            2, 1, 1, b'b', 1, 0, 0, 0, 63, 0, 252, 192, 198, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            1, // the first rule
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // the second
        ];
        assert_eq!(bytes, golden);
        assert_eq!(codec::decode::<SetFaults>(&bytes).unwrap(), message);
    }
}
