//! The rows of one generation, and where to find each.

use super::change::CatalogError;
use crate::resource::Row;
use std::collections::HashMap;
use std::sync::Arc;

/// The rows of a group, by two of their names: all versions of each, the one that is kept first.
#[derive(Default)]
struct Group {
    plurals: HashMap<String, Vec<Row>>,
    kinds: HashMap<String, Vec<Row>>,
}

/// The rows of one generation.
pub(super) struct State {
    pub(super) rows: Arc<[Row]>,
    pub(super) generation: u64,
    groups: HashMap<String, Group>,
}

impl State {
    pub(super) fn of(rows: Arc<[Row]>, generation: u64) -> Self {
        let mut groups: HashMap<String, Group> = HashMap::new();
        for row in rows.iter() {
            let group = groups.entry(row.group.to_string()).or_default();
            group.plurals.entry(row.plural.to_string()).or_default().push(Arc::clone(row));
            group.kinds.entry(row.kind.to_string()).or_default().push(Arc::clone(row));
        }
        Self { rows, generation, groups }
    }

    /// The row with this plural, of the version that is kept.
    pub(super) fn plural(&self, group: &str, plural: &str) -> Option<&Row> {
        self.groups.get(group)?.plurals.get(plural)?.first()
    }

    /// The row of this kind, of the version that is kept.
    pub(super) fn kind(&self, group: &str, kind: &str) -> Option<&Row> {
        self.groups.get(group)?.kinds.get(kind)?.first()
    }

    /// The row with this plural in a version.
    pub(super) fn plural_in(&self, group: &str, version: &str, plural: &str) -> Option<&Row> {
        let versions = self.groups.get(group)?.plurals.get(plural)?;
        versions.iter().find(|row| row.version == version)
    }

    /// The row of this kind in a version.
    pub(super) fn kind_in(&self, group: &str, version: &str, kind: &str) -> Option<&Row> {
        let versions = self.groups.get(group)?.kinds.get(kind)?;
        versions.iter().find(|row| row.version == version)
    }

    /// How many rows are not the program's.
    pub(super) fn taken(&self) -> usize {
        self.rows.iter().filter(|row| !row.is_lasting()).count()
    }

    /// The row that may be dropped under this name.
    pub(super) fn dropped(&self, group: &str, plural: &str) -> Result<&Row, CatalogError> {
        let named = || (group.to_owned(), plural.to_owned());
        let row = self.plural(group, plural).ok_or_else(|| {
            let (group, plural) = named();
            CatalogError::Unknown { group, plural }
        })?;
        if row.is_lasting() {
            let (group, plural) = named();
            return Err(CatalogError::BuiltIn { group, plural });
        }
        Ok(row)
    }
}
