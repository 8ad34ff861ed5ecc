//! Names: of a node, of an actor on it, and the path of both.
//!
//! A node's name is what its certificate says (`CN`). A client process, of which many may share one certificate,
//! appears as `NAME~INCARNATION`, so that two of them do not replace one another.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

macro_rules! name {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The name of an actor node, unique in its cluster.
    NodeName
}
name! {
    /// The name of an actor on its node: `node`, `scheduler/default`, `pod/UID`.
    ActorName
}

/// Where an actor is: the serializable form of a reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorPath {
    /// The node that the actor lives on.
    pub node: NodeName,
    /// Its name there.
    pub actor: ActorName,
}

impl ActorPath {
    /// The path of `actor` on `node`.
    pub fn new(node: impl Into<NodeName>, actor: impl Into<ActorName>) -> Self {
        Self { node: node.into(), actor: actor.into() }
    }
}

impl fmt::Display for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.actor)
    }
}
