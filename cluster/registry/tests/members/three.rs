//! Three nodes with a member each, for all suites.

use crate::harness::*;
use impresario_registry::{
    Beginning, Consistency, ListRequest, Member, MembershipError, REGISTRY_ACTOR, RegistryHandle,
    RegistryRole, Selection, member::StartError, protocol::Status,
};
use impresario_runtime::{ActorNode, ActorPath};
use std::{collections::BTreeMap, time::Duration};

/// Three nodes and the members on them that run.
pub struct Group {
    pub cluster: Cluster,
    pub nodes: Vec<ActorNode>,
    pub members: BTreeMap<usize, Member>,
}

impl Group {
    pub async fn new() -> Self {
        Self::of(Cluster::new()).await
    }

    /// Three members of which the one that leads stays the leader.
    pub async fn calm() -> Self {
        Self::of(Cluster::calm()).await
    }

    pub async fn of(cluster: Cluster) -> Self {
        let mut nodes = Vec::new();
        for name in ["n0", "n1", "n2"] {
            nodes.push(cluster.node(name).await);
        }
        for node in &nodes {
            for other in &nodes {
                node.addresses().set(other.name().clone(), other.local_addr());
            }
        }
        let mut group = Self { cluster, nodes, members: BTreeMap::new() };
        for index in 0..3 {
            group.start(index).await.unwrap();
        }
        group.whole().await;
        group
    }

    pub fn beginning(&self, index: usize) -> Beginning {
        if index == 0 { found() } else { join(&[&self.nodes[0], &self.nodes[(index + 1) % 3]]) }
    }

    pub async fn start(&mut self, index: usize) -> Result<(), StartError> {
        let member = self.cluster.start(&self.nodes[index], self.beginning(index)).await?;
        self.members.insert(index, member);
        Ok(())
    }

    /// Removes a member by the word of another, and waits until the membership is without it.
    pub async fn remove(&self, by: usize, name: &str) {
        until("the member removed", async || {
            let removed = self.members[&by].remove_member(name, false).await;
            // An earlier try may have done it without an answer.
            let done = matches!(removed, Ok(()) | Err(MembershipError::Unknown { .. }));
            (done, removed)
        })
        .await
        .ok();
        for index in self.members.keys().filter(|index| self.nodes[**index].name().as_str() != name)
        {
            until("a membership without it", async || {
                let status = self.members[index].status();
                (!status.voters.iter().any(|voter| voter == name), status)
            })
            .await;
        }
    }

    /// Waits until the members answer this node: who begins a life asks them once.
    pub async fn reached(&self, index: usize) {
        for name in names(&self.nodes.iter().collect::<Vec<_>>()) {
            if name == *self.nodes[index].name() {
                continue;
            }
            let path = ActorPath::new(name, REGISTRY_ACTOR);
            let registry = self.nodes[index].actor::<RegistryRole>(path);
            until("an answer of a member", async || {
                let answer = registry.ask(Status, LIMIT).await;
                (answer.is_ok(), answer)
            })
            .await
            .unwrap();
        }
    }

    pub async fn stop(&mut self, index: usize) {
        self.members.remove(&index).expect("a running member").stop().await;
    }

    /// Waits until all three vote and agree on a leader.
    pub async fn whole(&self) {
        until("three voters with one leader", async || {
            let seen: Vec<_> = self.members.values().map(Member::status).collect();
            let leader = seen[0].leader.clone();
            let whole =
                seen.iter().all(|status| status.voters.len() == 3 && status.leader == leader);
            (whole && leader.is_some(), seen)
        })
        .await;
    }

    /// The member that leads, by the word of its own.
    pub async fn leader(&self) -> usize {
        let found = until("a leader", async || {
            let leads = |(_, member): &(&usize, &Member)| {
                let status = member.status();
                status.leader.as_deref() == Some(&status.node)
            };
            let leader = self.members.iter().find(leads).map(|(index, _)| *index);
            (leader.is_some(), leader)
        });
        found.await.unwrap()
    }

    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        *self.members.keys().find(|index| **index != leader).unwrap()
    }

    pub fn handle(&self, index: usize) -> RegistryHandle {
        self.members[&index].handle()
    }

    pub async fn agree_on(&self, count: usize) {
        for (index, member) in &self.members {
            assert_eq!(pods(&member.handle()).await, count, "on member {index}");
        }
        until("equal revisions", async || {
            let seen: Vec<_> =
                self.members.values().map(|member| member.status().revision).collect();
            (seen.windows(2).all(|pair| pair[0] == pair[1]), seen)
        })
        .await;
        // Each shows its own state: the same objects, bytes and revisions.
        let mut lists = Vec::new();
        for member in self.members.values() {
            let local = ListRequest {
                consistency: Consistency::Local,
                ..ListRequest::of(Selection::all("pods"))
            };
            lists.push(member.handle().list(local).await.unwrap());
        }
        assert_eq!(lists[0].entries.len(), count);
        assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "members differ");
    }

    pub async fn end(mut self) {
        for index in 0..3 {
            if self.members.contains_key(&index) {
                self.stop(index).await;
            }
        }
        for node in &self.nodes {
            node.stop(Duration::from_secs(5)).await;
        }
    }
}
