//! Looks at one object, lets its controller decide, and has done what it wants.

use super::super::activation::Activation;
use super::super::control::{Look, LookError, Next};
use super::super::mirror::Seen;
use super::super::owned::Owner;
use super::super::view::replace;
use super::super::wrote::Wrote;
use super::apply::Behalf;
use super::conditions;
use super::controller::Controller;
use super::effects::{Effects, Shortfall};
use super::looks_at::LooksAt;
use super::shared::Shared;
use super::view::{Part, View};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use impresario_objects::events::Severity;
use impresario_registry_api::{Fence, Transaction};
use k8s_openapi::Resource as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The longest part of a panic's message that is told to people, in characters.
const PANIC_TOLD: usize = 300;

/// The work of one controller on one object.
pub struct Worker<C: Controller> {
    shared: Shared,
    fence: Fence,
    namespace: String,
    name: String,
    uid: String,
    looks_at: LooksAt<C::Object>,
    /// What was written to each of these kinds.
    wrote: Vec<Wrote>,
    wrote_self: Wrote,
}

impl<C: Controller> Worker<C> {
    /// For the object of this activation.
    #[must_use]
    pub fn new(shared: Shared, activation: &Activation) -> Self {
        let looks_at = C::looks_at();
        Self {
            shared,
            fence: activation.fence,
            namespace: activation.namespace.clone(),
            name: activation.name.clone(),
            uid: activation.uid.clone(),
            wrote: looks_at.each().map(|_| Wrote::since(activation.since)).collect(),
            wrote_self: Wrote::since(activation.since),
            looks_at,
        }
    }

    /// The work, ready for a control actor.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Look> {
        Arc::new(self)
    }

    /// Waits until everything is seen that this activation, or the one before it, has written.
    pub(in crate::controllers) async fn caught_up(&self) -> Result<(), LookError> {
        let mirrors = &self.shared.mirrors;
        self.wrote_self.seen_by(&mirrors.of::<C::Object>()).await?;
        for (other, wrote) in self.looks_at.each().zip(&self.wrote) {
            other.seen(mirrors, wrote).await?;
        }
        Ok(())
    }

    pub(in crate::controllers) async fn look_once(&self) -> Result<Next, LookError> {
        self.caught_up().await?;
        let mirrors = &self.shared.mirrors;
        let seen = mirrors.of::<C::Object>().get(&self.namespace, &self.name);
        let Some(seen) = seen.filter(|seen| self.is_meant(seen)) else {
            return Ok(Next::WhenTold);
        };
        let stored: Value = serde_json::from_slice(&seen.entry.value)
            .map_err(|error| damaged(&seen, error.to_string()))?;
        let parts: Vec<Part> =
            self.looks_at.each().map(|other| other.part(mirrors, &seen)).collect();
        let behalf = Behalf {
            objects: self.shared.objects.fenced(self.fence),
            events: &self.shared.events,
            fence: self.fence,
            entry: &seen.entry,
            owner: Owner {
                object: &stored,
                api_version: C::Object::API_VERSION,
                kind: C::Object::KIND,
            },
            uid: &self.uid,
        };
        let now = (self.shared.clock)();
        let view = View::new(&*seen.object, &stored, &parts);
        let decided = catch_unwind(AssertUnwindSafe(|| C::reconcile(&view, now)));
        let effects = decided.map_err(|panic| {
            let error = LookError::Panicked { message: message_of(panic.as_ref()) };
            behalf.tell(Severity::Warning, "ReconcilePanicked", &error.to_string());
            error
        })?;

        let Effects { actions, status, shortfall, look_again } = effects;
        let applied = behalf.apply(actions, &parts, &self.wrote).await;
        let shortfall = applied
            .refused()
            .map(|(reason, message)| Shortfall { reason: reason.into(), message })
            .or(shortfall);
        // What failed is said before it is tried again.
        let told = self.report(&seen, status, shortfall.as_ref(), now).await;
        applied.into_result().and(told)?;
        Ok(look_again.map_or(Next::WhenTold, Next::At))
    }

    fn is_meant(&self, seen: &Seen<C::Object>) -> bool {
        use k8s_openapi::Metadata as _;
        seen.object.metadata().uid.as_deref() == Some(&self.uid)
    }

    /// Writes the status where it is another than was seen.
    async fn report(
        &self,
        seen: &Seen<C::Object>,
        status: Option<Result<Value, String>>,
        shortfall: Option<&Shortfall>,
        now: Timestamp,
    ) -> Result<(), LookError> {
        // As the typed view writes it, so that no other spelling of the same is a change.
        let was = serde_json::to_value(&*seen.object)
            .map_err(|error| damaged(seen, error.to_string()))?["status"]
            .take();
        let mut status = match status {
            Some(status) => status.map_err(|cause| damaged(seen, cause))?,
            None if was.is_null() && shortfall.is_none() => return Ok(()),
            None => was.clone(),
        };
        if let Some(kind) = C::FAILURE {
            conditions::set(&mut status, kind, shortfall, now);
        }
        if status == was {
            return Ok(());
        }
        let (compare, operation) = replace(seen, &["status"], &status)?;
        let transaction = Transaction {
            compares: vec![compare],
            operations: vec![operation],
            fence: Some(self.fence),
            ..Transaction::default()
        };
        let committed = self.shared.objects.registry().transact(transaction).await?;
        self.wrote_self.at(committed.revision);
        Ok(())
    }
}

impl<C: Controller> Look for Worker<C> {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        self.look_once().boxed()
    }
}

fn damaged<K>(seen: &Seen<K>, cause: String) -> LookError {
    LookError::Damaged { key: seen.entry.key.to_string(), cause }
}

/// What a panic said, cut short: what it says may be of any length.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a word").chars().take(PANIC_TOLD).collect()
}
