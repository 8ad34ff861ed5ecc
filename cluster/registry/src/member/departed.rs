//! Who left the group while this member was in it.
//!
//! A member that is alone asks those whom it was told of whether its directory is from before they joined. Who was
//! removed, or has stolen the disk of one that was, could keep it from ever starting by its word, so these are not
//! asked. The log forgets who they were with its next snapshot; their names are kept beside the identity.

use super::place::Place;
use crate::raft::{MemberId, MemberNode, Raft};
use openraft::{Membership, async_runtime::WatchReceiver};
use std::{collections::BTreeSet, sync::Arc};

/// The names of those who have left, from who had and the memberships since, oldest first. Who is a member again has
/// not.
pub(super) fn after<'a>(
    known: BTreeSet<String>,
    memberships: impl IntoIterator<Item = &'a Membership<MemberId, MemberNode>>,
) -> BTreeSet<String> {
    let (mut departed, mut now) = (known, BTreeSet::new());
    for membership in memberships {
        departed.append(&mut now);
        now = membership.nodes().map(|(_, node)| node.name.clone()).collect();
    }
    departed.retain(|name| !now.contains(name));
    departed
}

/// Keeps the names in the directory true to the membership, from what was known at the start: who had left, and who
/// was a member. Runs until the member aborts it.
pub(super) async fn remember(
    raft: Raft,
    place: Arc<Place>,
    mut departed: BTreeSet<String>,
    mut members: Membership<MemberId, MemberNode>,
) {
    let mut metrics = raft.server_metrics();
    let mut is_known = false;
    loop {
        let now = metrics.borrow_watched().membership_config.membership().clone();
        // Raft has not read its log yet while it has nobody.
        if now != members && now.nodes().next().is_some() {
            departed = after(departed, [&members, &now]);
            (members, is_known) = (now, false);
        }
        if !is_known {
            let (kept, names) = (place.clone(), departed.clone());
            let written = tokio::task::spawn_blocking(move || kept.know_departed(&names)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "who has left the group is not written down: a member that starts alone asks them");
            }
            is_known = true;
        }
        if metrics.changed().await.is_err() {
            return; // raft has stopped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn who_left_is_known_until_it_is_a_member_again() {
        let group = |members: &[(MemberId, &str)]| -> Membership<MemberId, MemberNode> {
            let voters = members.iter().map(|(id, _)| *id).collect();
            let node = |name: &str| MemberNode { name: name.to_owned(), ..MemberNode::default() };
            let nodes: BTreeMap<_, _> =
                members.iter().map(|(id, name)| (*id, node(name))).collect();
            Membership::new(vec![voters], nodes).unwrap()
        };
        let names = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let (two, alone) = (group(&[(1, "n0"), (2, "n1")]), group(&[(1, "n0")]));
        assert_eq!(after(names(&[]), []), names(&[]));
        assert_eq!(after(names(&["n2"]), [&two]), names(&["n2"]));
        assert_eq!(after(names(&["n2"]), [&two, &alone, &alone]), names(&["n1", "n2"]));
        let back = group(&[(1, "n0"), (3, "n1")]);
        assert_eq!(after(names(&["n2"]), [&two, &alone, &back]), names(&["n2"]));
        assert_eq!(after(names(&["n1"]), [&back]), names(&[]));
    }
}
