//! Two processes of one name: whether the one that dials may take the place of the one that is linked.
//!
//! A process that was killed says no goodbye, and its successor comes while its link still stands. A copy of a member's
//! directory, started beside the original, looks just the same. So the earlier process is listened for first: only a
//! silent one is replaced.

use super::{handshake::Arrival, link::Link};
use crate::{config::Timing, pki::PeerRole};
use impresario_ambient::clock;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// How long what was sent before may take to be read.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// What became of one who dialled while a link stands.
pub(super) enum Answered {
    /// It was taken, if it took the answer.
    Linked(Option<Arc<Link>>),
    /// Another process of a name whose earlier process is silent.
    Alone(Arrival),
    /// Another process of a name whose earlier process lives.
    Second(Arrival),
}

/// Whether it would be the second process of a name that one process has at a time: a machine's of the cluster. What a
/// copy says must not be taken for the original's.
pub(super) fn is_doubtful(arrival: &Arrival, link: &Link) -> bool {
    matches!(arrival.identity.role, PeerRole::Control | PeerRole::Node)
        && arrival.hello.incarnation > link.incarnation
}

/// Listens for the process at the other end of a link while another one of its name waits, and has it spoken to by
/// `speak`. The transport confirms what it is sent, however busy the process is. Whoever dials waits for `dial` at most.
pub(super) async fn listen(
    arrival: Arrival,
    link: Arc<Link>,
    timing: &Timing,
    speak: impl FnOnce(),
) -> Answered {
    let patience = timing.heartbeat.min(timing.dial / 2);
    let look = (patience / 10).min(ON_ITS_WAY);
    let until = clock::now() + patience;
    // What was on its way when the newcomer came says nothing about now.
    sleep(look).await;
    // What counts has been decrypted, and is no repetition: a datagram that carries the link's number can be sent again
    // by whoever has seen it.
    let heard = || {
        let frames = link.connection.stats().frame_rx;
        frames.acks + frames.stream
    };
    let before = heard();
    speak();
    while clock::now() < until {
        sleep(look).await;
        if heard() > before {
            return Answered::Second(arrival);
        }
    }
    Answered::Alone(arrival)
}
