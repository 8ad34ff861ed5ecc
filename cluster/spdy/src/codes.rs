//! The numbers by which the two ends say why a stream or a session ends.

use std::fmt;

/// Why a stream was reset (draft, 2.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetStatus {
    /// The other end broke the protocol on this stream.
    ProtocolError,
    /// A frame came for a stream that is not open.
    InvalidStream,
    /// The stream was refused before anything was done about it.
    RefusedStream,
    /// The version is not spoken.
    UnsupportedVersion,
    /// Whoever opened it does not want it any more.
    Cancel,
    /// Something failed that is not the other end's doing.
    InternalError,
    /// The other end sent more than a window allows.
    FlowControlError,
    /// A second reply came.
    StreamInUse,
    /// A frame came after the end of the stream.
    StreamAlreadyClosed,
    /// Any other number.
    Other(u32),
}

const RESETS: [ResetStatus; 9] = [
    ResetStatus::ProtocolError,
    ResetStatus::InvalidStream,
    ResetStatus::RefusedStream,
    ResetStatus::UnsupportedVersion,
    ResetStatus::Cancel,
    ResetStatus::InternalError,
    ResetStatus::FlowControlError,
    ResetStatus::StreamInUse,
    ResetStatus::StreamAlreadyClosed,
];

impl ResetStatus {
    pub(crate) fn of_code(code: u32) -> Self {
        let at = usize::try_from(code).unwrap_or(usize::MAX).wrapping_sub(1);
        RESETS.get(at).copied().unwrap_or(Self::Other(code))
    }

    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Other(code) => code,
            // Nine of them.
            named => RESETS.iter().position(|one| *one == named).map_or(0, |at| at as u32 + 1),
        }
    }
}

impl fmt::Display for ResetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::InvalidStream => "INVALID_STREAM",
            Self::RefusedStream => "REFUSED_STREAM",
            Self::UnsupportedVersion => "UNSUPPORTED_VERSION",
            Self::Cancel => "CANCEL",
            Self::InternalError => "INTERNAL_ERROR",
            Self::FlowControlError => "FLOW_CONTROL_ERROR",
            Self::StreamInUse => "STREAM_IN_USE",
            Self::StreamAlreadyClosed => "STREAM_ALREADY_CLOSED",
            Self::Other(code) => return write!(f, "status {code}"),
        })
    }
}

/// Why a session ends (draft, 2.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GoAwayStatus {
    Ok,
    ProtocolError,
    InternalError,
    Other(u32),
}

impl GoAwayStatus {
    pub(crate) fn of_code(code: u32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            other => Self::Other(other),
        }
    }

    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::ProtocolError => 1,
            Self::InternalError => 2,
            Self::Other(code) => code,
        }
    }
}
