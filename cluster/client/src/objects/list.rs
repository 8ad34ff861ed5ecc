//! Lists: whole ones, pages bound to one revision, filtered ones.
//!
//! A page's token holds the revision and the last key; all pages of one list show one state. When
//! that state is no longer kept the answer is `Expired`, and [`fresh_token`] gives a token that goes
//! on at the newest state from the same place.

use super::Reader;
use super::stored::text;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use impresario_api::resource::{Resource, Row, resource_key};
use impresario_api::selector::{FieldSelector, LabelNeed, LabelSelector};
use impresario_api::status::Status;
use impresario_registry_api::{Condition, Demand, Revision, Selection};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Which objects of a collection are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// By label.
    pub labels: Option<LabelSelector>,
    /// By field.
    pub fields: Option<FieldSelector>,
    /// The one of this name.
    pub name: Option<String>,
}

impl Filter {
    /// Whether an object is meant.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.labels.as_ref().is_none_or(|labels| labels.matches_object(object))
            && self.fields.as_ref().is_none_or(|fields| fields.matches(resource, object))
            && self.name.as_deref().is_none_or(|name| text(object, "/metadata/name") == name)
    }

    /// Whether everything is meant.
    pub fn is_everything(&self) -> bool {
        self.name.is_none()
            && self.labels.as_ref().is_none_or(LabelSelector::is_everything)
            && self.fields.as_ref().is_none_or(FieldSelector::is_everything)
    }

    /// About how many bytes it takes to keep it where it is followed: as it was read, and as the registry looks for it.
    /// What is short takes much more than its letters.
    pub fn bytes(&self) -> usize {
        /// Of a string, and of its place among others.
        const EACH: usize = 64;
        let labels = self.labels.iter().flat_map(LabelSelector::needs).map(|(key, need)| {
            let values = match need {
                LabelNeed::In(values) | LabelNeed::NotIn(values) => values,
                LabelNeed::Exists | LabelNeed::Absent => &[],
            };
            key.len() + EACH + values.iter().map(|value| value.len() + EACH).sum::<usize>()
        });
        let terms = self.fields.as_ref().map(FieldSelector::terms).unwrap_or_default();
        let fields = terms.iter().map(|term| term.label.len() + term.value.len() + 2 * EACH);
        2 * (labels.sum::<usize>() + fields.sum::<usize>())
    }

    /// The part of it that the registry can do by itself.
    pub(crate) fn selection(&self, resource: &Resource, namespace: Option<&str>) -> Selection {
        let terms = self.fields.as_ref().map(FieldSelector::terms).unwrap_or_default();
        let wanted = |label: &str| {
            let term = terms
                .iter()
                .find(|term| term.equal && term.label == label && !term.value.is_empty());
            term.map(|term| term.value.clone())
        };
        let namespace = namespace.filter(|namespace| !namespace.is_empty()).map(ToOwned::to_owned);
        Selection {
            resource: resource_key(resource),
            namespace: namespace
                .or_else(|| wanted("metadata.namespace").filter(|_| resource.namespaced)),
            name: self.name.clone().or_else(|| wanted("metadata.name")),
            field: resource
                .field("spec.nodeName")
                .and_then(|field| Some((field.pointer.to_string(), wanted(&field.label)?))),
        }
    }
}

impl Filter {
    /// What every object that is meant meets; an object that meets all of it may still not be meant.
    pub(crate) fn conditions(&self, resource: &Resource) -> Vec<Condition> {
        let terms = self.fields.as_ref().map(FieldSelector::terms).unwrap_or_default();
        let fields = terms.iter().filter_map(|term| {
            let field = resource.field(&term.label)?;
            Some(Condition::Field {
                pointer: field.pointer.to_string(),
                absent: field.absent.to_string(),
                value: term.value.clone(),
                equal: term.equal,
            })
        });
        let label = |key: &str, demand| Condition::Label { key: key.to_owned(), demand };
        let labels = self.labels.iter().flat_map(LabelSelector::needs).map(|(key, need)| {
            let demand = match need {
                LabelNeed::In(values) => Demand::In(values.iter().cloned().collect()),
                LabelNeed::NotIn(values) => Demand::NotIn(values.iter().cloned().collect()),
                LabelNeed::Exists => Demand::Exists,
                LabelNeed::Absent => Demand::Absent,
            };
            label(key, demand)
        });
        let nothing = self.labels.as_ref().is_some_and(LabelSelector::is_nothing);
        let nothing = nothing.then(|| label("", Demand::In(BTreeSet::new())));
        fields.chain(labels).chain(nothing).collect()
    }
}

/// How a list's resourceVersion is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// That state and no other.
    Exact,
    /// That state or a newer one.
    NotOlderThan,
}

/// What a list is asked for.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Which of them.
    pub filter: Filter,
    /// At most so many.
    pub limit: Option<usize>,
    /// Go on where another page ended.
    pub token: Option<String>,
    /// The state asked for; `Some(0)` is any.
    pub version: Option<Revision>,
    /// How `version` is meant.
    pub version_match: Option<VersionMatch>,
}

/// A list or one page of it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The objects in the order of their keys.
    pub items: Vec<Value>,
    /// The state that they are of.
    pub revision: Revision,
    /// Asks for the next page; `None` when there is none.
    pub token: Option<String>,
    /// How many objects come after this page, where it can be told.
    pub remaining: Option<usize>,
}

/// The inside of a continue token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    /// The revision that the list is of; `None` goes on at the newest.
    #[serde(rename = "rv")]
    pub(super) revision: Option<Revision>,
    #[serde(rename = "ns")]
    pub(super) namespace: String,
    #[serde(rename = "n")]
    pub(super) name: String,
}

impl Token {
    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn decode(text: &str) -> Result<Self, Status> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Status::bad_request("continue key is not valid: list again without it"))
    }
}

/// A token that goes on where an expired one would have, at the newest state.
pub fn fresh_token(expired: &str) -> Option<String> {
    let token = Token::decode(expired).ok()?;
    Some(Token { revision: None, ..token }.encode())
}

impl Reader {
    /// Lists objects.
    pub async fn list(&self, resource: &Row, query: &ListQuery) -> Result<Listed, Status> {
        let mut listing = self.listing(resource, query, None).await?;
        let mut items = Vec::new();
        while let Some(item) = listing.next().await? {
            items.extend(item.object());
        }
        Ok(Listed {
            items,
            revision: listing.revision(),
            token: listing.token().map(ToOwned::to_owned),
            remaining: listing.remaining(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_journey_and_a_broken_one_is_a_bad_request() {
        let token = Token { revision: Some(7), namespace: "default".into(), name: "web-1".into() };
        assert_eq!(Token::decode(&token.encode()), Ok(token.clone()));

        let fresh = fresh_token(&token.encode()).unwrap();
        assert_eq!(Token::decode(&fresh).unwrap(), Token { revision: None, ..token });

        for broken in ["", "%%", "e30"] {
            assert_eq!(Token::decode(broken).unwrap_err().code(), 400, "{broken:?}");
        }
    }
}
