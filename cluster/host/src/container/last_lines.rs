//! The last lines of a log, each with all the pieces that a long one is kept in.

use super::LogLine;
use std::collections::VecDeque;

/// What is held of a log that is read from somewhere to its end.
#[derive(Debug, Default)]
pub(crate) struct LastLines {
    lines: VecDeque<LogLine>,
    /// Ends of lines among them.
    ends: usize,
    has_let_go: bool,
}

impl LastLines {
    /// Adds a line or a piece of one, and lets go of what is before the last `count` lines.
    pub fn push(&mut self, line: LogLine, count: usize) {
        self.ends += usize::from(!line.partial);
        self.lines.push_back(line);
        // A line that has begun and not ended yet is one more.
        let is_open = self.lines.back().is_some_and(|line| line.partial);
        while self.ends + usize::from(is_open) > count {
            let Some(first) = self.lines.pop_front() else { return };
            self.ends -= usize::from(!first.partial);
            self.has_let_go = true;
        }
    }

    /// Whether the oldest line is known to be whole, wherever it was begun to read: something before it was an end.
    pub fn is_whole(&self) -> bool {
        self.has_let_go
    }

    /// The lines, oldest first.
    pub fn into_lines(self) -> VecDeque<LogLine> {
        self.lines
    }
}
