//! The catalog of resources: every kind that is served now.
//!
//! A new kind of the program is a file in [`crate::kinds`] with its `resource()` and a line in `built_in`. Other kinds
//! are taken and dropped while the cluster runs. The functions of this module are about the kinds that this process
//! serves, [`served`]. To look a row up is a look into two hash tables; what was found is shared and not copied, and
//! stays whole when its kind is dropped: [`Catalog::is_served`] tells whether it was.

mod change;
mod observe;
mod state;

pub use change::{CatalogError, Change, MOST_TAKEN};
pub use observe::Observer;

use crate::field::at;
use crate::kinds;
use crate::resource::{Incarnation, Resource, Row};
use observe::Observers;
use parking_lot::RwLock;
use serde_json::Value;
use state::State;
use std::sync::{Arc, LazyLock};

/// Every resource of the program, in the order in which discovery lists them.
fn built_in() -> Vec<Resource> {
    let mut rows = vec![
        kinds::componentstatuses::resource(),
        kinds::configmaps::resource(),
        kinds::endpoints::resource(),
        kinds::events::resource(),
        kinds::limitranges::resource(),
        kinds::namespaces::resource(),
        kinds::nodes::resource(),
        kinds::persistentvolumeclaims::resource(),
        kinds::persistentvolumes::resource(),
        kinds::pods::resource(),
        kinds::podtemplates::resource(),
        kinds::replicationcontrollers::resource(),
        kinds::resourcequotas::resource(),
        kinds::secrets::resource(),
        kinds::serviceaccounts::resource(),
        kinds::services::resource(),
        kinds::apiservices::resource(),
        kinds::controllerrevisions::resource(),
        kinds::daemonsets::resource(),
        kinds::deployments::resource(),
        kinds::replicasets::resource(),
        kinds::statefulsets::resource(),
        kinds::eventsv1::resource(),
        kinds::cronjobs::resource(),
        kinds::jobs::resource(),
        kinds::certificatesigningrequests::resource(),
        kinds::ingressclasses::resource(),
        kinds::ingresses::resource(),
        kinds::ipaddresses::resource(),
        kinds::networkpolicies::resource(),
        kinds::servicecidrs::resource(),
        kinds::poddisruptionbudgets::resource(),
        kinds::clusterrolebindings::resource(),
        kinds::clusterroles::resource(),
        kinds::rolebindings::resource(),
        kinds::roles::resource(),
        kinds::csidrivers::resource(),
        kinds::csinodes::resource(),
        kinds::csistoragecapacities::resource(),
        kinds::storageclasses::resource(),
        kinds::volumeattachments::resource(),
        kinds::volumeattributesclasses::resource(),
        kinds::mutatingadmissionpolicies::resource(),
        kinds::mutatingadmissionpolicybindings::resource(),
        kinds::mutatingwebhookconfigurations::resource(),
        kinds::validatingadmissionpolicies::resource(),
        kinds::validatingadmissionpolicybindings::resource(),
        kinds::validatingwebhookconfigurations::resource(),
        kinds::customresourcedefinitions::resource(),
        kinds::priorityclasses::resource(),
        kinds::leases::resource(),
        kinds::runtimeclasses::resource(),
        kinds::endpointslices::resource(),
        kinds::deviceclasses::resource(),
        kinds::resourceclaims::resource(),
        kinds::resourceclaimtemplates::resource(),
        kinds::resourceslices::resource(),
        kinds::flowschemas::resource(),
        kinds::prioritylevelconfigurations::resource(),
        kinds::trainingjobs::resource(),
    ];
    rows.extend(kinds::horizontalpodautoscalers::resources());
    rows
}

/// The kinds that are served.
pub struct Catalog {
    state: RwLock<Arc<State>>,
    observers: Observers,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// The kinds of the program.
    pub fn new() -> Self {
        let state = State::of(built_in().into_iter().map(Arc::new).collect(), 0);
        Self { state: RwLock::new(Arc::new(state)), observers: Observers::default() }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Counts the changes: where it is the same, so is everything that is served.
    pub fn generation(&self) -> u64 {
        self.state.read().generation
    }

    /// Every row, and the generation of which they are.
    pub fn all(&self) -> (Arc<[Row]>, u64) {
        let state = self.state.read();
        (Arc::clone(&state.rows), state.generation)
    }

    /// Every row: those of the program, then the others in the order in which they were taken.
    pub fn resources(&self) -> Arc<[Row]> {
        self.all().0
    }

    /// The resource with this plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Row> {
        self.state.read().plural_in(group, version, plural).cloned()
    }

    /// The resource of this kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<Row> {
        self.state.read().kind_in(group, version, kind).cloned()
    }

    /// The resource with this plural, in the version in which it is kept.
    pub fn find_any_version(&self, group: &str, plural: &str) -> Option<Row> {
        self.state.read().plural(group, plural).cloned()
    }

    /// The row in whose words the objects of a row are kept: itself, or the one that it is converted to.
    pub fn kept(&self, row: &Row) -> Row {
        let conversion = row.conversion.as_ref();
        let kept = conversion.and_then(|kept| self.find(kept.group, kept.version, kept.plural));
        kept.unwrap_or_else(|| Arc::clone(row))
    }

    /// The resource of this name in the registry: `pods`, `batch/jobs`.
    pub fn find_key(&self, key: &str) -> Option<Row> {
        let (group, plural) = key.split_once('/').unwrap_or(("", key));
        // `/pods` is no name of anything.
        let core = group.is_empty() && key.contains('/');
        if core { None } else { self.find_any_version(group, plural) }
    }

    /// The resource of an object, by its `apiVersion` and `kind`.
    pub fn find_object(&self, object: &Value) -> Option<Row> {
        let api_version = at(object, "apiVersion").as_str()?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.find_kind(group, version, at(object, "kind").as_str()?)
    }

    /// The resource that a person means by a plural, singular, short name or kind, in any case. Where several have the
    /// name it is the first of them, as discovery lists them.
    pub fn find_spoken(&self, word: &str) -> Option<Row> {
        let word = word.to_ascii_lowercase();
        let (name, group) =
            word.split_once('.').map_or((word.as_str(), None), |(n, g)| (n, Some(g)));
        let state = self.state();
        let found = state.rows.iter().find(|row| {
            let named = row.plural == name
                || row.singular == name
                || row.kind.eq_ignore_ascii_case(name)
                || row.short_names.iter().any(|short| short == name);
            let grouped = |group: &str| {
                group == row.group || group == format!("{}.{}", row.version, row.group)
            };
            named && group.is_none_or(grouped)
        });
        found.cloned()
    }

    /// Whether the kind of a row that was found is still served, be it by another row.
    pub fn is_served(&self, row: &Resource) -> bool {
        row.is_lasting()
            || self
                .state
                .read()
                .plural(&row.group, &row.plural)
                .is_some_and(|now| now.incarnation == row.incarnation)
    }

    /// Serves a kind from now on.
    pub fn take(&self, row: Resource) -> Result<Row, CatalogError> {
        self.change(|state| {
            let unkept = find_unkept(&row.group, &row.version, &row.plural);
            if let Some(other) = state.plural(&row.group, &row.plural).or(unkept.as_ref()) {
                let (group, plural) = (row.group.to_string(), row.plural.to_string());
                return Err(CatalogError::PluralTaken {
                    group,
                    plural,
                    by: other.kind.to_string(),
                });
            }
            if let Some(other) = state.kind(&row.group, &row.kind) {
                let (group, kind) = (row.group.to_string(), row.kind.to_string());
                return Err(CatalogError::KindTaken { group, kind, by: other.plural.to_string() });
            }
            if state.taken() >= MOST_TAKEN {
                return Err(CatalogError::Full);
            }
            // Generations are never told twice, so that neither are these.
            let row = Arc::new(Resource { incarnation: Incarnation(state.generation + 1), ..row });
            let rows = state.rows.iter().cloned().chain([Arc::clone(&row)]).collect();
            Ok((rows, Change::Taken(Arc::clone(&row)), row))
        })
    }

    /// Serves a kind that was taken by another row of the same names: who follows its objects goes on.
    pub fn replace(&self, row: Resource) -> Result<Row, CatalogError> {
        self.change(|state| {
            let old = state.dropped(&row.group, &row.plural)?;
            if old.kind != row.kind || old.namespaced != row.namespaced {
                let (group, plural) = (row.group.to_string(), row.plural.to_string());
                return Err(CatalogError::OtherKind { group, plural, kind: old.kind.to_string() });
            }
            let row = Arc::new(Resource { incarnation: old.incarnation, ..row });
            let exchanged = |one: &Row| Arc::clone(if Arc::ptr_eq(one, old) { &row } else { one });
            let rows = state.rows.iter().map(exchanged).collect();
            let change = Change::Replaced(Arc::clone(old), Arc::clone(&row));
            Ok((rows, change, row))
        })
    }

    /// Serves a kind that was taken no more. Its row is given back.
    pub fn drop_row(&self, group: &str, plural: &str) -> Result<Row, CatalogError> {
        self.change(|state| {
            let row = state.dropped(group, plural)?;
            let rows = state.rows.iter().filter(|one| !Arc::ptr_eq(one, row)).cloned().collect();
            Ok((rows, Change::Dropped(Arc::clone(row)), Arc::clone(row)))
        })
    }

    /// Makes a new state of the present one, and tells of it. Changes are told in their order.
    fn change(
        &self,
        change: impl FnOnce(&State) -> Result<(Arc<[Row]>, Change, Row), CatalogError>,
    ) -> Result<Row, CatalogError> {
        let telling = self.observers.lock();
        let state = self.state();
        let (rows, change, row) = change(&state)?;
        *self.state.write() = Arc::new(State::of(rows, state.generation + 1));
        telling.tell(&change, state.generation + 1);
        Ok(row)
    }

    /// Calls back after every change, with the generation that it made, until the observer is dropped. The function
    /// runs in the thread that changes the catalog: it may look rows up, and neither waits nor changes anything here.
    #[must_use]
    pub fn observe(&self, tell: impl Fn(&Change, u64) + Send + Sync + 'static) -> Observer {
        self.observers.add(Arc::new(tell))
    }
}

/// The kinds that this process serves.
pub fn served() -> &'static Catalog {
    static SERVED: LazyLock<Catalog> = LazyLock::new(Catalog::new);
    &SERVED
}

/// Every resource served.
pub fn resources() -> Arc<[Row]> {
    served().resources()
}

/// The resource with this plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<Row> {
    served().find(group, version, plural)
}

/// Every resource of which nothing is kept, in the order in which discovery lists them: what is posted is answered, or
/// what is measured is told.
pub fn unkept<'a>() -> impl Iterator<Item = &'a Row> + Clone {
    kinds::reviews::resources().iter().chain(kinds::metrics::resources())
}

/// The resource with this plural of which nothing is kept: none of the others asks about it, since there is nothing of
/// it to watch or to delete.
pub fn find_unkept(group: &str, version: &str, plural: &str) -> Option<Row> {
    let mut all = unkept();
    all.find(|row| (&*row.group, &*row.version, &*row.plural) == (group, version, plural)).cloned()
}

/// The resource of this kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<Row> {
    served().find_kind(group, version, kind)
}

/// The resource of an object, by its `apiVersion` and `kind`.
pub fn find_object(object: &Value) -> Option<Row> {
    served().find_object(object)
}

/// The resource that a person means by a plural, singular, short name or kind, in any case.
pub fn find_spoken(word: &str) -> Option<Row> {
    served().find_spoken(word)
}

#[cfg(test)]
mod tests;
