//! How many pods may be made to miss, by the disruption budgets and what their controller counts.

use super::super::demands::Selector;
use super::super::parties::Pending;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Disruption budgets, as the registry calls them.
pub const BUDGETS: &str = "policy/poddisruptionbudgets";

/// A disruption budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    selector: Selector,
    /// So many more may go now.
    allowed: i32,
    /// Those are counted as gone.
    disrupted: BTreeSet<String>,
}

/// The disruption budgets, by namespace and name.
#[derive(Debug, Default)]
pub struct Budgets(BTreeMap<String, BTreeMap<String, Budget>>);

/// How much of each budget is spent: by namespace and name.
pub type Spent = HashMap<(String, String), i32>;

impl Budgets {
    /// A budget was read, or (`None`) is gone. Whether more may go by it than before.
    pub fn seen(
        &mut self,
        namespace: &str,
        name: &str,
        budget: Option<&PodDisruptionBudget>,
    ) -> bool {
        let read = budget.and_then(|budget| {
            let status = budget.status.as_ref();
            let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
            // One without a selector is about nobody.
            let selector = budget.spec.as_ref()?.selector.as_ref()?;
            Some(Budget {
                selector: Selector::of(selector),
                allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
                disrupted: disrupted.into_iter().flatten().map(|(pod, _)| pod.clone()).collect(),
            })
        });
        let all = self.0.entry(namespace.to_owned()).or_default();
        let before = all.remove(name);
        let is_more = match (&before, &read) {
            (Some(before), Some(now)) => {
                now.allowed > before.allowed || now.selector != before.selector
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        if let Some(read) = read {
            all.insert(name.to_owned(), read);
        }
        if all.is_empty() {
            self.0.remove(namespace);
        }
        is_more
    }

    /// The names of all of them, by namespace.
    pub fn names(&self) -> Vec<(String, String)> {
        let names = self.0.iter().flat_map(|(namespace, all)| {
            all.keys().map(move |name| (namespace.clone(), name.clone()))
        });
        names.collect()
    }

    /// A pod goes: it is taken off all budgets that are about it. Whether one of them does not allow that.
    pub fn spend(&self, pod: &Pending, spent: &mut Spent) -> bool {
        let mut is_over = false;
        for (name, budget) in self.0.get(&pod.namespace).into_iter().flatten() {
            if !budget.selector.selects(&pod.labels) || budget.disrupted.contains(&pod.name) {
                continue;
            }
            let spent = spent.entry((pod.namespace.clone(), name.clone())).or_default();
            *spent += 1;
            is_over |= *spent > budget.allowed;
        }
        is_over
    }
}
