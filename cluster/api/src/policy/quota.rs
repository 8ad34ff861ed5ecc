//! ResourceQuota: what objects of a namespace count for, and whether there is room for one more.
//!
//! ```text
//! names   which amounts a quota may bound, and of which kind each is counted
//! scopes  which objects a quota is about
//! usage   what an object counts for
//! ```
//!
//! What is used is written down in the quota's status. [`Quota::charge`] adds to it what a write needs, or says why there
//! is no room; [`Quota::counted`] counts anew. Whoever stores the one or the other makes sure that nothing was counted in
//! between.

mod names;
mod scopes;
mod usage;

pub use names::{counts, goes_with, is_quota_resource};
pub use scopes::SCOPES;
pub use usage::{growth, is_counted_when_changed, usage};

use super::amounts::{Amounts, add, read, write};
use crate::field::{at, object_mut, set, text};
use crate::quantity::Quantity;
use crate::resource::Resource;
use jiff::Timestamp;
use scopes::Scope;
use serde_json::Value;
use std::sync::Arc;

/// A quota, and how much of it is used.
#[derive(Debug, Clone)]
pub struct Quota {
    name: String,
    hard: Amounts,
    used: Amounts,
    scopes: Vec<Scope>,
    object: Arc<Value>,
}

impl Quota {
    /// Reads a `ResourceQuota`.
    pub fn read(object: Value) -> Self {
        Self {
            name: text(&object, "metadata.name").to_owned(),
            hard: read(&object, "spec.hard"),
            used: read(&object, "status.used"),
            scopes: scopes::of(&object),
            object: Arc::new(object),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The object, with what was charged.
    pub fn object(&self) -> Value {
        let mut object = Value::clone(&self.object);
        set(object_mut(&mut object, "status"), "used", write(&self.used));
        object
    }

    /// What it bounds.
    pub fn hard(&self) -> &Amounts {
        &self.hard
    }

    /// Whether it says something about objects of a kind, whichever they are.
    pub fn is_about(&self, resource: &Resource) -> bool {
        self.hard.keys().any(|name| counts(resource, name))
    }

    /// Whether it says something about this object.
    fn is_about_object(&self, resource: &Resource, object: &Value) -> bool {
        self.is_about(resource) && self.scopes.iter().all(|scope| scope.has(resource, object))
    }

    /// Charges a new object, or a changed one with what it counts for more than before. Whether that changed anything;
    /// the error says why it may not be.
    pub fn charge(
        &mut self,
        resource: &Resource,
        object: &Value,
        old: Option<&Value>,
        now: Timestamp,
    ) -> Result<bool, String> {
        let grown = growth(resource, object, old, now);
        let used = self.room_for(resource, object, &grown, old.is_none())?;
        let is_charged = used.is_some();
        if let Some(used) = used {
            self.use_up(used);
        }
        Ok(is_charged)
    }

    /// What is used once an object is there that needs so much more, or nothing where that says nothing here; the error
    /// says why it may not be.
    pub fn room_for(
        &self,
        resource: &Resource,
        object: &Value,
        grown: &Amounts,
        is_new: bool,
    ) -> Result<Option<Amounts>, String> {
        if !self.is_about_object(resource, object) {
            return Ok(None);
        }
        let interesting = || self.hard.keys().filter(|name| counts(resource, name));
        if is_new && let Some(missing) = usage::missing(resource, object, interesting()) {
            return Err(format!("failed quota: {}: must specify {missing}", self.name));
        }
        if interesting().any(|name| !self.used.contains_key(name)) {
            let names: Vec<&str> = interesting().map(String::as_str).collect();
            return Err(format!(
                "status unknown for quota: {}, resources: {}",
                self.name,
                names.join(",")
            ));
        }
        let asked: Vec<(&String, Quantity)> = grown
            .iter()
            .filter(|(name, _)| self.hard.contains_key(*name))
            .map(|(name, amount)| (name, *amount))
            .collect();
        if asked.is_empty() {
            return Ok(None);
        }
        let mut used = self.used.clone();
        for (name, amount) in &asked {
            let sum = used.get(*name).copied().unwrap_or_else(Quantity::zero).plus(*amount);
            used.insert((*name).clone(), sum);
        }
        let over: Vec<&String> = asked
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| used[*name] > self.hard[*name])
            .collect();
        if !over.is_empty() {
            let told = |amounts: &Amounts| -> String {
                let each = over.iter().filter_map(|name| Some((name, amounts.get(*name)?)));
                each.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
            };
            return Err(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                self.name,
                told(grown),
                told(&self.used),
                told(&self.hard)
            ));
        }
        Ok(Some(used))
    }

    /// So much is used from now on.
    pub fn use_up(&mut self, used: Amounts) {
        self.used = used;
    }

    /// Begins to count anew.
    pub fn nothing(&self) -> Amounts {
        self.hard.keys().map(|name| (name.clone(), Quantity::zero())).collect()
    }

    /// Adds to a count what an object counts for, where it does.
    pub fn count(
        &self,
        counted: &mut Amounts,
        resource: &Resource,
        object: &Value,
        now: Timestamp,
    ) {
        if self.is_about_object(resource, object) {
            let mut own = usage(resource, object, now);
            own.retain(|name, _| self.hard.contains_key(name));
            add(counted, &own);
        }
    }

    /// The object with this count, or nothing where it says the same already.
    pub fn counted(&self, counted: &Amounts) -> Option<Value> {
        let status = serde_json::json!({ "hard": write(&self.hard), "used": write(counted) });
        let is_news = at(&self.object, "status") != &status;
        is_news.then(|| {
            let mut object = Value::clone(&self.object);
            set(&mut object, "status", status);
            object
        })
    }
}

#[cfg(test)]
mod tests;
