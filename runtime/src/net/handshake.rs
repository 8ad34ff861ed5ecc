//! The first words on a connection, and which of two simultaneous connections stays.
//!
//! The node that dialled says its incarnation and the newest connection (generation) that it knows of; the other answers
//! after [`judge`]. Both ends come to the same decision:
//!
//! ```text
//! both dial at once   the dial of the smaller name stays: it holds the other's until its own is settled
//! a link stands       a dial that began before its sender knew of the link is turned away; any other replaces the link,
//!                     for who dials has none
//! new incarnation     replaces the old; an older one is turned away
//! ```

use super::{
    frame::{Greeting, Hello},
    wire::{FrameReader, WireError, send_value},
};
use crate::{
    name::NodeName,
    pki::{PeerIdentity, PkiError, validity},
};
use quinn::{Connection, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use std::{ops::Deref, time::SystemTime};
use thiserror::Error;

/// How far ahead of what we know a peer's count of connections may be.
const AHEAD: u64 = 1 << 32;
/// The largest greeting.
const GREETING_LIMIT_BYTES: usize = 256;

/// Why connections are closed.
pub(crate) mod code {
    use quinn::VarInt;

    /// The node stops: it is lost at once.
    pub(crate) const GOODBYE: VarInt = VarInt::from_u32(1);
    /// Another connection between the two is used.
    pub(crate) const REPLACED: VarInt = VarInt::from_u32(2);
    /// Nothing was heard for too long.
    pub(crate) const SILENT: VarInt = VarInt::from_u32(3);
    /// No certificate of the cluster, or not the one expected.
    pub(crate) const STRANGER: VarInt = VarInt::from_u32(4);
    /// Something was sent that is not of the protocol.
    pub(crate) const PROTOCOL: VarInt = VarInt::from_u32(5);
    /// All is said (joining).
    pub(crate) const DONE: VarInt = VarInt::from_u32(6);
    /// Lost by a fault rule.
    pub(crate) const FAULT: VarInt = VarInt::from_u32(7);
    /// There is no room for it now.
    pub(crate) const FULL: VarInt = VarInt::from_u32(8);
}

/// A connection that closes when this is dropped, unless it was taken into use: who holds a clone of it does not hold it
/// open.
pub(crate) struct Unused {
    connection: Connection,
    is_taken: bool,
}

impl Unused {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, is_taken: false }
    }

    pub(crate) fn take(mut self) -> Connection {
        self.is_taken = true;
        self.connection.clone()
    }
}

impl Deref for Unused {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        if !self.is_taken {
            // Changes nothing where it is closed already.
            self.connection.close(code::REPLACED, b"not used");
        }
    }
}

/// A connection that was dialled to us and waits for an answer.
pub(crate) struct Arrival {
    pub(crate) connection: Unused,
    pub(crate) identity: PeerIdentity,
    /// When its certificate runs out.
    pub(crate) until: SystemTime,
    pub(crate) hello: Hello,
    pub(crate) reply: SendStream,
}

/// Why a dial gave no connection.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("no address is known for it")]
    NoAddress,
    #[error("the link is cut by a fault rule")]
    Severed,
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Connect(#[from] quinn::ConnectError),
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Identity(#[from] PkiError),
    #[error("its certificate is that of {found}")]
    Stranger { found: NodeName },
    #[error("another connection is under way")]
    Busy,
    #[error("another process of this node's name is connected there: stop one of them")]
    TurnedAway,
    #[error("an older process of its name answered: stop one of them")]
    Superseded,
}

/// What stands at our end when a connection arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The newest incarnation that is known.
    pub(crate) incarnation: Option<u64>,
    /// The newest generation that is known.
    pub(crate) generation: u64,
    /// Whether a link stands that we dialled ourselves: the peer numbered it, so it knows of it.
    pub(crate) dialled_link: bool,
}

/// What to do with a connection that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Take it as this generation.
    Accept(u64),
    Busy,
    Superseded,
}

/// Decides about a connection that arrives.
pub(crate) fn judge(standing: Standing, hello: &Hello) -> Judgement {
    match standing.incarnation {
        Some(known) if hello.incarnation < known => Judgement::Superseded,
        Some(known)
            if hello.incarnation == known
                && standing.dialled_link
                && hello.generation < standing.generation =>
        {
            Judgement::Busy
        }
        // It counts connections; none can be so far ahead, and the number must not run out.
        _ => {
            let shown = hello.generation.min(standing.generation.saturating_add(AHEAD));
            Judgement::Accept(standing.generation.max(shown).saturating_add(1))
        }
    }
}

/// Who is at the other end, by its certificate, and until when that holds.
pub(crate) fn identity_of(
    connection: &Connection,
) -> Result<Option<(PeerIdentity, SystemTime)>, PkiError> {
    let Some(certificates) = connection.peer_identity() else { return Ok(None) };
    let Ok(certificates) = certificates.downcast::<Vec<CertificateDer<'static>>>() else {
        return Ok(None);
    };
    let Some(leaf) = certificates.first() else { return Ok(None) };
    Ok(Some((PeerIdentity::from_certificate(leaf)?, validity(leaf)?.1)))
}

/// Says hello on a fresh connection; gives the peer's incarnation and the generation.
pub(crate) async fn greet(connection: &Connection, hello: &Hello) -> Result<(u64, u64), DialError> {
    let (mut send, receive) = connection.open_bi().await?;
    send_value(&mut send, hello).await?;
    match FrameReader::new(receive, GREETING_LIMIT_BYTES).value().await? {
        Greeting::Welcome { incarnation, generation } => Ok((incarnation, generation)),
        Greeting::Busy => Err(DialError::Busy),
        Greeting::Superseded => Err(DialError::TurnedAway),
    }
}

/// Hears the hello on a connection that arrived.
pub(crate) async fn hear(connection: &Connection) -> Result<(Hello, SendStream), WireError> {
    let (reply, receive) = connection.accept_bi().await.map_err(quinn::ReadError::from)?;
    let hello = FrameReader::new(receive, GREETING_LIMIT_BYTES).value().await?;
    Ok((hello, reply))
}

impl Arrival {
    /// Answers; `false` when the connection is gone already.
    pub(crate) async fn answer(&mut self, greeting: &Greeting) -> bool {
        send_value(&mut self.reply, greeting).await.is_ok() && self.reply.finish().is_ok()
    }

    /// Turns the connection away. The dialler closes it when it has read the answer, or it times out.
    pub(crate) async fn turn_away(mut self, greeting: Greeting) {
        if self.answer(&greeting).await {
            // The answer is delivered when the stream is acknowledged or the dialler closes.
            let _ = self.reply.stopped().await;
        }
        self.connection.close(code::REPLACED, b"turned away");
    }
}

/// Closes a connection that is not used.
pub(crate) fn close(connection: &Connection, code: VarInt, words: &str) {
    connection.close(code, words.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(incarnation: u64, generation: u64) -> Hello {
        Hello { incarnation, generation }
    }

    #[test]
    fn who_dials_without_a_link_is_taken_and_who_dialled_before_it_had_one_is_not() {
        let dialled = Standing { incarnation: Some(7), generation: 4, dialled_link: true };
        let accepted = Standing { dialled_link: false, ..dialled };
        let table = [
            (Standing::default(), hello(7, 0), Judgement::Accept(1)),
            (dialled, hello(7, 3), Judgement::Busy),
            (dialled, hello(7, 4), Judgement::Accept(5)),
            (dialled, hello(8, 0), Judgement::Accept(5)),
            (dialled, hello(6, 9), Judgement::Superseded),
            (accepted, hello(7, 3), Judgement::Accept(5)),
            (accepted, hello(7, 9), Judgement::Accept(10)),
            (accepted, hello(7, u64::MAX), Judgement::Accept(4 + AHEAD + 1)),
        ];
        for (standing, hello, expected) in table {
            assert_eq!(judge(standing, &hello), expected, "{standing:?} {hello:?}");
        }
    }
}
