//! Lists: whole ones, pages bound to one revision, filtered ones.
//!
//! A page's token holds the revision and the last key; all pages of one list show one state. When
//! that state is no longer kept the answer is `Expired`, and [`fresh_token`] gives a token that goes
//! on at the newest state from the same place.

use super::Reader;
use super::refuse::read_refused;
use super::stored::{object_at, text};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use impresario_api::resource::{Resource, resource_key};
use impresario_api::selector::{FieldSelector, LabelSelector};
use impresario_api::status::Status;
use impresario_registry_api::{Consistency, ListRequest, Revision, Selection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
            field: wanted("spec.nodeName")
                .filter(|_| resource.plural == "pods")
                .map(|node| ("/spec/nodeName".to_owned(), node)),
        }
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
struct Token {
    /// The revision that the list is of; `None` goes on at the newest.
    #[serde(rename = "rv")]
    revision: Option<Revision>,
    #[serde(rename = "ns")]
    namespace: String,
    #[serde(rename = "n")]
    name: String,
}

impl Token {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
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

/// How many entries are read at a time when most may not match.
const FILTER_PAGE: usize = 500;

impl Reader {
    /// Lists objects.
    pub async fn list(
        &self,
        resource: &'static Resource,
        query: &ListQuery,
    ) -> Result<Listed, Status> {
        let token = query.token.as_deref().map(Token::decode).transpose()?;
        if token.is_some() && query.version.is_some_and(|version| version != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let exact = match (query.version, query.version_match) {
            (Some(version), Some(VersionMatch::Exact)) => Some(version),
            (Some(version), None) if version > 0 && query.limit.is_some() => Some(version),
            _ => None,
        };
        let any = query.version == Some(0) && exact.is_none();
        let mut request = ListRequest {
            select: query.filter.selection(resource, query.namespace.as_deref()),
            after: token.as_ref().map(|token| (token.namespace.clone(), token.name.clone())),
            limit: query.limit,
            at: token.as_ref().map_or(exact, |token| token.revision),
            consistency: if any { Consistency::Local } else { Consistency::Linearizable },
        };
        let everything = query.filter.is_everything();
        if query.limit.is_some() && !everything {
            request.limit = query.limit.map(|limit| limit.max(FILTER_PAGE));
        }
        let mut items = Vec::new();
        loop {
            let page = self
                .registry()
                .list(request.clone())
                .await
                .map_err(|error| read_refused(&error))?;
            if let Some(wanted) = query.version.filter(|wanted| *wanted > page.revision) {
                return Err(Status::revision_too_large(wanted, page.revision));
            }
            let last = page
                .entries
                .last()
                .map(|entry| (entry.key.namespace.clone(), entry.key.name.clone()));
            let count = page.entries.len();
            for (index, entry) in page.entries.iter().enumerate() {
                let object = match object_at(entry, entry.mod_revision) {
                    Ok(object) => object,
                    // All others are still there to be read.
                    Err(status) => {
                        tracing::error!(%status, "an object is left out of a list");
                        continue;
                    }
                };
                if !query.filter.matches(resource, &object) {
                    continue;
                }
                items.push(object);
                let more = index + 1 < count || page.remaining > 0;
                if more && query.limit.is_some_and(|limit| items.len() >= limit) {
                    let token = Token {
                        revision: Some(page.revision),
                        namespace: entry.key.namespace.clone(),
                        name: entry.key.name.clone(),
                    };
                    let left = page.remaining + count - index - 1;
                    return Ok(Listed {
                        items,
                        revision: page.revision,
                        token: Some(token.encode()),
                        remaining: everything.then_some(left),
                    });
                }
            }
            if page.remaining == 0 || last.is_none() {
                return Ok(Listed { items, revision: page.revision, token: None, remaining: None });
            }
            request.after = last;
            request.at = Some(page.revision);
        }
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
