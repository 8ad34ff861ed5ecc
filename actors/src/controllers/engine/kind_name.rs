//! What a kind is called in the API and in the registry.

use impresario_api::catalog;
use impresario_api::resource::{Row, Text, resource_key_of};
use impresario_api::status::{Reason, Status};
use std::fmt;

/// Group, version and plural of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindName {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The plural in lower case, as in paths.
    pub plural: &'static str,
}

impl KindName {
    /// The name of a typed kind.
    #[must_use]
    pub const fn of<K: k8s_openapi::Resource>() -> Self {
        Self { group: K::GROUP, version: K::VERSION, plural: K::URL_PATH_SEGMENT }
    }

    /// What the registry calls it: `pods`, `batch/jobs`.
    #[must_use]
    pub fn key(&self) -> String {
        resource_key_of(self.group, self.plural)
    }

    /// What one of its objects is called: `pod`. The plural where it is not served.
    #[must_use]
    pub fn one(&self) -> Text {
        self.served().map_or(self.plural.into(), |resource| resource.singular.clone())
    }

    /// Its row in the table of what is served.
    pub fn served(&self) -> Result<Row, Status> {
        catalog::find(self.group, self.version, self.plural)
            .ok_or_else(|| Status::new(Reason::NotFound, format!("{self} is not served here")))
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {}", self.key(), self.version)
    }
}
