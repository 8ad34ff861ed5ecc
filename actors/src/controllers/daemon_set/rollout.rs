//! Which old pods of a daemon set make way for new ones now, and where new ones come beside them.
//!
//! On a node an old pod that is not available is replaced at once: nothing is lost with it. Of the others as many
//! go as the strategy allows to be missing, less those that are missing anyway; or, where it allows some too many, as many new
//! ones come, and the old ones go when these are available. (API reference, RollingUpdateDaemonSet v1.)

use super::super::part::{Round, part};
use super::super::pod_view::PodView as _;
use super::places::{Places, is_available};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Moves<'a> {
    /// Old pods that go.
    pub(super) old: Vec<&'a Pod>,
    /// Nodes that get a new pod beside the old one.
    pub(super) new: Vec<&'a str>,
}

/// What a set allows on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    surge: usize,
    unavailable: usize,
}

/// Whether new pods of a set may come before the old ones go.
pub(super) fn surges(set: &DaemonSet) -> bool {
    limits(set, 100).is_some_and(|limits| limits.surge > 0)
}

/// The limits of a set that is wanted on so many nodes; `None` where its pods are replaced when somebody deletes
/// them. Parts of the nodes are rounded up; where neither would be anything, one pod may be missing.
fn limits(set: &DaemonSet, nodes: usize) -> Option<Limits> {
    let strategy = set.spec.update_strategy.as_ref();
    if strategy.and_then(|it| it.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    let part = |of: Option<&IntOrString>, none: usize| {
        of.map_or(none, |of| usize::try_from(part(of, nodes, Round::Up)).unwrap_or(0))
    };
    let surge = part(rolling.and_then(|it| it.max_surge.as_ref()), 0);
    let mut unavailable = part(rolling.and_then(|it| it.max_unavailable.as_ref()), 1);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Some(Limits { surge, unavailable })
}

/// What is to be done now.
pub(super) fn moves<'a>(
    set: &DaemonSet,
    places: &Places<'a>,
    hash: &str,
    now: Timestamp,
) -> Moves<'a> {
    let wanted = places.all().iter().filter(|place| place.is_wanted()).count();
    let Some(limits) = limits(set, wanted) else { return Moves::default() };
    let patience = set.spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| is_available(pod, patience, now);
    let mut moves = Moves::default();
    let (mut candidates, mut surging, mut missing) = (Vec::new(), Vec::new(), 0);
    let mut too_many = 0;
    // A cordoned node would get no other for the one that it has, and holds nobody up.
    let moved = places.all().iter().filter(|place| place.is_wanted() && !place.is_cordoned);
    for place in moved {
        let Some((new, old)) = place.new_and_old(hash) else {
            (missing, too_many) = (missing + 1, too_many + 1);
            continue;
        };
        match (new, old) {
            (None, None) => missing += 1,
            // Which of two goes is said by their place.
            (Some(new), old) => {
                missing += usize::from(!available(new));
                too_many += usize::from(old.is_some() && !available(new));
            }
            (None, Some(old)) if limits.surge > 0 && available(old) => surging.push(place.node),
            // What it would replace is no use: that is none too many.
            (None, Some(old)) if limits.surge > 0 && !old.finished() => moves.new.push(place.node),
            (None, Some(old)) if !available(old) => moves.old.push(old),
            (None, Some(old)) => candidates.push(old),
        }
    }
    missing += moves.old.len();
    moves.old.extend(candidates.into_iter().take(limits.unavailable.saturating_sub(missing)));
    moves.new.extend(surging.into_iter().take(limits.surge.saturating_sub(too_many)));
    moves
}
