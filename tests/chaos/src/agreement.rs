//! Whether those who must agree do: members on the state at one revision (I3), and each node's books on
//! what its pods hold (I9).

use crate::clients::{LEDGER, REGISTER};
use crate::cluster::Session;
use crate::ghosts::FENCED;
use crate::held::{ended, resources};
use impresario_client::protocol::node::{Describe, NODE, NodeRole};
use impresario_client::protocol::resources::Resources;
use impresario_registry_api::{
    Consistency, ListRequest, ReadError, RegistryHandle, Revision, Selection,
};
use impresario_runtime::{ActorPath, NodeName};
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is compared beside all resources that are served.
const OURS: [&str; 3] = [REGISTER, LEDGER, FENCED];
/// How long a member may take to reach the revision at which all are compared.
const REACH: Duration = Duration::from_secs(60);
/// How long a node may keep room for pods that will not come: a reservation's time to live, and what a busy machine takes.
const RETURN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// The state of one member at a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stand {
    /// Entries of all resources.
    pub entries: usize,
    /// A hash of every key, value and revision, by resource.
    pub hashes: BTreeMap<String, u64>,
}

/// How those who must agree stood in the end.
#[derive(Debug, Clone, Default)]
pub struct Agreement {
    /// The revision at which members were compared.
    pub revision: Revision,
    /// The state of each member, or why it could not be had.
    pub members: BTreeMap<String, Result<Stand, String>>,
    /// For each node how its books differ from its pods; nothing where they do not.
    pub books: BTreeMap<String, Option<String>>,
}

/// Asks all members for their state at one revision, and all nodes for their books.
pub(crate) async fn look(session: &Session, nodes: &[String], limit: Duration) -> Agreement {
    let probe = ListRequest::of(Selection::all(OURS[0]));
    let revision = session.registry.list(probe).await.map_or(0, |page| page.revision);
    let mut members = BTreeMap::new();
    for member in &session.members {
        let stand = stand(&session.through(member), revision).await;
        members.insert(member.clone(), stand.map_err(|error| error.to_string()));
    }
    Agreement { revision, members, books: books(session, nodes, limit).await }
}

async fn stand(member: &RegistryHandle, revision: Revision) -> Result<Stand, ReadError> {
    let mut stand = Stand::default();
    let served = impresario_api::catalog::resources();
    let served = served.iter().map(|row| impresario_api::resource::resource_key(row));
    for resource in served.chain(OURS.map(str::to_owned)) {
        let page = at(member, &resource, revision).await?;
        let mut hasher = DefaultHasher::new();
        for entry in &page {
            (&entry.key.namespace, &entry.key.name, &entry.value).hash(&mut hasher);
            (entry.create_revision, entry.mod_revision).hash(&mut hasher);
        }
        stand.entries += page.len();
        stand.hashes.insert(resource, hasher.finish());
    }
    Ok(stand)
}

/// The member's own state, as it was at the revision.
async fn at(
    member: &RegistryHandle,
    resource: &str,
    revision: Revision,
) -> Result<Vec<impresario_registry_api::Entry>, ReadError> {
    let deadline = Instant::now() + REACH;
    loop {
        let request = ListRequest {
            at: Some(revision),
            consistency: Consistency::Local,
            ..ListRequest::of(Selection::all(resource))
        };
        match member.list(request).await {
            Ok(page) => return Ok(page.entries),
            Err(error @ ReadError::Gone { .. }) => return Err(error),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// Compares what each node says is free with what is left beside its pods, until they agree.
async fn books(
    session: &Session,
    nodes: &[String],
    limit: Duration,
) -> BTreeMap<String, Option<String>> {
    let deadline = Instant::now() + limit.min(RETURN);
    loop {
        let mut books = BTreeMap::new();
        for node in nodes {
            books.insert(node.clone(), difference(session, node).await);
        }
        if books.values().all(Option::is_none) || Instant::now() > deadline {
            return books;
        }
        sleep(LOOK).await;
    }
}

async fn difference(session: &Session, node: &str) -> Option<String> {
    let path = ActorPath::new(NodeName::from(node), NODE);
    let summary = match session.node.actor::<NodeRole>(path).ask(Describe, ASK_LIMIT).await {
        Ok(summary) => summary,
        Err(error) => return Some(format!("does not answer: {error}")),
    };
    let page = match session.registry.list(ListRequest::of(Selection::all("pods"))).await {
        Ok(page) => page,
        Err(error) => return Some(format!("its pods cannot be listed: {error}")),
    };
    let pods = page.entries.iter().filter_map(|entry| {
        let pod: Value = serde_json::from_slice(&entry.value).ok()?;
        (pod["spec"]["nodeName"] == node && !ended(&pod)).then_some(pod)
    });
    let mut held = Resources::default();
    for pod in pods {
        held.add(&resources(&pod));
    }
    compare(&summary.allocatable, &summary.free, summary.reserved, &held)
}

/// What is wrong with a node's books.
fn compare(all: &Resources, free: &Resources, reserved: u64, held: &Resources) -> Option<String> {
    if reserved > 0 {
        return Some(format!("{reserved} reservations are held for pods that do not come"));
    }
    let left = all.without(held);
    (left != *free).then(|| format!("{free:?} is free, but beside its pods there is {left:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_right_when_what_is_free_and_what_pods_ask_for_is_all_there_is() {
        let amount = |cpu_milli, pods| Resources { cpu_milli, pods, ..Resources::default() };
        let (all, held) = (amount(2000, 10), amount(500, 1));
        assert_eq!(compare(&all, &amount(1500, 9), 0, &held), None);
        assert!(compare(&all, &amount(1500, 9), 1, &held).is_some());
        assert!(compare(&all, &amount(1000, 9), 0, &held).is_some());
        assert!(compare(&all, &amount(2000, 10), 0, &held).is_some());
    }
}
