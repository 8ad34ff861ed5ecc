//! Spoken digits, recognised by a network that is trained on an Impresario cluster.
//!
//! [`recording`] reads the data, [`features`] makes pictures of it, [`network`] learns them as a
//! plain [`Model`](impresario_actors::training::model::Model). [`guest`] is what runs in the pods of
//! a training job; [`demo`] submits two jobs and tells what happens to them.

pub mod demo;
mod display;
pub mod features;
pub mod guest;
pub mod manifests;
pub mod network;
pub mod recording;
mod watched;
