//! The network half of an actor node: QUIC connections, lanes, failure detection, joining.

pub(crate) mod event;
pub(crate) mod join;
