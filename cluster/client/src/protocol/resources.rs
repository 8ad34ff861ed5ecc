//! Amounts of what a node has and a pod asks for, in exact integers.
//!
//! CPU is counted in thousandths of a core, memory in bytes, everything else (pods, GPUs and any
//! other extended resource) in units of its own under its Kubernetes name. Arithmetic saturates
//! at zero and at the largest integer and never wraps: an amount that is too large to be true
//! does not fit anywhere, which is what a scheduler should find.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The Kubernetes name of processor time.
pub const CPU: &str = "cpu";
/// The Kubernetes name of memory.
pub const MEMORY: &str = "memory";
/// The Kubernetes name of the number of pods that a node takes.
pub const PODS: &str = "pods";
/// The Kubernetes name under which GPUs are counted.
pub const GPU: &str = "nvidia.com/gpu";

/// An amount of every resource; what is not named is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// How many pods: one for a request, the limit for a node.
    pub pods: u64,
    /// All other resources by name, such as `nvidia.com/gpu` or `ephemeral-storage`.
    pub extended: BTreeMap<String, u64>,
}

impl Resources {
    /// The amount of the resource with this Kubernetes name, CPU in thousandths.
    pub fn get(&self, name: &str) -> u64 {
        match name {
            CPU => self.cpu_milli,
            MEMORY => self.memory_bytes,
            PODS => self.pods,
            other => self.extended.get(other).copied().unwrap_or(0),
        }
    }

    /// Sets the amount of the resource with this Kubernetes name; zero removes an extended one.
    pub fn set(&mut self, name: &str, amount: u64) {
        match name {
            CPU => self.cpu_milli = amount,
            MEMORY => self.memory_bytes = amount,
            PODS => self.pods = amount,
            other if amount == 0 => {
                self.extended.remove(other);
            }
            other => {
                self.extended.insert(other.to_owned(), amount);
            }
        }
    }

    /// The number of GPUs.
    pub fn gpus(&self) -> u64 {
        self.get(GPU)
    }

    /// Adds `other` to every amount.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Takes `other` from every amount; nothing falls below zero.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, u64::saturating_sub);
    }

    /// `self` without `other`; nothing falls below zero.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        rest
    }

    /// The larger of both in every resource.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, u64::max);
    }

    /// The smaller of both in every resource; what one of them does not name becomes zero.
    pub fn lower_to(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.min(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.min(other.memory_bytes);
        self.pods = self.pods.min(other.pods);
        self.extended.retain(|name, amount| {
            *amount = (*amount).min(other.get(name));
            *amount > 0
        });
    }

    /// Whether all of `request` is there.
    pub fn covers(&self, request: &Self) -> bool {
        self.cpu_milli >= request.cpu_milli
            && self.memory_bytes >= request.memory_bytes
            && self.pods >= request.pods
            && request.extended.iter().all(|(name, wanted)| self.get(name) >= *wanted)
    }

    /// The names of the resources of which `request` asks more than there is.
    pub fn short_of<'a>(&self, request: &'a Self) -> Vec<&'a str> {
        let named = [
            (CPU, self.cpu_milli < request.cpu_milli),
            (MEMORY, self.memory_bytes < request.memory_bytes),
            (PODS, self.pods < request.pods),
        ];
        let short = named.into_iter().filter(|(_, short)| *short).map(|(name, _)| name);
        let extended = request
            .extended
            .iter()
            .filter(|(name, wanted)| self.get(name) < **wanted)
            .map(|(name, _)| name.as_str());
        short.chain(extended).collect()
    }

    fn combine(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        self.cpu_milli = operation(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = operation(self.memory_bytes, other.memory_bytes);
        self.pods = operation(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let combined = operation(self.get(name), *amount);
            self.set(name, combined);
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}m, memory {}, pods {}", self.cpu_milli, self.memory_bytes, self.pods)?;
        self.extended.iter().try_for_each(|(name, amount)| write!(f, ", {name} {amount}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(cpu_milli: u64, gpus: u64) -> Resources {
        let mut resources = Resources { cpu_milli, ..Resources::default() };
        resources.set(GPU, gpus);
        resources
    }

    #[test]
    fn what_is_taken_and_given_back_is_as_before() {
        let whole = amount(4000, 2);
        let mut rest = whole.without(&amount(1500, 2));
        assert_eq!(rest, amount(2500, 0));
        rest.add(&amount(1500, 2));
        assert_eq!(rest, whole);
    }

    #[test]
    fn the_short_resources_are_named_as_kubernetes_names_them() {
        let node = amount(1000, 1);
        assert_eq!(node.short_of(&amount(2000, 2)), [CPU, GPU]);
        assert!(node.short_of(&amount(1000, 1)).is_empty());
        assert!(!node.covers(&amount(1000, 2)));
    }

    #[test]
    fn amounts_saturate_instead_of_wrapping() {
        let mut huge = amount(u64::MAX, 1);
        huge.add(&amount(5, 0));
        assert_eq!(huge.cpu_milli, u64::MAX);
        assert_eq!(amount(1, 0).without(&amount(2, 3)), amount(0, 0));
    }

    #[test]
    fn the_lower_of_two_names_only_what_both_have() {
        let mut lower = amount(3000, 2);
        lower.lower_to(&amount(5000, 0));
        assert_eq!(lower, amount(3000, 0));
    }
}
