//! What the rules of a kind are told besides the object.

use crate::allocator::Allocator;
use jiff::Timestamp;

/// What a request brings along besides the object.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The namespace in the path; empty for resources without.
    pub namespace: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// The time of the request.
    pub now: Timestamp,
    /// Draws what the server draws.
    pub allocator: &'a dyn Allocator,
}
