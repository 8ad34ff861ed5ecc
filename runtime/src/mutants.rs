//! Faults of the product, built in on purpose and by a feature that only test builds have, so that a
//! harness is seen to find each of them. A hook is one line where the fault is: `mutant!(Name)`, which is
//! `false` in every other build.

use std::sync::OnceLock;
use thiserror::Error;

/// The environment variable that names the fault of this process and of those that it starts.
pub const VARIABLE: &str = "IMPRESARIO_MUTANT";

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// A fault that is built in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name),+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, as the environment variable has it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),+
                }
            }
        }
    };
}

mutants! {
    /// A write is acknowledged though it waits in memory for the next sync.
    AcknowledgeEarly,
    /// A linearizable read is answered from local state.
    StaleReads,
    /// A transaction is applied whatever its fence says.
    FenceUnchecked,
    /// A member keeps other bytes now and then than the others do.
    ReplicasDiverge,
    /// A watch leaves out a revision now and then.
    WatchSkips,
    /// A watch tells a revision twice now and then.
    WatchDoubles,
    /// A pod is bound whether it is bound already or not.
    BindUnchecked,
    /// What a pod held on its node is not given back when the pod is gone.
    ReservationKept,
    /// A node adds what is held to what it has, where it should take it away.
    Overcommit,
    /// The pods of a job are not kept until they are counted.
    FinalizerForgotten,
    /// A node that comes back starts the containers anew that it finds running.
    ContainersRestarted,
    /// A node that comes back runs a container again that it finds ended.
    RunAgain,
    /// One of the pods behind a service is left out.
    EndpointLost,
}

/// The variable names no mutant.
#[derive(Debug, Error)]
#[error("{VARIABLE} is {0:?}, which is none of {all:?}", all = Mutant::ALL)]
pub struct Unknown(String);

fn named() -> Option<Result<Mutant, Unknown>> {
    let name = std::env::var(VARIABLE).ok()?;
    let found = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
    Some(found.ok_or(Unknown(name)))
}

/// The fault of this process, if it has one.
pub fn chosen() -> Result<Option<Mutant>, Unknown> {
    named().transpose()
}

/// Whether this process has this fault.
pub fn is_chosen(mutant: Mutant) -> bool {
    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    *CHOSEN.get_or_init(|| chosen().ok().flatten()) == Some(mutant)
}
