//! What touches a machine: containers, their volumes, addresses, services, names, devices and figures.
//!
//! Everything here is chosen behind one trait or plain type per concern and knows no actors:
//! an actor drives it, a test drives it, both see the same behaviour. Nothing is left behind
//! outside the node's data directory once a pod is removed.

pub mod address;
pub mod ask;
pub mod container;
mod descriptor;
pub mod devices;
pub mod dns;
pub mod docker;
pub mod forward;
pub mod hollow;
#[cfg(test)]
mod left_out;
pub mod machine;
mod mount_table;
pub mod opening;
mod private;
pub mod process;
mod program;
pub mod proxy;
pub mod shim;
pub mod volumes;

pub use container::{
    ContainerDriver, ContainerId, ContainerSpec, ContainerState, ContainerStats, Exit, Found,
    LogLine, LogOptions, LogStream, PodSandbox, StartError, Stream, Used,
};
pub use private::{hide, nodes_of_this_machine};
pub use program::Program;
