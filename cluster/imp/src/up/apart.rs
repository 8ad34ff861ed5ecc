//! Clusters of one machine keep apart: each has a part of 127/8 for its pods and services, by its name, and there are
//! fewer parts than names.
//!
//! A new cluster is given a name whose part nobody has: no cluster that runs, whoever's, and none of this user's that was
//! here since the machine was started and could come up again. One that was made before comes up only
//! where no other that runs has its part.

use super::error::UpError;
use super::others::{known, runs};
use crate::layout::{ClusterDir, NodeDir};
use crate::node::{is_slot_served, is_slot_taken, service_network, share_slot};
use impresario_runtime::random;
use std::path::{Path, PathBuf};

/// How many names are drawn to find one with a part that is not in use; there are 32 parts.
const NAMES_DRAWN: usize = 1000;

/// Another folder of this user on this machine that is a cluster's, or a node's that has joined one.
#[derive(Debug)]
pub(super) struct Neighbour {
    folder: PathBuf,
    /// The name of its cluster.
    cluster: String,
}

/// All besides those in `own`, as far as they can be read.
pub(super) fn neighbours(own: &Path) -> Vec<Neighbour> {
    known(own).into_iter().filter_map(neighbour).collect()
}

fn neighbour(folder: PathBuf) -> Option<Neighbour> {
    let made = ClusterDir::new(folder.clone()).cluster().map(|cluster| cluster.name);
    let name = made.or_else(|_| NodeDir::new(folder.clone()).load().map(|node| node.cluster));
    name.ok().map(|cluster| Neighbour { folder, cluster })
}

/// A name whose part of 127/8 nobody has. Where all have been given away, one that nobody uses now.
pub(super) fn free_name(neighbours: &[Neighbour]) -> String {
    let name = || format!("imp-{:08x}", random::random::<u32>());
    let draw = |is_free: &dyn Fn(&str) -> bool| {
        std::iter::repeat_with(name).take(NAMES_DRAWN).find(|name| is_free(name))
    };
    let is_given = |name: &str| neighbours.iter().any(|other| share_slot(&other.cluster, name));
    draw(&|name| !is_given(name) && !is_slot_taken(name))
        .or_else(|| draw(&|name| !is_slot_taken(name)))
        .unwrap_or_else(name)
}

/// Refuses a cluster of which no node runs in its folder, where another that runs has its part of 127/8.
pub(super) fn refuse_shared(name: &str, neighbours: &[Neighbour]) -> Result<(), UpError> {
    let services = service_network(name);
    let running = || neighbours.iter().filter(|other| runs(&other.folder));
    if let Some(other) =
        running().find(|other| other.cluster != name && share_slot(&other.cluster, name))
    {
        return Err(UpError::SharesAddresses { services, path: other.folder.clone() });
    }
    // A node of the same cluster that was joined by hand serves there by right.
    if !running().any(|other| other.cluster == name) && is_slot_served(name) {
        return Err(UpError::AddressesTaken { services });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Driver;
    use crate::layout::{ClusterFile, certificate_lifetime, loopback, make_private_dir};
    use nix::fcntl::Flock;
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::net::{Ipv4Addr, TcpListener};

    /// Names of clusters, one for each part of 127/8.
    fn parts() -> BTreeMap<Ipv4Addr, String> {
        let names = (0..10_000).map(|number| format!("imp-{number:08x}"));
        names.map(|name| (service_network(&name), name)).collect()
    }

    #[test]
    fn a_new_cluster_s_addresses_are_not_those_of_one_that_runs() {
        // Half of all parts of 127/8 that there are.
        let parts = parts().into_keys().step_by(2);
        let held: BTreeMap<_, _> =
            parts.map(|address| (address, TcpListener::bind((address, 0)).unwrap())).collect();
        assert!(held.len() >= 16, "{held:?}");
        for _ in 0..20 {
            let name = free_name(&[]);
            assert!(!held.contains_key(&service_network(&name)), "{name} is where another is");
        }
    }

    /// A cluster in a folder of its own.
    struct Made {
        dir: ClusterDir,
        name: String,
    }

    impl Made {
        fn new(folder: &Path, name: &str) -> Self {
            let dir = ClusterDir::new(folder.to_owned());
            make_private_dir(dir.path()).unwrap();
            let cluster = ClusterFile {
                name: name.to_owned(),
                api: ([127, 0, 0, 1], 0).into(),
                driver: Driver::Process,
                address: loopback(),
                listen: loopback(),
                whole_machine: false,
                chaos: false,
                certificate_lifetime: certificate_lifetime(),
            };
            dir.save_cluster(&cluster).unwrap();
            Self { dir, name: name.to_owned() }
        }

        fn neighbour(&self) -> Neighbour {
            neighbour(self.dir.path().to_owned()).unwrap()
        }

        /// Runs until the result is dropped.
        fn comes_up(&self) -> Flock<File> {
            let node = self.dir.node("node-1");
            let claim = node.claim().unwrap();
            std::fs::write(node.file(), "{}").unwrap();
            claim
        }

        fn refused(&self, neighbours: &[Neighbour]) -> Option<String> {
            refuse_shared(&self.name, neighbours).err().map(|error| error.to_string())
        }
    }

    /// Two clusters that have the part of this number, as two may have that were made by turns. Tests have a part each.
    fn alike(scratch: &Path, part: usize) -> (Made, Made) {
        let name = parts().into_values().nth(part).unwrap();
        let mut names = (0..1000).map(|number| format!("other-{number}"));
        let other = names.find(|other| share_slot(other, &name)).unwrap();
        (Made::new(&scratch.join("a"), &name), Made::new(&scratch.join("b"), &other))
    }

    #[test]
    fn a_cluster_that_is_down_keeps_its_addresses_and_a_new_one_is_given_others() {
        let scratch = tempfile::tempdir().unwrap();
        let mut parts = parts();
        // One that no other test uses, and no cluster that runs here.
        let odd = parts.values().skip(1).step_by(2).skip(12);
        let free = odd.clone().find(|name| !is_slot_taken(name)).cloned().expect("it is free");
        parts.remove(&service_network(&free));
        let made = parts.values().map(|name| Made::new(&scratch.path().join(name), name));
        let down: Vec<_> = made.map(|made| made.neighbour()).collect();
        assert!(share_slot(&free_name(&down), &free));
    }

    #[test]
    fn one_that_was_made_before_does_not_come_up_where_another_has_its_addresses() {
        let scratch = tempfile::tempdir().unwrap();
        let (a, b) = alike(scratch.path(), 21);
        // `imp up` A, `imp down` A, `imp up` B, `imp up` A.
        drop(a.comes_up());
        let runs = b.comes_up();
        let refused = a.refused(&[b.neighbour()]).unwrap();
        let folder = b.dir.path().display().to_string();
        assert!(refused.contains(&folder) && refused.contains("imp down --data-dir"), "{refused}");
        drop(runs);
        assert_eq!(a.refused(&[b.neighbour()]), None, "it is down");
    }

    #[test]
    fn one_whose_addresses_somebody_else_s_cluster_has_is_refused_and_its_own_nodes_are_not_meant()
    {
        let scratch = tempfile::tempdir().unwrap();
        let (a, _) = alike(scratch.path(), 23);
        let _served = TcpListener::bind((service_network(&a.name), 0)).unwrap();
        let refused = a.refused(&[]).unwrap();
        assert!(refused.contains("another user"), "{refused}");
        // A folder of the same cluster's.
        let joined = Made::new(&scratch.path().join("joined"), &a.name);
        let _runs = joined.comes_up();
        assert_eq!(a.refused(&[joined.neighbour()]), None);
    }
}
