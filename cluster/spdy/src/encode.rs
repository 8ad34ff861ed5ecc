//! Frames as bytes.

use crate::compression::Deflater;
use crate::error::SessionError;
use crate::frame::{self, Control, FIN, UNIDIRECTIONAL, VERSION};
use crate::headers::Headers;

/// Writes the frames of one direction of a session, in order: each header block goes on where the last one ended.
pub(crate) struct Encoder(Deflater);

impl Encoder {
    pub(crate) fn new() -> Self {
        Self(Deflater::new())
    }

    /// Puts a control frame behind what is in `out`. Headers are within their limits, so the length fits.
    pub(crate) fn control(
        &mut self,
        control: &Control,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        let (kind, flags, body) = match control {
            Control::SynStream { id, fin, unidirectional, headers } => {
                let flags = flag(FIN, *fin) | flag(UNIDIRECTIONAL, *unidirectional);
                // No stream that it belongs to, the highest priority, no slot for credentials.
                (frame::SYN_STREAM, flags, self.with_headers(&[*id, 0], &[0, 0], headers)?)
            }
            Control::SynReply { id, fin, headers } => {
                (frame::SYN_REPLY, flag(FIN, *fin), self.with_headers(&[*id], &[], headers)?)
            }
            Control::Headers { id, fin, headers } => {
                (frame::HEADERS, flag(FIN, *fin), self.with_headers(&[*id], &[], headers)?)
            }
            Control::Reset { id, status } => (frame::RST_STREAM, 0, words(&[*id, status.code()])),
            Control::Settings(settings) => {
                let mut body = words(&[settings.len() as u32]);
                for setting in settings {
                    body.extend(words(&[setting.id, setting.value]));
                }
                (frame::SETTINGS, 0, body)
            }
            Control::Ping { id } => (frame::PING, 0, words(&[*id])),
            Control::GoAway { last, status } => (frame::GOAWAY, 0, words(&[*last, status.code()])),
            Control::WindowUpdate { id, delta } => (frame::WINDOW_UPDATE, 0, words(&[*id, *delta])),
        };
        out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&flags_and_length(flags, body.len()));
        out.extend_from_slice(&body);
        Ok(())
    }

    fn with_headers(
        &mut self,
        numbers: &[u32],
        bytes: &[u8],
        headers: &Headers,
    ) -> Result<Vec<u8>, SessionError> {
        let mut body = words(numbers);
        body.extend_from_slice(bytes);
        body.extend(self.0.block(&headers.block())?);
        Ok(body)
    }
}

/// Puts the head of a data frame behind what is in `out`. `length` is below 2^24.
pub(crate) fn data_head(id: u32, fin: bool, length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags_and_length(flag(FIN, fin), length));
}

fn flag(flag: u8, is_set: bool) -> u8 {
    if is_set { flag } else { 0 }
}

fn flags_and_length(flags: u8, length: usize) -> [u8; 4] {
    debug_assert!(length <= frame::MOST_LENGTH, "{length} bytes");
    (u32::from(flags) << 24 | length as u32).to_be_bytes()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
