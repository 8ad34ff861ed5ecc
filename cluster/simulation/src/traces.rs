//! Reads workloads: what users submitted, and when.

use crate::table::{Table, TraceError};
use crate::truth::Application;
use std::collections::BTreeMap;
use std::path::Path;

/// One line of a workload: what a user submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The job's name.
    pub name: String,
    /// When, seconds from the beginning.
    pub time: f64,
    /// Which application of the trace.
    pub application: String,
    /// How many GPUs the user would have asked for.
    pub replicas: u32,
    /// The total batch that the user would have asked for.
    pub batch: u32,
}

/// Reads a workload for the applications of a trace.
///
/// # Errors
/// [`TraceError`] names the line and the field.
pub fn read_workload(
    path: &Path,
    applications: &BTreeMap<String, Application>,
) -> Result<Vec<Submission>, TraceError> {
    let table = Table::read(path)?;
    let name = table.column("name")?;
    let time = table.column("time")?;
    let application = table.column("application")?;
    let replicas = table.column("num_replicas")?;
    let batch = table.column("batch_size")?;
    let mut names = std::collections::BTreeSet::new();
    let mut submissions = Vec::with_capacity(table.len());
    for row in 0..table.len() {
        let Some(known) = applications.get(application.text(row)) else {
            return Err(application.wrong(row, "an application of the trace folder"));
        };
        if name.text(row).is_empty() || !names.insert(name.text(row).to_owned()) {
            return Err(name.wrong(row, "a name that no other line has"));
        }
        let total = batch.count(row)?;
        if !(known.initial_batch..=known.max_batch).contains(&total) {
            return Err(batch.wrong(row, "a batch within those that were measured"));
        }
        submissions.push(Submission {
            name: name.text(row).to_owned(),
            time: time.number(row)?,
            application: known.name.clone(),
            replicas: replicas.count(row)?,
            batch: total,
        });
    }
    if submissions.is_empty() {
        return Err(TraceError::Empty { path: path.to_owned(), what: "no submissions" });
    }
    Ok(submissions)
}
