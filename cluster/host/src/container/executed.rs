//! What came of a command that was run in a container beside its own.

/// Bytes of output that are kept, as the kubelet does for probes.
const KEPT: usize = 10 * 1024;

/// How a command that was run in a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code; 128 plus the signal's number when one ended it; 127 when there is no such command, 126
    /// when it may not be run (POSIX.1-2024, Shell Command Language, 2.8.2).
    pub code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// Keeps the beginning of an output.
#[derive(Debug, Default)]
pub struct Heard(Vec<u8>);

impl Heard {
    /// More was written; what is beyond the limit is dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = KEPT - self.0.len().min(KEPT);
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// As text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_endless_output_is_kept() {
        let mut heard = Heard::default();
        for _ in 0..3 {
            heard.push(&[b'a'; 4096]);
        }
        heard.push(b"the end");
        assert_eq!(heard.text(), "a".repeat(KEPT));
    }
}
