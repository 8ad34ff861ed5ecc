//! Why a cluster does not come up.

use crate::down::DownError;
use crate::layout::LayoutError;
use crate::rest::RestError;
use impresario_runtime::pki::PkiError;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why the cluster is not up.
#[derive(Debug, Error)]
pub enum UpError {
    /// A file of the cluster is unusable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A user's certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A control member more, or fewer, than the cluster was made with.
    #[error(
        "{path} holds a cluster with {found} control members, not {asked}: leave --control out; `imp member \
         add` and `imp member remove` change who they are"
    )]
    Control {
        /// The folder.
        path: PathBuf,
        /// What it has.
        found: usize,
        /// What was asked for.
        asked: usize,
    },
    /// Something else than the cluster was made with.
    #[error(
        "the cluster in {path} was made with {flag} {made}, which cannot be changed to {asked}: leave \
         {flag} out, or make another cluster with --data-dir"
    )]
    Made {
        /// The folder.
        path: PathBuf,
        /// The flag.
        flag: &'static str,
        /// What it was.
        made: String,
        /// What was asked for.
        asked: String,
    },
    /// The machine has no address that others reach.
    #[error(
        "cannot tell at which address others reach this machine ({0}): say it with --address IP"
    )]
    NoAddress(io::Error),
    /// Nodes that pretend cannot be added as asked for.
    #[error(transparent)]
    Hollow(#[from] HollowUpError),
    /// A node's process could not be ended.
    #[error(transparent)]
    Down(#[from] DownError),
    /// No port is free.
    #[error("cannot find a free port: {0}")]
    Port(io::Error),
    /// The API port is taken by somebody else.
    #[error(
        "cannot listen on {address} ({source}): choose another port with --api-port, or 0 for any; \
         --listen takes an address of this machine"
    )]
    ApiPort {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address of this cluster's API was taken while it was down.
    #[error(
        "the API of this cluster is at {address}, where another program listens by now ({source}): end that \
         one first (if it is another cluster, by `imp down --data-dir` with its folder); the address cannot be changed"
    )]
    ApiTaken {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another cluster of this user that runs has the same addresses.
    #[error(
        "the services of this cluster have addresses from {services} on, and so have those of the cluster in {path}, which \
         runs: end that one first (`imp down --data-dir {path}`). The addresses cannot be changed: for both to run, one \
         is to be made anew (`imp down --purge`, then `imp up`)"
    )]
    SharesAddresses {
        /// The first address of the services.
        services: Ipv4Addr,
        /// The folder of the other one.
        path: PathBuf,
    },
    /// A cluster that this user does not know of has the same addresses.
    #[error(
        "the services of this cluster have addresses from {services} on, where a cluster of another user or in another \
         place of this machine serves: end that one first. The addresses cannot be changed: for both to run, one is to be \
         made anew (`imp down --purge`, then `imp up`)"
    )]
    AddressesTaken {
        /// The first address of the services.
        services: Ipv4Addr,
    },
    /// A process could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// This program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process ended at once.
    #[error("node {name} ended while starting; its log ({log}) ends with:\n{tail}")]
    Ended {
        /// The node.
        name: String,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// The file that says how to reach the API cannot be used.
    #[error(transparent)]
    Api(RestError),
    /// Not all nodes became Ready.
    #[error(
        "not Ready after {limit:?}: {missing}{why}; look into the log in DIR/nodes/NAME, or of hollow nodes in DIR/hollow/GROUP \
         (`imp up --hollow 0` takes these away)"
    )]
    NotReady {
        /// How long it was waited.
        limit: Duration,
        /// Which nodes.
        missing: String,
        /// What the last look at them failed at, if it did.
        why: String,
    },
}

/// Why nodes that pretend are not added.
#[derive(Debug, Error)]
pub enum HollowUpError {
    /// There are more of them already.
    #[error(
        "the cluster in {path} has {found} hollow nodes, not {asked}, and they only become more: leave --hollow out, or \
         take all of them away with --hollow 0"
    )]
    Fewer {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        found: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// They have something else.
    #[error(
        "the hollow nodes of the cluster in {path} were made with {flag} {made}, which cannot be changed to {asked}: \
         leave {flag} out, or add more of them with --hollow"
    )]
    Size {
        /// The folder.
        path: PathBuf,
        /// The flag.
        flag: &'static str,
        /// What it was.
        made: u64,
        /// What was asked for.
        asked: u64,
    },
    /// There is nothing that could have this size.
    #[error(
        "--hollow 0 takes the hollow nodes away: leave --hollow-cpu, --hollow-memory and --hollow-pods out"
    )]
    SizeOfNone,
    /// A machine that joined has the name of one.
    #[error(
        "a node of this cluster is called {0} already, and is not hollow: remove it, or make another cluster with --data-dir"
    )]
    Name(String),
    /// The nodes of the cluster cannot be read.
    #[error(transparent)]
    Api(RestError),
    /// Objects of nodes that are to go cannot be deleted.
    #[error("hollow nodes are left ({0}): `imp up --hollow 0` takes them away")]
    Left(RestError),
}
