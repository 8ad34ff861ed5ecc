//! Which of the journal's files hold which entries, and so which may go.

use super::record::Record;
use crate::{disk::journal::FileNumber, raft::LogId};
use openraft::entry::RaftEntry;
use std::collections::VecDeque;

/// The highest index that each file holds, oldest file first.
#[derive(Debug, Default)]
pub(super) struct Files(VecDeque<(FileNumber, u64)>);

impl Files {
    pub(super) fn saw(&mut self, file: FileNumber, record: &Record) {
        let index = if let Record::Append(entry) = record { entry.index() } else { 0 };
        match self.0.back_mut() {
            Some((last, highest)) if *last == file => *highest = (*highest).max(index),
            _ => self.0.push_back((file, index)),
        }
    }

    /// Whether no file holds an entry behind `purged`.
    pub(super) fn all_purged(&self, purged: Option<LogId>) -> bool {
        purged.is_some_and(|purged| self.0.iter().all(|(_, highest)| *highest <= purged.index))
    }

    /// The first file that is needed when everything up to `purged` is not.
    pub(super) fn first_needed(&mut self, purged: Option<LogId>) -> Option<FileNumber> {
        let purged = purged?.index;
        while self.0.len() > 1 && self.0.front().is_some_and(|(_, highest)| *highest <= purged) {
            self.0.pop_front();
        }
        self.0.front().map(|(file, _)| *file)
    }
}
