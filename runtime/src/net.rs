//! The network half of an actor node: QUIC connections, lanes, failure detection, joining.

mod bulk;
mod detector;
mod dispatch;
mod driven;
mod driver;
mod enter;
mod entrance;
pub(crate) mod event;
mod frame;
mod handshake;
pub(crate) mod join;
mod lane;
mod link;
pub(crate) mod network;
mod outbound;
mod parked;
mod peer;
mod takeover;
mod terms;
mod urgent;
mod watches;
mod wire;
mod work;
