//! Spoken digits, recognised by a network that is trained on an Impresario cluster.
//!
//! [`recording`] reads the data, [`features`] makes pictures of it, [`network`] learns them as a
//! plain [`Model`](impresario_actors::training::model::Model).

pub mod features;
pub mod network;
pub mod recording;
