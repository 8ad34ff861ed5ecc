//! Bytes as frames, however they are cut into pieces.
//!
//! A control frame is kept until all of it is there, up to [`Limits::control_frame_bytes`]; of a data frame nothing is
//! kept: it is passed on piece by piece.

use crate::codes::{GoAwayStatus, ResetStatus};
use crate::compression::Inflater;
use crate::error::Violation;
use crate::frame::{
    self, Control, FIN, HEAD_BYTES, Received, STREAM_BITS, Setting, UNIDIRECTIONAL, VERSION,
};
use crate::headers::Headers;
use crate::limits::Limits;

/// Reads the frames of one direction of a session, in order.
pub(crate) struct Decoder {
    inflater: Inflater,
    limits: Limits,
    head: Vec<u8>,
    body: Vec<u8>,
    within: Within,
}

/// What the next byte belongs to.
#[derive(Clone, Copy)]
enum Within {
    Head,
    Control { kind: u16, flags: u8, length: usize },
    Data { id: u32, fin: bool, left: usize },
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Self {
        let (head, body) = (Vec::with_capacity(HEAD_BYTES), Vec::new());
        Self { inflater: Inflater::new(), limits, head, body, within: Within::Head }
    }

    /// Whether the last byte that came was the last one of a frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        matches!(self.within, Within::Head) && self.head.is_empty()
    }

    /// The next frame, or piece of one; `None` where more bytes are needed. It takes what it read off `input`.
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Received<'a>>, Violation> {
        loop {
            match self.within {
                Within::Head => {
                    take(input, &mut self.head, HEAD_BYTES);
                    let Some(head) = self.head.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
                    let head = *head;
                    self.head.clear();
                    self.within = self.read_head(head)?;
                    if let Within::Data { id, fin, left: 0 } = self.within {
                        self.within = Within::Head;
                        return Ok(Some(Received::Data { id, piece: &[], fin }));
                    }
                }
                Within::Control { kind, flags, length } => {
                    take(input, &mut self.body, length);
                    if self.body.len() < length {
                        return Ok(None);
                    }
                    self.within = Within::Head;
                    let body = std::mem::take(&mut self.body);
                    return self.control(kind, flags, &body).map(Some);
                }
                Within::Data { id, fin, left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let (piece, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    let left = left - piece.len();
                    self.within =
                        if left == 0 { Within::Head } else { Within::Data { id, fin, left } };
                    return Ok(Some(Received::Data { id, piece, fin: fin && left == 0 }));
                }
            }
        }
    }

    fn read_head(&self, head: [u8; HEAD_BYTES]) -> Result<Within, Violation> {
        let [a, b, c, d, flags, length @ ..] = head;
        let length = length.into_iter().fold(0, |sum, byte| sum << 8 | usize::from(byte));
        if a & 0x80 == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            return match id {
                0 => Err(Violation::ZeroStream { kind: "DATA" }),
                _ => Ok(Within::Data { id, fin: flags & FIN != 0, left: length }),
            };
        }
        let found = u16::from_be_bytes([a & 0x7f, b]);
        if found != VERSION {
            return Err(Violation::Version { found });
        }
        let limit = self.limits.control_frame_bytes;
        if length > limit {
            return Err(Violation::ControlTooLong { length, limit });
        }
        Ok(Within::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }

    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        body: &[u8],
    ) -> Result<Received<'static>, Violation> {
        let fin = flags & FIN != 0;
        let control = match kind {
            frame::SYN_STREAM => {
                let ([id, _], rest) = numbers("SYN_STREAM", body)?;
                let id = stream("SYN_STREAM", id)?;
                // Priority and slot mean nothing to us.
                let block = rest.get(2..).ok_or_else(|| wrong("SYN_STREAM", body))?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Control::SynStream { id, fin, unidirectional, headers: self.headers(block)? }
            }
            frame::SYN_REPLY => {
                let ([id], block) = numbers("SYN_REPLY", body)?;
                let id = stream("SYN_REPLY", id)?;
                Control::SynReply { id, fin, headers: self.headers(block)? }
            }
            frame::HEADERS => {
                let ([id], block) = numbers("HEADERS", body)?;
                let id = stream("HEADERS", id)?;
                Control::Headers { id, fin, headers: self.headers(block)? }
            }
            frame::RST_STREAM => {
                let [id, status] = exactly("RST_STREAM", body)?;
                let status = ResetStatus::of_code(status);
                Control::Reset { id: stream("RST_STREAM", id)?, status }
            }
            frame::SETTINGS => Control::Settings(settings(body)?),
            frame::PING => {
                let [id] = exactly("PING", body)?;
                Control::Ping { id }
            }
            frame::GOAWAY => {
                let [last, status] = exactly("GOAWAY", body)?;
                let status = GoAwayStatus::of_code(status);
                Control::GoAway { last: last & STREAM_BITS, status }
            }
            frame::WINDOW_UPDATE => {
                let [id, delta] = exactly("WINDOW_UPDATE", body)?;
                // 3.1 has a window of the session too, which is stream 0.
                Control::WindowUpdate { id: id & STREAM_BITS, delta: delta & STREAM_BITS }
            }
            _ => return Ok(Received::Unknown),
        };
        Ok(Received::Control(control))
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, Violation> {
        let plain = self.inflater.block(block, self.limits.header_bytes())?;
        Headers::of_block(&plain, self.limits.header_pairs)
    }

    /// Bytes that this has room for.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.head.capacity() + self.body.capacity()
    }
}

/// Moves bytes from `input` until `kept` has `wanted`.
fn take(input: &mut &[u8], kept: &mut Vec<u8>, wanted: usize) {
    let missing = wanted.saturating_sub(kept.len()).min(input.len());
    let (now, later) = input.split_at(missing);
    kept.extend_from_slice(now);
    *input = later;
}

fn wrong(kind: &'static str, body: &[u8]) -> Violation {
    Violation::Length { kind, length: body.len() }
}

/// The numbers that a frame begins with, and what comes after them.
fn numbers<'a, const N: usize>(
    kind: &'static str,
    body: &'a [u8],
) -> Result<([u32; N], &'a [u8]), Violation> {
    let mut rest = body;
    let mut numbers = [0; N];
    for number in &mut numbers {
        let (bytes, behind) = rest.split_first_chunk().ok_or_else(|| wrong(kind, body))?;
        *number = u32::from_be_bytes(*bytes);
        rest = behind;
    }
    Ok((numbers, rest))
}

/// The numbers that are all of a frame.
fn exactly<const N: usize>(kind: &'static str, body: &[u8]) -> Result<[u32; N], Violation> {
    match numbers(kind, body)? {
        (numbers, []) => Ok(numbers),
        _ => Err(wrong(kind, body)),
    }
}

fn stream(kind: &'static str, id: u32) -> Result<u32, Violation> {
    match id & STREAM_BITS {
        0 => Err(Violation::ZeroStream { kind }),
        id => Ok(id),
    }
}

fn settings(body: &[u8]) -> Result<Vec<Setting>, Violation> {
    let ([count], mut rest) = numbers("SETTINGS", body)?;
    if rest.len() != (count as usize).saturating_mul(8) {
        return Err(wrong("SETTINGS", body));
    }
    let mut settings = Vec::new();
    while !rest.is_empty() {
        let ([id, value], behind) = numbers("SETTINGS", rest)?;
        // The highest byte has flags, about keeping them for another session.
        settings.push(Setting { id: id & 0x00ff_ffff, value });
        rest = behind;
    }
    Ok(settings)
}

#[cfg(test)]
mod tests;
