//! Comma-separated tables with a header line. What is wrong is named by file, line and field.

use std::path::{Path, PathBuf};

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A table lacks a column.
    #[error("{}:1: no column `{column}`", path.display())]
    Column {
        /// In which file.
        path: PathBuf,
        /// Its name.
        column: &'static str,
    },
    /// A field is not what it must be.
    #[error("{}:{line}: field `{field}` is {found:?}: {expected} is expected", path.display())]
    Field {
        /// In which file.
        path: PathBuf,
        /// Counted from 1, the header included.
        line: usize,
        /// The column.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A trace holds too little to simulate by.
    #[error("{}: {what}", path.display())]
    Empty {
        /// In which file or folder.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

/// No trace file is larger than this.
const MOST_BYTES: u64 = 64 << 20;

/// A table: columns by name.
pub(crate) struct Table {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<(usize, Vec<String>)>,
}

impl Table {
    pub(crate) fn read(path: &Path) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Read { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > MOST_BYTES {
            return Err(TraceError::Empty { path: path.to_owned(), what: "larger than 64 MiB" });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut lines = text.lines().enumerate();
        let split = |line: &str| line.split(',').map(|field| field.trim().to_owned()).collect();
        let columns: Vec<String> = lines.next().map(|(_, line)| split(line)).unwrap_or_default();
        let rows = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| (index + 1, split(line)))
            .collect();
        Ok(Self { path: path.to_owned(), columns, rows })
    }

    pub(crate) fn column(&self, name: &'static str) -> Result<Column<'_>, TraceError> {
        let index = self.columns.iter().position(|column| column == name);
        let index =
            index.ok_or_else(|| TraceError::Column { path: self.path.clone(), column: name })?;
        Ok(Column { table: self, index, name })
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

pub(crate) struct Column<'a> {
    table: &'a Table,
    index: usize,
    name: &'static str,
}

impl Column<'_> {
    pub(crate) fn text(&self, row: usize) -> &str {
        self.table.rows[row].1.get(self.index).map_or("", String::as_str)
    }

    pub(crate) fn wrong(&self, row: usize, expected: &'static str) -> TraceError {
        TraceError::Field {
            path: self.table.path.clone(),
            line: self.table.rows[row].0,
            field: self.name,
            found: self.text(row).to_owned(),
            expected,
        }
    }

    /// A finite number that is not negative.
    pub(crate) fn number(&self, row: usize) -> Result<f64, TraceError> {
        let number: Option<f64> = self.text(row).parse().ok();
        number
            .filter(|number| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| self.wrong(row, "a finite number, at least 0,"))
    }

    /// A whole number from 1 to a million.
    pub(crate) fn count(&self, row: usize) -> Result<u32, TraceError> {
        let count: Option<u32> = self.text(row).parse().ok();
        count
            .filter(|count| (1..=1_000_000).contains(count))
            .ok_or_else(|| self.wrong(row, "a whole number from 1 to 1000000"))
    }
}
