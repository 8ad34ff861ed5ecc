//! How it went with what a controller wanted done.

use super::super::control::LookError;
use std::collections::BTreeSet;

/// The reason of a condition and of events: what is wanted cannot be created.
pub const FAILED_CREATE: &str = "FailedCreate";
/// The same for what cannot be deleted.
pub const FAILED_DELETE: &str = "FailedDelete";
/// The same for what cannot be changed.
pub const FAILED_UPDATE: &str = "FailedUpdate";

/// How it went.
#[derive(Default)]
pub(super) struct Applied {
    /// The first failure of each kind of effect.
    pub(super) owners: Option<LookError>,
    pub(super) changed: Option<LookError>,
    pub(super) created: Option<LookError>,
    pub(super) deleted: Option<LookError>,
    /// Names under which nothing could be created: others have them.
    pub(super) taken: BTreeSet<String>,
    /// Whether something that was asked of another object is not asked of it yet.
    pub(super) is_behind: bool,
}

impl Applied {
    /// Why not all is created, deleted or changed, if it is for what is wanted, and not for how the registry is or
    /// since somebody else was quicker: a reason and the error.
    pub(super) fn refused(&self) -> Option<(&'static str, String)> {
        let failed = [
            (FAILED_CREATE, &self.created),
            (FAILED_DELETE, &self.deleted),
            (FAILED_UPDATE, &self.changed),
        ];
        failed.into_iter().find_map(|(reason, error)| {
            let error = error.as_ref().filter(|error| error.is_for_what_is_wanted())?;
            Some((reason, error.to_string()))
        })
    }

    /// Whether another member holds the shard.
    pub(super) fn is_fenced(&self) -> bool {
        let all = [&self.owners, &self.changed, &self.created, &self.deleted];
        all.into_iter().flatten().any(LookError::is_fenced)
    }

    /// The failure that counts: that the shard is lost before any other.
    pub(super) fn into_result(self) -> Result<(), LookError> {
        let all = [self.owners, self.changed, self.created, self.deleted];
        let mut all: Vec<LookError> = all.into_iter().flatten().collect();
        let at = all.iter().position(LookError::is_fenced).unwrap_or(0);
        if all.is_empty() { Ok(()) } else { Err(all.swap_remove(at)) }
    }
}

/// The first failure counts.
pub(super) fn keep(first: &mut Option<LookError>, outcome: Result<(), LookError>) {
    if let Err(error) = outcome
        && first.is_none()
    {
        *first = Some(error);
    }
}
