//! What comes of a policy: who is where.

/// For each job of the picture, in its order, a node for each GPU that it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Indices into the picture's nodes.
    pub allocations: Vec<Vec<usize>>,
}
