//! What else placement depends on: the labels of namespaces, and what disruption budgets allow.

use super::Scheduler;
use crate::change;
use crate::follow::Followed;
use impresario_registry_api::{Entry, WatchEvent};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::collections::BTreeSet;

impl Scheduler {
    /// Namespaces were read. Other labels may be hope for anybody.
    pub(super) fn namespaces_seen(&mut self, followed: Followed) {
        let mut news = false;
        match followed {
            Followed::All(entries) => {
                let present: BTreeSet<&str> =
                    entries.iter().map(|entry| entry.key.name.as_str()).collect();
                for gone in self.picture.namespaces_beside(&present) {
                    news |= self.picture.namespace_seen(&gone, None);
                }
                for entry in &entries {
                    news |= self.namespace_seen(entry);
                }
                self.namespaces_known = true;
            }
            Followed::Changes(events) => {
                for event in events {
                    news |= match event {
                        WatchEvent::Put { entry, .. } => self.namespace_seen(&entry),
                        WatchEvent::Delete { previous, .. } => {
                            self.picture.namespace_seen(&previous.key.name, None)
                        }
                    };
                }
            }
        }
        self.changes.hopeful |= news;
    }

    fn namespace_seen(&mut self, entry: &Entry) -> bool {
        match change::decode::<v1::Namespace>(entry) {
            Ok(object) => {
                let labels = object.metadata.labels.unwrap_or_default();
                self.picture.namespace_seen(&entry.key.name, Some(labels))
            }
            Err(error) => {
                tracing::warn!(%error, "namespace skipped");
                false
            }
        }
    }

    /// Disruption budgets were read.
    pub(super) fn budgets_seen(&mut self, followed: Followed) {
        let budgets = &mut self.picture.budgets;
        match followed {
            Followed::All(entries) => {
                let present: BTreeSet<_> = entries
                    .iter()
                    .map(|entry| (entry.key.namespace.clone(), entry.key.name.clone()))
                    .collect();
                for (namespace, name) in budgets.names() {
                    if !present.contains(&(namespace.clone(), name.clone())) {
                        self.changes.budgets |= budgets.seen(&namespace, &name, None);
                    }
                }
                for entry in &entries {
                    self.budget_seen(entry);
                }
                self.budgets_known = true;
            }
            Followed::Changes(events) => {
                for event in events {
                    match event {
                        WatchEvent::Put { entry, .. } => self.budget_seen(&entry),
                        WatchEvent::Delete { previous, .. } => {
                            let key = previous.key;
                            let is_more =
                                self.picture.budgets.seen(&key.namespace, &key.name, None);
                            self.changes.budgets |= is_more;
                        }
                    }
                }
            }
        }
    }

    fn budget_seen(&mut self, entry: &Entry) {
        let budget = match change::decode::<PodDisruptionBudget>(entry) {
            Ok(budget) => budget,
            Err(error) => return tracing::warn!(%error, "disruption budget skipped"),
        };
        let (namespace, name) = (&entry.key.namespace, &entry.key.name);
        self.changes.budgets |= self.picture.budgets.seen(namespace, name, Some(&budget));
    }

    /// Whether everything was read on which a placement depends.
    pub(super) fn is_all_known(&self) -> bool {
        self.nodes_known && self.pods_known && self.namespaces_known && self.budgets_known
    }
}
