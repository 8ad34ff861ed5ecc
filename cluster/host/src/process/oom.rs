//! Who goes first when the machine runs out of memory: containers before the node, and of those the ones that use
//! more than they asked for.

use crate::container::{Qos, Resources};
use std::io;

/// What a node sets itself to: without it the pods that are spared would be spared at its cost.
pub const NODE: i32 = -999;
/// What keepers are set to, so that a container goes before the one who tells how it ended.
pub const KEEPER: i32 = -998;
/// What nobody else than guaranteed pods has.
const GUARANTEED: i32 = -997;

/// The `oom_score_adj` of a container on a machine of `memory_bytes`, as the kubelet has it
/// (`pkg/kubelet/qos/policy.go`): a share of memory that was asked for is forgiven.
#[must_use]
pub fn score(resources: &Resources, memory_bytes: u64) -> i32 {
    match resources.qos {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let asked = u128::from(resources.memory_request_bytes) * 1000;
            let permille = asked / u128::from(memory_bytes.max(1));
            let left = 1000 - i32::try_from(permille.min(1000)).unwrap_or(1000);
            left.clamp(1000 + GUARANTEED, 999)
        }
    }
}

/// Sets it for the calling process and its children; only root may lower it.
///
/// # Errors
/// What the kernel says.
pub fn set(score: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_for_more_goes_later_and_who_asked_for_nothing_first() {
        let of = |qos, request| {
            let resources =
                Resources { qos, memory_request_bytes: request, ..Resources::default() };
            score(&resources, 4 << 30)
        };
        assert_eq!(of(Qos::BestEffort, 0), 1000);
        assert_eq!(of(Qos::Burstable, 0), 999);
        assert_eq!(of(Qos::Burstable, 1 << 30), 750);
        assert_eq!(of(Qos::Burstable, u64::MAX), 3);
        assert_eq!(of(Qos::Guaranteed, 1 << 30), -997);
    }
}
