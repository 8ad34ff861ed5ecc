//! Names: of a node, of an actor on it, and the path of both.
//!
//! A node's name is what its certificate says (`CN`). A client process, of which many may share one certificate,
//! appears as `NAME~INCARNATION`, so that two of them do not replace one another.

use serde::{Deserialize, Deserializer, Serialize, de};
use std::{fmt, sync::Arc};

/// The most bytes that a name has: a longer one is refused wherever it is read, and no actor is started under it.
pub const NAME_BYTES: usize = 512;

/// Whether a text may be a name: not too long, and fit for a log line.
pub(crate) fn is_sayable(text: &str) -> bool {
    text.len() <= NAME_BYTES && !text.chars().any(char::is_control)
}

/// Reads a name, if it may be one.
fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    struct Name;

    impl de::Visitor<'_> for Name {
        type Value = Arc<str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a name of at most {NAME_BYTES} bytes without control characters")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Arc<str>, E> {
            if !is_sayable(text) {
                return Err(E::invalid_value(
                    de::Unexpected::Other("a long or broken text"),
                    &self,
                ));
            }
            Ok(text.into())
        }
    }

    deserializer.deserialize_str(Name)
}

macro_rules! name {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read(deserializer).map(Self)
            }
        }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn a_name_that_is_too_long_or_breaks_a_log_line_is_refused_where_it_is_read() {
        for good in ["", "pod/1", "größe", &"x".repeat(NAME_BYTES)] {
            assert_eq!(decode::<ActorName>(&encode(good).unwrap()).unwrap().as_str(), good);
        }
        for bad in ["a\nb", "\u{1b}[31m", "\u{9b}m", &"x".repeat(NAME_BYTES + 1)] {
            assert!(decode::<ActorName>(&encode(bad).unwrap()).is_err(), "{bad:?}");
            assert!(decode::<NodeName>(&encode(bad).unwrap()).is_err(), "{bad:?}");
        }
    }
}
