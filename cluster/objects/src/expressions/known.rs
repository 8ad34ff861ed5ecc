//! The policies that there are, as this process sees them.

use super::policy::{Binding, Policy};
use crate::admission::Asked;
use crate::followed::{All, Followed};
use impresario_api::rules::expressions::is_exempt;
use impresario_client::objects::Reader;
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";

/// The policies of a cluster and their bindings, followed. Cheap to clone; ends with the last clone.
#[derive(Debug, Clone)]
pub struct Policies(Arc<Following>);

#[derive(Debug)]
struct Following {
    policies: Followed<Arc<Policy>>,
    bindings: Followed<Arc<Binding>>,
}

impl Policies {
    /// Begins to follow. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(objects: &Reader) -> Self {
        let policies = |name: &str, object: &_| {
            let policy = Policy::read(object);
            if let Err(why) = &policy.said {
                tracing::warn!(policy = name, "cannot be understood: {why}");
            }
            Arc::new(policy)
        };
        let bindings = |_: &str, object: &_| Arc::new(Binding::read(object));
        Self(Arc::new(Following {
            policies: Followed::follow(objects, GROUP, "validatingadmissionpolicies", policies),
            bindings: Followed::follow(
                objects,
                GROUP,
                "validatingadmissionpolicybindings",
                bindings,
            ),
        }))
    }

    /// Whether it is known that no policy is about this.
    pub(super) fn none_covers(&self, asked: &Asked<'_>) -> bool {
        if is_exempt(asked.resource) {
            return true;
        }
        let (Some(policies), Some(bindings)) = (self.0.policies.all(), self.0.bindings.all())
        else {
            return false;
        };
        bindings.is_empty() || !policies.values().any(|policy| policy.may_cover(asked))
    }

    /// All policies and all bindings; nothing where they have not been read yet.
    pub(super) async fn read(&self) -> Option<(All<Arc<Policy>>, All<Arc<Binding>>)> {
        Some((self.0.policies.read().await?, self.0.bindings.read().await?))
    }
}
