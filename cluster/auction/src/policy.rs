//! What every policy is.

use crate::picture::Picture;
use crate::{Model, drf, fifo, market, optimus, tiresias};

/// For each job of the picture, in its order, a node for each GPU that it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Indices into the picture's nodes.
    pub allocations: Vec<Vec<usize>>,
}

/// Divides a cluster.
pub trait Policy {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether it chooses sizes; else jobs get what their users asked for (`max_replicas`), or
    /// nothing.
    fn is_elastic(&self) -> bool {
        true
    }

    /// Whether it chooses batches; else jobs train with what their users asked for.
    fn chooses_batch(&self) -> bool {
        false
    }

    /// Decides from the picture, and from each job's models in the picture's order. Allocations
    /// never pass what a node has, whatever the picture.
    fn decide(&self, picture: &Picture, models: &[Model]) -> Decision;
}

/// The policies by name.
pub const POLICIES: &[&str] = &["goodput", "optimus", "tiresias", "drf", "fifo"];

/// The policy of this name.
#[must_use]
pub fn named(name: &str) -> Option<Box<dyn Policy>> {
    Some(match name {
        "goodput" => Box::new(market::Market::default()),
        "optimus" => Box::new(optimus::Optimus),
        "tiresias" => Box::new(tiresias::Tiresias),
        "drf" => Box::new(drf::Drf),
        "fifo" => Box::new(fifo::Fifo),
        _ => return None,
    })
}
