//! The policies that there are.

use crate::policy::Policy;
use crate::{drf, fifo, market, optimus, tiresias};

/// The policies by name.
pub const POLICIES: &[&str] = &["goodput", "optimus", "tiresias", "drf", "fifo"];

/// The policy of this name.
#[must_use]
pub fn named(name: &str) -> Option<Box<dyn Policy + Send + Sync>> {
    Some(match name {
        "goodput" => Box::new(market::Market::default()),
        "optimus" => Box::new(optimus::Optimus),
        "tiresias" => Box::new(tiresias::Tiresias),
        "drf" => Box::new(drf::Drf),
        "fifo" => Box::new(fifo::Fifo),
        _ => return None,
    })
}
