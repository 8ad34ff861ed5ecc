//! The tasks of a link.
//!
//! When it ends they end, before the next connection begins, so that two never read or write for one peer at a time.

use super::{Link, Runs};
use crate::{
    fault::Direction,
    message::Lane,
    net::{
        bulk, dispatch,
        frame::{ENVELOPE_BYTES, LANE_FRAME_LIMIT_BYTES},
        handshake::code,
        network::Network,
        peer::Peer,
        wire::{FrameReader, WireError},
    },
};
use impresario_ambient::{clock, random};
use quinn::{RecvStream, SendStream};
use std::sync::Arc;
use tokio::{sync::mpsc, task::JoinSet};

/// Bytes that name a lane at the start of its stream.
const CONTROL_BYTE: u8 = 1;
const WORK_BYTE: u8 = 2;
/// The largest lane frame behind its length.
const FRAME_LIMIT_BYTES: usize = LANE_FRAME_LIMIT_BYTES + ENVELOPE_BYTES + 8;

/// The tasks of a link, and those that they have started.
pub(crate) struct Tasks {
    own: JoinSet<()>,
    ended: mpsc::Receiver<Runs>,
}

impl Tasks {
    /// Ends all of them, and waits until none runs.
    pub(crate) async fn shutdown(mut self) {
        self.own.shutdown().await;
        // Nothing is ever sent: it ends with the last of them.
        drop(self.ended.recv().await);
    }
}

/// Starts the tasks of a link.
pub(crate) fn start(network: &Arc<Network>, peer: &Arc<Peer>, link: &Arc<Link>) -> Tasks {
    let mut tasks = JoinSet::new();
    let (runs, ended) = mpsc::channel(1);
    let runs = Runs { _runs: runs };
    for lane in [Lane::Control, Lane::Work] {
        let (network, peer, link) = (network.clone(), peer.clone(), link.clone());
        let tasks_of = network.tasks.clone();
        tasks.spawn_on(
            async move { report("write", &peer, write_lane(&network, &peer, &link, lane).await) },
            &tasks_of,
        );
    }
    let everything = (network.clone(), peer.clone(), link.clone());
    tasks.spawn_on(
        async move {
            let (network, peer, link) = everything;
            tokio::join!(
                accept_lanes(&network, &peer, &link, &runs),
                bulk::accept(&network, &peer, &link, &runs)
            );
        },
        &network.tasks,
    );
    Tasks { own: tasks, ended }
}

fn report(what: &str, peer: &Peer, outcome: Result<(), impl std::fmt::Display>) {
    if let Err(error) = outcome {
        tracing::debug!(peer = %peer.name, %error, "lane {what} ended");
    }
}

/// Writes a lane: as much per wake-up as waits.
async fn write_lane(
    network: &Network,
    peer: &Peer,
    link: &Link,
    lane: Lane,
) -> Result<(), quinn::WriteError> {
    let mut stream: SendStream = link.connection.open_uni().await?;
    let (byte, priority) = match lane {
        Lane::Control => (CONTROL_BYTE, 2),
        Lane::Work | Lane::Bulk => (WORK_BYTE, 1),
    };
    if stream.set_priority(priority).is_err() {
        return Err(quinn::WriteError::ClosedStream);
    }
    stream.write_all(&[byte]).await?;
    let queue = peer.lane(lane);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        queue.take(&mut buffer).await;
        network.faults.uncut(&peer.name, peer.is_healer(), Direction::Send).await;
        match lane {
            Lane::Control => link.urgent.write_first(&mut stream, &buffer).await?,
            Lane::Work | Lane::Bulk => link.urgent.write_after(&mut stream, &buffer).await?,
        }
    }
}

/// Reads the peer's lanes: one stream for each, and no others.
async fn accept_lanes(network: &Arc<Network>, peer: &Arc<Peer>, link: &Arc<Link>, runs: &Runs) {
    let mut readers = JoinSet::new();
    let (mut control, mut work) = (false, false);
    loop {
        let stream = tokio::select! {
            stream = link.connection.accept_uni() => stream,
            Some(_) = readers.join_next() => {
                // A lane ends with its connection or by a breach of the protocol: either way the link is over.
                link.connection.close(code::PROTOCOL, b"a lane ended");
                return;
            }
        };
        let Ok(mut stream) = stream else { return };
        let mut byte = [0];
        let lane = match stream.read_exact(&mut byte).await {
            Ok(()) if byte[0] == CONTROL_BYTE && !control => Lane::Control,
            Ok(()) if byte[0] == WORK_BYTE && !work => Lane::Work,
            _ => {
                link.connection.close(code::PROTOCOL, b"not a lane");
                return;
            }
        };
        control |= lane == Lane::Control;
        work |= lane == Lane::Work;
        let everything = (network.clone(), peer.clone(), link.clone(), runs.clone());
        readers.spawn(async move {
            let (network, peer, link, _runs) = everything;
            report("read", &peer, read_lane(&network, &peer, &link, lane, stream).await);
        });
    }
}

/// Reads one lane: each frame passes the fault hook, then the sequence check, then is dispatched, in order.
async fn read_lane(
    network: &Arc<Network>,
    peer: &Arc<Peer>,
    link: &Arc<Link>,
    lane: Lane,
    stream: RecvStream,
) -> Result<(), WireError> {
    let mut reader = FrameReader::new(stream, FRAME_LIMIT_BYTES);
    let mut held = None;
    while let Some(frame) = reader.next().await? {
        let arrived = clock::now();
        let fate =
            network.faults.fate(&peer.name, peer.is_healer(), Direction::Receive, random::random);
        if fate.dropped {
            link.break_off();
            return Ok(());
        }
        network.faults.uncut(&peer.name, peer.is_healer(), Direction::Receive).await;
        if !fate.delay.is_zero() {
            tokio::time::sleep_until((arrived + fate.delay).into()).await;
        }
        peer.hear();
        if fate.overtaken && held.is_none() && reader.has_another() {
            held = Some(frame);
            continue;
        }
        dispatch::lane_frame(network, peer, link, lane, &frame)?;
        if fate.doubled {
            dispatch::lane_frame(network, peer, link, lane, &frame)?;
        }
        if let Some(overtaken) = held.take() {
            dispatch::lane_frame(network, peer, link, lane, &overtaken)?;
        }
    }
    Ok(())
}
