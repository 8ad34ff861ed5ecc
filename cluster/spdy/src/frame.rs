//! The frames of SPDY/3.1 (draft, 2.2 and 2.6), and the numbers of their kinds.

use crate::codes::{GoAwayStatus, ResetStatus};
use crate::headers::Headers;

/// The version that every control frame names.
pub(crate) const VERSION: u16 = 3;
/// Of the head of a frame.
pub(crate) const HEAD_BYTES: usize = 8;
/// What the 24 bits of a length can say.
pub(crate) const MOST_LENGTH: usize = (1 << 24) - 1;
/// The bit that a number of a stream does not have.
pub(crate) const STREAM_BITS: u32 = 0x7fff_ffff;

/// Its sender sends nothing more on this stream.
pub(crate) const FIN: u8 = 1;
/// Whoever is asked to open this stream sends nothing on it.
pub(crate) const UNIDIRECTIONAL: u8 = 2;

pub(crate) const SYN_STREAM: u16 = 1;
pub(crate) const SYN_REPLY: u16 = 2;
pub(crate) const RST_STREAM: u16 = 3;
pub(crate) const SETTINGS: u16 = 4;
pub(crate) const PING: u16 = 6;
pub(crate) const GOAWAY: u16 = 7;
pub(crate) const HEADERS: u16 = 8;
pub(crate) const WINDOW_UPDATE: u16 = 9;

/// The setting that says how many streams its sender takes.
pub(crate) const MAX_CONCURRENT_STREAMS: u32 = 4;

/// A frame that is not data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    SynStream { id: u32, fin: bool, unidirectional: bool, headers: Headers },
    SynReply { id: u32, fin: bool, headers: Headers },
    Reset { id: u32, status: ResetStatus },
    Settings(Vec<Setting>),
    Ping { id: u32 },
    GoAway { last: u32, status: GoAwayStatus },
    Headers { id: u32, fin: bool, headers: Headers },
    WindowUpdate { id: u32, delta: u32 },
}

/// One line of SETTINGS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) id: u32,
    pub(crate) value: u32,
}

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    Control(Control),
    /// A piece of a data frame: `fin` stands on the last one of a frame that ends its stream.
    Data {
        id: u32,
        piece: &'a [u8],
        fin: bool,
    },
    /// A control frame of a kind that is not known, which the draft says to ignore.
    Unknown,
}
