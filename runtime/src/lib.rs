//! Actors that can be anywhere.
//!
//! An actor is an actix actor; this crate adds what actix has not: an address that works across machines
//! ([`ActorRef`]), supervision and death watch, deadlines, bounded mailboxes, mutual TLS over QUIC and fault injection.
//! It knows nothing of clusters, pods or registries.
//!
//! A message is a type ([`message!`]), what an address can be asked is a [`role!`], and an [`ActorNode`] is a
//! process's end of the network. `tell` is at most once and ordered per pair; `ask` ends by its deadline with a reply
//! or a typed error; a death watch is answered exactly once.

mod address;
mod arbiters;
mod budget;
mod cell;
mod chaos;
mod codec;
mod config;
mod door;
mod error;
mod fault;
mod gate;
mod mailbox;
mod message;
#[cfg(feature = "mutants")]
pub mod mutants;
mod name;
mod net;
mod node;
pub mod pki;
mod reference;
mod refusals;
mod registration;
mod role;
mod runner;
mod stream;
mod supervise;
mod trace;
mod usage;
mod watch;

pub use address::AddressBook;
pub use arbiters::Threads;
pub use budget::Budget;
pub use chaos::{CHAOS_ACTOR, ChaosRole, SetFaults};
pub use codec::{DecodeError, EncodeError, MESSAGE_LIMIT_BYTES, decode, encode};
pub use config::{Limits, NodeConfig, Timing};
pub use door::Doors;
pub use error::{AskError, Refusal, Remedy, SpawnError, StartError, TellError};
pub use fault::{Direction, FaultRule, FaultTable};
pub use gate::{Gate, PermitAll, PermitNone};
pub use impresario_ambient::{Simulated, clock, random, tasks};
pub use mailbox::Mailbox;
pub use message::{Lane, MESSAGE_BYTES, Message, StreamMessage, tag_of};
pub use name::{ActorName, ActorPath, NAME_BYTES, NodeName};
pub use net::event::{LostTells, PeerEvent, PeerUsage};
pub use net::join::{JoinAnswer, JoinDoor, JoinError, JoinRequest, join, join_with};
pub use node::ActorNode;
pub use pki::{ClusterAuthority, Credential, JoinToken, PeerIdentity, PeerRole};
pub use reference::ActorRef;
pub use refusals::{Cause, RefusalCount};
pub use registration::Registration;
pub use role::{Accepts, Role, ServedBy, Serves, Streams};
pub use stream::{Closed, ItemSink, ItemStream, Open, StreamError};
pub use supervise::{Backoff, Group, Intensity, RestartPolicy, SpawnOptions, Strategy};
pub use trace::Trace;
pub use usage::{ActorPage, ActorUsage, MailboxUsage};
pub use watch::{DeathWatch, Reason, Terminated, WatchError};

/// Whether this process has a fault that was built in on purpose; `false` in every build but those with the
/// feature `mutants`.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_chosen($crate::mutants::Mutant::$name)
    };
}

/// Whether this process has a fault that was built in on purpose; `false` in every build but those with the
/// feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// What the macros of this crate expand to; not for use by hand.
#[doc(hidden)]
pub mod macros {
    pub use actix;
}
