//! Schemas that users define: `openAPIV3Schema` of a `CustomResourceDefinition`.
//!
//! A schema that [`Structural::parse`] takes is structural (every field has one type, said once), so
//! that its objects can be pruned, defaulted and validated without a second opinion. All of it is a
//! plain function of schema and object, within bounds: [`read`] holds those of a schema,
//! [`findings`] those of looking at an object.

mod bounds;
mod compile;
mod declared;
mod defaults;
mod document;
mod expressions;
pub mod findings;
mod given_defaults;
mod list_keys;
pub mod node;
pub mod place;
mod prune;
pub mod read;
pub mod room;
mod rule;
mod shape;
mod validate;

use crate::cause::{Cause, CauseReason};
use defaults::MAX_FILLED;
use findings::Findings;
use node::Node;
use place::Place;
use room::Room;
use serde_json::Value;
use std::sync::Arc;

/// A schema that has been found structural.
#[derive(Debug, Clone)]
pub struct Structural {
    root: Node,
    document: Arc<Value>,
}

impl Structural {
    /// Where the schema stands in a definition whose versions share one, as causes name it.
    pub const SHARED: &'static str = "spec.validation.openAPIV3Schema";

    /// Reads the schema that all versions of a definition share.
    pub fn parse(schema: &Value) -> Result<Self, Vec<Cause>> {
        Self::parse_at(schema, Self::SHARED)
    }

    /// Reads a schema that stands elsewhere: `spec.versions[1].schema.openAPIV3Schema`.
    pub fn parse_at(schema: &Value, at: &str) -> Result<Self, Vec<Cause>> {
        Self::parse_within(schema, at, &mut Room::default())
    }

    /// Reads one of several schemas, which have the same room together.
    pub fn parse_within(schema: &Value, at: &str, room: &mut Room) -> Result<Self, Vec<Cause>> {
        let place = Place::Root(at);
        let mut reader = read::Reader::default();
        std::mem::swap(&mut reader.room, room);
        let mut root = reader.node(schema, &place, 0);
        let mut findings = std::mem::take(&mut reader.findings);
        *room = reader.room;
        if findings.is_empty() {
            shape::check(&root, &place, &mut findings);
        }
        if findings.is_empty() {
            compile::compile(&mut root, &place, &mut findings);
        }
        if findings.is_empty() {
            given_defaults::check(&root, &place, room, &mut findings);
        }
        if findings.is_empty() {
            Ok(Self { root, document: Arc::new(schema.clone()) })
        } else {
            Err(findings.into_causes())
        }
    }

    /// Fills in what an object does not give. Idempotent. Where that is more than an object may be,
    /// it is left as it is, and [`Structural::validate`] says so.
    pub fn default(&self, object: &mut Value) {
        _ = defaults::fill(&self.root, object, &mut MAX_FILLED.clone());
    }

    /// Drops what the schema does not know. Idempotent.
    pub fn prune(&self, object: &mut Value) {
        prune::prune(&self.root, object, true);
    }

    /// What is wrong with an object that is new, or that replaces an old one.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        self.validate_within(findings::MAX_STEPS, new, old)
    }

    fn validate_within(&self, steps: u64, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut findings = Findings::within(steps);
        let place = Place::Root("");
        if defaults::owed(&self.root, new, &mut MAX_FILLED.clone()).is_none() {
            let why = format!(
                "Too long: the defaults of its fields are more than {MAX_FILLED} bytes: give fewer entries, or shorten the defaults in the definition"
            );
            findings.push(&place, CauseReason::TooLong, why);
            return findings.into_causes();
        }
        validate::value(&self.root, new, old, &place, &mut findings);
        let mut left = expressions::STEPS_OF_OBJECT;
        expressions::check(&self.root, new, old, &place, &mut left, &mut findings);
        findings.into_causes()
    }

    /// The schema for clients in OpenAPI v3, with what every object has; the caller adds
    /// `x-kubernetes-group-version-kind`.
    pub fn openapi(&self) -> Value {
        document::v3(&self.document)
    }

    /// The same in OpenAPI v2, which knows no alternatives and no null.
    pub fn openapi_v2(&self) -> Value {
        document::v2(&self.document)
    }

    /// The schema's root.
    pub fn root(&self) -> &Node {
        &self.root
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod bound_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod rule_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
