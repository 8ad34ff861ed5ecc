//! Puts the pieces of long lines together again, where the other output was written to in between.

use super::{LogLine, Stream};
use std::collections::VecDeque;

/// Bytes that are held back for a line that is not finished.
const HELD_LIMIT: usize = 1 << 20;

/// Gives pieces on as they come, and holds the other output's lines back while a line is unfinished.
#[derive(Debug, Default)]
pub struct WholeLines {
    /// The output whose line is unfinished.
    open: Option<Stream>,
    held: VecDeque<LogLine>,
    bytes: usize,
}

impl WholeLines {
    /// Takes the next line or piece; what can be given on goes to `out`.
    pub fn push(&mut self, line: LogLine, out: &mut Vec<LogLine>) {
        if self.open.is_some_and(|open| open != line.stream) {
            self.bytes += line.bytes.len() + size_of::<LogLine>();
            self.held.push_back(line);
            if self.bytes > HELD_LIMIT {
                self.release(out);
            }
            return;
        }
        self.open = line.partial.then_some(line.stream);
        out.push(line);
        if self.open.is_none() {
            self.drain(out);
        }
    }

    /// Whether lines are held back.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives on what is held back, though a line is unfinished: it will not be waited for any longer.
    pub fn release(&mut self, out: &mut Vec<LogLine>) {
        self.open = None;
        self.drain(out);
    }

    /// What was held back in turn, up to the next line that is unfinished.
    fn drain(&mut self, out: &mut Vec<LogLine>) {
        let held = std::mem::take(&mut self.held);
        self.bytes = 0;
        for line in held {
            self.push(line, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn line(text: &str) -> LogLine {
        let (stream, text) = if let Some(text) = text.strip_prefix('!') {
            (Stream::Stderr, text)
        } else {
            (Stream::Stdout, text)
        };
        let partial = text.ends_with('+');
        let bytes = text.trim_end_matches('+').to_owned().into();
        LogLine { time: Timestamp::UNIX_EPOCH, stream, bytes, partial }
    }

    fn given(words: &[&str]) -> String {
        let (mut lines, mut out) = (WholeLines::default(), Vec::new());
        for word in words {
            lines.push(line(word), &mut out);
        }
        lines.release(&mut out);
        let text = |line: &LogLine| {
            let bytes = String::from_utf8_lossy(&line.bytes).into_owned();
            if line.partial { bytes } else { bytes + " " }
        };
        out.iter().map(text).collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn a_line_of_one_output_does_not_land_inside_one_of_the_other() {
        assert_eq!(given(&["a", "!b", "c"]), "a b c");
        assert_eq!(given(&["a+", "!b", "a+", "!c", "a", "d"]), "aaa b c d");
        assert_eq!(given(&["a+", "!b+", "a", "!b", "c"]), "aa bb c");
        assert_eq!(given(&["a+", "!b+", "!b", "a+", "!c", "a"]), "aaa bb c");
        assert_eq!(given(&["a+", "!b"]), "ab", "nothing is lost of a line that is never finished");
    }

    #[test]
    fn no_more_is_held_back_than_a_megabyte() {
        let (mut lines, mut out) = (WholeLines::default(), Vec::new());
        lines.push(line("a+"), &mut out);
        let long = format!("!{}", "x".repeat(10_000));
        (0..200).for_each(|_| lines.push(line(&long), &mut out));
        assert!(out.len() > 100 && lines.bytes <= HELD_LIMIT, "{}", out.len());
    }

    proptest! {
        #[test]
        fn each_output_keeps_its_order_and_nothing_is_lost(
            words in prop::collection::vec((any::<bool>(), any::<bool>()), 0..60)
        ) {
            let (mut lines, mut out) = (WholeLines::default(), Vec::new());
            let of = |all: &[LogLine], stream| -> Vec<LogLine> {
                all.iter().filter(|line| line.stream == stream).cloned().collect()
            };
            let all: Vec<_> = words
                .iter()
                .enumerate()
                .map(|(n, (err, partial))| {
                    let (mark, end) = (if *err { "!" } else { "" }, if *partial { "+" } else { "" });
                    line(&format!("{mark}{n}{end}"))
                })
                .collect();
            all.iter().cloned().for_each(|line| lines.push(line, &mut out));
            lines.release(&mut out);
            for stream in [Stream::Stdout, Stream::Stderr] {
                prop_assert_eq!(of(&out, stream), of(&all, stream));
            }
        }
    }
}
