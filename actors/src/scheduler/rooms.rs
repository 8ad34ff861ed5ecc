//! Room for what a round gives, asked of the Node actors before a job is told: the nodes alone know what they
//! have, and a refusal corrects the picture before anything was promised.
//!
//! ```text
//!  decide ──> needed ──> Reserve at each node ──all granted──> Release, the jobs are told
//!    ▲                        │ refused, or no answer
//!    └── the picture is corrected, Release
//! ```
//!
//! The room is kept while a round is cleared. It is given back before the jobs are told, so that the pods that
//! follow can reserve it for themselves; what nobody gives back (the answer was late) the node gives away by itself
//! after [`KEPT`]. Room that comes from members that leave in the same round cannot be kept yet.

use super::BATCH;
use crate::auction::Outcome;
use futures_util::future::join_all;
use impresario_client::protocol::node::{
    Grant, Lease, NODE, NodeRole, PodReservation, Release, Reserve,
};
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::Bid;
use impresario_runtime::{ActorNode, ActorPath, ActorRef};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a node has to answer. A round waits for the slowest.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a node keeps room for a round of which it hears nothing more.
const KEPT: Duration = Duration::from_secs(2);
/// No more rooms are looked for in one round; what is beyond is told by the nodes when the pods come.
const MOST_ROOMS: usize = 1_024;
/// Half of what a [`Reserve`] may have.
const MOST_BYTES: usize = 1 << 19;

/// A room that one new member of a job needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Room {
    job: String,
    pod: PodReservation,
}

/// The rooms that new members need, by node: each on a node where its job gets another, else on the one that
/// has most left. Members that are on their way already reserve for themselves, and have the first choice.
pub(super) fn needed(
    bids: &[Bid],
    outcomes: &[Outcome],
    mut free: BTreeMap<String, Resources>,
) -> BTreeMap<String, Vec<Room>> {
    let mut left = MOST_ROOMS;
    for bid in bids {
        for (pod, has, wanted) in [
            (&bid.parameter_server, bid.current.parameter_servers, bid.wanted.parameter_servers),
            (&bid.trainer, bid.current.trainers, bid.wanted.trainers),
        ] {
            for _ in has..wanted {
                if left == 0 {
                    return BTreeMap::new();
                }
                left -= 1;
                take(&mut free, pod, &BTreeSet::new());
            }
        }
    }
    let by_job: BTreeMap<&str, &Bid> = bids.iter().map(|bid| (bid.job.as_str(), bid)).collect();
    let mut rooms: BTreeMap<String, Vec<Room>> = BTreeMap::new();
    for outcome in outcomes {
        let Some(bid) = by_job.get(outcome.job.as_str()) else { continue };
        let (size, has, wanted) = (outcome.scale.size, bid.current, bid.wanted);
        let servers = has.parameter_servers.max(wanted.parameter_servers)..size.parameter_servers;
        let trainers = has.trainers.max(wanted.trainers)..size.trainers;
        let mut own = BTreeSet::new();
        for (pod, missing) in [(&bid.parameter_server, servers), (&bid.trainer, trainers)] {
            for _ in missing {
                if left == 0 {
                    return rooms;
                }
                left -= 1;
                // Where none has room, those that leave in this round make it.
                let Some(node) = take(&mut free, pod, &own) else { break };
                own.insert(node.clone());
                let rooms = rooms.entry(node).or_default();
                // A node is asked for no more at a time than when pods are placed, and for what one message carries.
                let asked = rooms.iter().map(|room| bytes(&room.pod.resources)).sum::<usize>();
                if rooms.len() < BATCH && asked + bytes(pod) <= MOST_BYTES {
                    let uid = format!("auction/{}/{left}", bid.job);
                    let pod = PodReservation { uid, resources: pod.clone() };
                    rooms.push(Room { job: bid.job.clone(), pod });
                }
            }
        }
    }
    rooms
}

/// What a room takes of a message, at most.
fn bytes(pod: &Resources) -> usize {
    pod.extended.keys().map(|name| name.len() + 32).sum::<usize>() + 256
}

/// Takes a pod's room from one of the `first` nodes that has it, else from the node that has most left.
fn take(
    free: &mut BTreeMap<String, Resources>,
    pod: &Resources,
    first: &BTreeSet<String>,
) -> Option<String> {
    let has_room = |node: &&String| free.get(*node).is_some_and(|has| has.covers(pod));
    let node = first.iter().find(has_room).cloned().or_else(|| {
        let all = free.iter().filter(|(_, has)| has.covers(pod));
        let most = all.max_by_key(|(_, has)| (has.gpus(), has.cpu_milli, has.memory_bytes));
        most.map(|(node, _)| node.clone())
    })?;
    free.get_mut(&node)?.subtract(pod);
    Some(node)
}

/// Rooms that a node keeps for a round. They are given back when this is dropped, whatever came of the round.
struct Held {
    node: ActorRef<NodeRole>,
    leases: Vec<Lease>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        if leases.is_empty() {
            return;
        }
        if let Err(error) = self.node.tell(Release { leases }) {
            tracing::debug!(%error, "rooms of a round are left to expire");
        }
    }
}

/// What came of asking for rooms. What nodes keep they keep until this is dropped.
#[derive(Default)]
pub(super) struct Asked {
    held: Vec<Held>,
    /// What nodes have by their own word that refused: that is what the round goes on with.
    pub(super) told: BTreeMap<String, Resources>,
    /// Nodes that refused what they say that they have: nothing of them is given in this round.
    pub(super) barred: BTreeSet<String>,
    /// Nodes that did not answer.
    pub(super) silent: BTreeSet<String>,
    /// The jobs of which a member has no room.
    pub(super) without_room: BTreeSet<String>,
}

/// Asks all nodes at a time. Who does not answer within [`PATIENCE`] has refused.
pub(super) async fn ask(node: &ActorNode, rooms: BTreeMap<String, Vec<Room>>) -> Asked {
    let asks = rooms.into_iter().map(|(name, rooms)| {
        let actor: ActorRef<NodeRole> = node.actor(ActorPath::new(&*name, NODE));
        async move {
            let pods = rooms.iter().map(|room| room.pod.clone()).collect();
            let grants = match actor.ask(Reserve { pods, ttl: KEPT }, PATIENCE).await {
                Ok(grants) => Some(grants),
                Err(error) => {
                    tracing::info!(node = %name, %error, "node cannot be asked for the room of a round");
                    None
                }
            };
            let mut held = Held { node: actor, leases: Vec::new() };
            for grant in grants.iter().flatten() {
                if let Grant::Reserved { lease, .. } = grant {
                    held.leases.push(*lease);
                }
            }
            (name, rooms, grants, held)
        }
    });
    let mut asked = Asked::default();
    for (name, rooms, grants, held) in join_all(asks).await {
        asked.answered(name, &rooms, grants.as_deref());
        asked.held.push(held);
    }
    asked
}

impl Asked {
    /// Whether all that was asked for is kept.
    pub(super) fn is_granted(&self) -> bool {
        self.without_room.is_empty()
    }

    fn answered(&mut self, node: String, rooms: &[Room], grants: Option<&[Grant]>) {
        let (mut held, mut free) = (Resources::default(), None);
        let mut missing: Vec<&Room> = Vec::new();
        for room in rooms {
            match grants.unwrap_or_default().iter().find(|grant| uid(grant) == room.pod.uid) {
                Some(Grant::Reserved { .. }) => held.add(&room.pod.resources),
                Some(Grant::Refused { free: left, reason, .. }) => {
                    tracing::debug!(%node, job = room.job, reason, "no room for a round");
                    free = Some(left.clone());
                    missing.push(room);
                }
                None => missing.push(room),
            }
        }
        self.without_room.extend(missing.iter().map(|room| room.job.clone()));
        if missing.is_empty() {
            return;
        }
        match (grants, free) {
            (None, _) => {
                self.silent.insert(node);
            }
            (Some(_), Some(mut has)) => {
                // What it keeps for this round it has for the next try.
                has.add(&held);
                let has_room = missing.iter().all(|room| has.covers(&room.pod.resources));
                if has_room && held == Resources::default() {
                    self.barred.insert(node.clone());
                }
                self.told.insert(node, has);
            }
            // It has passed over what it was asked.
            (Some(_), None) => {
                self.barred.insert(node);
            }
        }
    }
}

fn uid(grant: &Grant) -> &str {
    match grant {
        Grant::Reserved { uid, .. } | Grant::Refused { uid, .. } => uid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LIMIT, Machine, eventually};
    use impresario_client::protocol::node::Describe;
    use impresario_registry_api::Key;

    fn cpu(milli: u64) -> Resources {
        Resources { cpu_milli: milli, pods: 1, ..Resources::default() }
    }

    fn rooms(node: &str, pods: u64, milli: u64) -> BTreeMap<String, Vec<Room>> {
        let room = |number: u64| Room {
            job: format!("job-{number}"),
            pod: PodReservation { uid: format!("auction/{number}"), resources: cpu(milli) },
        };
        BTreeMap::from([(node.to_owned(), (0..pods).map(room).collect())])
    }

    async fn reserved(machine: &Machine) -> u64 {
        machine.actor.ask(Describe, LIMIT).await.unwrap().reserved
    }

    async fn until_given_back(machine: &Machine) {
        // Long before they would end by themselves.
        eventually("the rooms are given back", async || match reserved(machine).await {
            0 => Ok(()),
            left => Err(left),
        })
        .await;
    }

    async fn machine() -> Machine {
        let machine = Machine::start(1_000).await;
        let node = Key::new("nodes", "", "n1");
        machine.until(&node, "registered", |node| !node.is_null()).await;
        machine
    }

    #[test]
    fn rooms_are_looked_for_where_they_are_and_members_on_their_way_have_the_first_choice() {
        use impresario_client::protocol::training::{Scale, Size, SpeedModel};
        let size = |parameter_servers, trainers| Size { parameter_servers, trainers };
        let bid = |job: &str, wanted, pod: &Resources| Bid {
            job: job.to_owned(),
            lease: 1,
            namespace: "ns".to_owned(),
            name: job.to_owned(),
            created_unix_seconds: 0,
            remaining_steps: 1e6,
            remaining_uncertainty: 0.0,
            done_steps: 500,
            speed: SpeedModel::Asynchronous { a: [0.1, 0.0, 0.0, 0.0] },
            speed_uncertainty: 0.0,
            measured_trainers: 1,
            current: size(1, 1),
            wanted,
            min: size(1, 1),
            max: size(1, 100),
            parameter_server: cpu(100),
            trainer: pod.clone(),
            rescale_seconds: 0.5,
            rescale_uncertainty: 0.0,
            incomplete_seconds: 0,
        };
        let outcome = |job: &str, size| {
            let reason = String::new();
            let scale = Scale { round: 1, scheduler: 1, lease: 1, size, reason };
            Outcome { job: job.to_owned(), scale }
        };
        let free = |nodes: &[(&str, u64)]| -> BTreeMap<String, Resources> {
            let of = |milli| Resources { pods: 500, ..cpu(milli) };
            nodes.iter().map(|(node, milli)| ((*node).to_owned(), of(*milli))).collect()
        };
        let asked = |bids: &[Bid], outcomes: &[Outcome], nodes: &[(&str, u64)]| {
            let rooms = needed(bids, outcomes, free(nodes));
            rooms.into_iter().map(|(node, rooms)| (node, rooms.len())).collect::<Vec<_>>()
        };
        let bids = [bid("a", size(1, 3), &cpu(400)), bid("b", size(1, 1), &cpu(400))];
        // Two of the first are on their way and take a room on each; what others leave is not there yet.
        let grows = [outcome("b", size(1, 4)), outcome("a", size(1, 2))];
        let nodes = [("n1", 900), ("n2", 850)];
        assert_eq!(asked(&bids, &grows, &nodes), [("n1".to_owned(), 1), ("n2".to_owned(), 1)]);
        // Its members come together where there is room.
        let nodes = [("n1", 5_000), ("n2", 3_900)];
        assert_eq!(asked(&bids, &grows[..1], &nodes), [("n1".to_owned(), 3)]);
        // However many there are, and however they are called, a message carries them.
        let many = [outcome("b", size(1, 90))];
        assert_eq!(asked(&bids[1..], &many, &[("n1", 90_000)]), [("n1".to_owned(), BATCH)]);
        let mut named = cpu(1);
        named.extended.insert("x".repeat(100_000), 0);
        let rooms = needed(&[bid("b", size(1, 1), &named)], &many, free(&[("n1", 90_000)]));
        assert!(!rooms["n1"].is_empty() && rooms["n1"].len() < 6);
    }

    #[actix::test]
    async fn rooms_are_kept_while_a_round_is_cleared_and_given_back_whatever_comes_of_it() {
        let machine = machine().await;
        let asked = ask(&machine.node, rooms("n1", 2, 400)).await;
        assert!(asked.is_granted() && asked.silent.is_empty() && asked.told.is_empty());
        assert_eq!(reserved(&machine).await, 2);
        drop(asked);
        until_given_back(&machine).await;
        // One of three is refused: the node has what it kept for the other two, too.
        let asked = ask(&machine.node, rooms("n1", 3, 400)).await;
        assert_eq!(asked.without_room, ["job-2".to_owned()].into());
        assert_eq!(asked.told["n1"].cpu_milli, 1_000);
        assert!(asked.barred.is_empty() && asked.silent.is_empty());
        assert_eq!(reserved(&machine).await, 2);
        drop(asked);
        until_given_back(&machine).await;
    }

    #[actix::test]
    async fn a_node_that_does_not_answer_has_refused_and_holds_up_no_other() {
        let machine = machine().await;
        let mut rooms = rooms("n1", 1, 400);
        let far = Room { job: "far".to_owned(), ..rooms["n1"][0].clone() };
        rooms.insert("n2".to_owned(), vec![far]);
        let asked = ask(&machine.node, rooms).await;
        assert_eq!(asked.silent, ["n2".to_owned()].into());
        assert_eq!(asked.without_room, ["far".to_owned()].into());
        drop(asked);
        until_given_back(&machine).await;
    }
}
