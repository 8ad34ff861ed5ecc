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
mod rule;
mod shape;
mod validate;

use crate::cause::Cause;
use findings::Findings;
use node::Node;
use place::Place;
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
        let place = Place::Root(at);
        let mut reader = read::Reader::default();
        let mut root = reader.node(schema, &place, 0);
        let mut findings = std::mem::take(&mut reader.findings);
        if findings.is_empty() {
            shape::check(&root, &place, &mut findings);
        }
        if findings.is_empty() {
            compile::compile(&mut root, &place, &mut findings);
        }
        if findings.is_empty() {
            given_defaults::check(&root, &place, &mut findings);
        }
        if findings.is_empty() {
            Ok(Self { root, document: Arc::new(schema.clone()) })
        } else {
            Err(findings.into_causes())
        }
    }

    /// Fills in what an object does not give. Idempotent.
    pub fn default(&self, object: &mut Value) {
        defaults::fill(&self.root, object);
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
        validate::value(&self.root, new, old, &place, &mut findings);
        expressions::check(&self.root, new, old, &place, &mut findings);
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
mod laws;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod rule_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
