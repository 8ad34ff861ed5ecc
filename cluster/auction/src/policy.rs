//! What every policy is.

use crate::Model;
use crate::picture::Picture;

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
