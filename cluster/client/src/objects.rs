//! Objects as programs see them: read, followed and written through the control members.
//!
//! [`RemoteObjects`] is what programs use, [`RemoteDoor`] what nodes do: both ask the actor `objects` of a member,
//! whose rules decide. [`Reader`] makes objects, lists and watches of what any registry gives. What a credential may
//! do is never decided here: it does not depend on the program that holds it.

mod door;
mod list;
mod listing;
pub mod protocol;
mod reader;
pub mod refuse;
mod remote;
pub mod removed;
pub mod spliced;
mod states;
pub mod stored;
mod watch;
mod written;

pub use door::RemoteDoor;
pub use impresario_api::admission::{DeleteOptions, Door, Propagation};
pub use list::{Filter, ListQuery, Listed, VersionMatch, fresh_token};
pub use listing::{Item, Listing, ReadAhead};
pub use reader::Reader;
pub use remote::RemoteObjects;
pub use states::Form;
pub use stored::Stored;
pub use watch::{ItemEvent, ItemWatch, ObjectEvent, ObjectWatch, WatchQuery};
pub use written::{Binding, Deleted, Patch, WriteOptions};

use impresario_api::resource::{Resource, resource_key};
use impresario_registry_api::Key;

/// Where an object is kept.
pub fn key_of(resource: &Resource, namespace: &str, name: &str) -> Key {
    let namespace = if resource.namespaced { namespace } else { "" };
    Key { resource: resource_key(resource), namespace: namespace.into(), name: name.into() }
}
