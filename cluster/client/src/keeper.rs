//! Keeps a client able to come back: it knows who the control members are now and where they are, and its folder says the
//! same, whatever other processes of the folder do.

use crate::address::{QUIC_ADDRESS, reachable};
use crate::objects::RemoteObjects;
use futures_util::stream::{FuturesUnordered, StreamExt};
use impresario_api::catalog::find_kind;
use impresario_registry_api::protocol::Status as MemberState;
use impresario_registry_api::{REGISTRY_ACTOR, RegistryRole};
use impresario_runtime::{ActorNode, ActorPath, NodeName, PeerRole};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a member has to say who the members are.
const MEMBERS_LIMIT: Duration = Duration::from_secs(3);
/// How long a change of the members may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
const FILE: &str = "client.json";
const CREDENTIAL: &str = "credential";

/// What is needed to connect again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The machine through which the client joined, if it is another one.
    pub(crate) machine: Option<IpAddr>,
    pub(crate) members: Vec<(String, SocketAddr)>,
}

/// Where the credential of a folder lies.
pub(crate) fn credential_in(folder: &Path) -> PathBuf {
    folder.join(CREDENTIAL)
}

/// The file that makes a folder whole.
pub(crate) fn file_in(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl Kept {
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file_in(folder))?)?)
    }

    /// Writes it in place of what is there, all of it or nothing. Other processes may do so at the same time, in other
    /// containers too, where numbers of processes say nothing.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join(format!("{FILE}.{:016x}", rand::random::<u64>()));
        let replaced = self.replace(folder, &new);
        if replaced.is_err() {
            // It may not even have come to be.
            let _ = std::fs::remove_file(&new);
        }
        replaced
    }

    fn replace(&self, folder: &Path, new: &Path) -> io::Result<()> {
        let mut written = File::create_new(new)?;
        written.write_all(&serde_json::to_vec_pretty(self)?)?;
        written.sync_all()?;
        std::fs::rename(new, file_in(folder))?;
        File::open(folder)?.sync_all()
    }
}

/// Where a client is at home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Home {
    /// The machine through which it joined, if it is another one.
    pub(crate) machine: Option<IpAddr>,
    /// Where its credential and the members are kept, if they are.
    pub(crate) folder: Option<PathBuf>,
}

/// What a client knows of its cluster, and the task that keeps it true. It ends with it.
#[derive(Debug)]
pub(crate) struct Keeper {
    known: Arc<Known>,
    follows: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Known {
    node: ActorNode,
    objects: RemoteObjects,
    members: watch::Sender<Vec<NodeName>>,
    home: Home,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(follows) = &self.follows {
            follows.abort();
        }
    }
}

impl Keeper {
    /// Keeps what a client of these members knows. Guests and members have others who tell them.
    pub(crate) fn start(
        role: &PeerRole,
        objects: RemoteObjects,
        node: ActorNode,
        members: watch::Sender<Vec<NodeName>>,
        home: Home,
    ) -> Self {
        let known = Arc::new(Known { node, objects, members, home });
        let follows = matches!(role, PeerRole::Client | PeerRole::Admin)
            .then(|| tokio::spawn(known.clone().follow()));
        Self { known, follows }
    }

    /// The control members, as far as they are known.
    pub(crate) fn members(&self) -> Vec<NodeName> {
        self.known.members.borrow().clone()
    }

    /// Asks who the control members are.
    pub(crate) async fn learn_members(&self) {
        self.known.learn_members().await;
    }

    /// Takes the address of a node from its object; whether there is one.
    pub(crate) fn learn_address(&self, name: &NodeName, node: &Value) -> bool {
        self.known.learn_address(name, node)
    }
}

impl Known {
    async fn follow(self: Arc<Self>) {
        // What is in a folder may be old; who was given the members has just been told.
        let mut is_due = self.home.folder.is_some();
        loop {
            if is_due {
                self.learn_members().await;
                self.learn_addresses().await;
                self.keep();
            }
            is_due = true;
            tokio::time::sleep(LOOK_AGAIN.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }

    /// Which nodes are control members is a matter of the registry's membership, which members tell; no
    /// object says it. Where none answers, what is known stands.
    async fn learn_members(&self) {
        let known = self.members.borrow().clone();
        let mut asked: FuturesUnordered<_> = known
            .into_iter()
            .map(|member| {
                let path = ActorPath::new(member, REGISTRY_ACTOR);
                let registry = self.node.actor::<RegistryRole>(path);
                registry.ask(MemberState, MEMBERS_LIMIT)
            })
            .collect();
        let mut newest = None;
        while let Some(answer) = asked.next().await {
            let Ok(state) = answer else { continue };
            let age = (state.term, state.applied);
            if newest.as_ref().is_none_or(|(known, _)| age > *known) {
                newest = Some((age, state));
            }
        }
        let Some((_, state)) = newest else { return };
        let members: Vec<_> = state
            .voters
            .iter()
            .chain(&state.learners)
            .map(|name| NodeName::from(name.as_str()))
            .collect();
        if !members.is_empty() {
            self.members.send_if_modified(|known| {
                let differs = *known != members;
                *known = members;
                differs
            });
        }
    }

    /// Asks where the members are. Of one that has no object, or that cannot be asked about now, what is known stands.
    async fn learn_addresses(&self) {
        let Some(nodes) = find_kind("", "v1", "Node") else { return };
        let members = self.members.borrow().clone();
        for member in members {
            match self.objects.get(&nodes, "", member.as_str()).await {
                Ok(node) => {
                    self.learn_address(&member, &node);
                }
                Err(error) => {
                    tracing::debug!(%member, %error, "where a member is reached is not known anew");
                }
            }
        }
    }

    fn learn_address(&self, name: &NodeName, node: &Value) -> bool {
        let annotations = node.pointer("/metadata/annotations");
        let address = annotations.and_then(|all| all.get(QUIC_ADDRESS)).and_then(Value::as_str);
        let address = address.and_then(|text| text.parse::<SocketAddr>().ok());
        if let Some(address) = address {
            self.node.addresses().set(name.clone(), reachable(address, self.home.machine));
        }
        address.is_some()
    }

    /// Writes down who the members are where that has changed.
    fn keep(&self) {
        let Some(folder) = &self.home.folder else { return };
        let members = self.members.borrow().clone();
        let placed = |name: NodeName| Some((name.to_string(), self.node.addresses().get(&name)?));
        let members: Vec<_> = members.into_iter().filter_map(placed).collect();
        let kept = Kept { machine: self.home.machine, members };
        if kept.members.is_empty() || Kept::read(folder).is_ok_and(|known| known == kept) {
            return;
        }
        if let Err(error) = kept.write(folder) {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "who the control members are now is not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn whoever_reads_while_several_write_finds_a_whole_file_of_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let at: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let of = |count: usize| Kept {
            machine: None,
            members: (0..count).map(|number| (format!("m{number}"), at)).collect(),
        };
        of(1).write(folder.path()).unwrap();
        thread::scope(|scope| {
            let path = folder.path();
            let writers: Vec<_> = [1, 40]
                .map(|count| {
                    scope.spawn(move || {
                        for _ in 0..20 {
                            of(count).write(path).unwrap();
                        }
                    })
                })
                .into();
            while writers.iter().any(|writer| !writer.is_finished()) {
                let found = Kept::read(path).unwrap();
                assert!([of(1), of(40)].contains(&found), "{found:?}");
            }
        });
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "nothing lies beside it");
    }
}
