//! Creates an object in one transaction with what the status says of it.

use super::super::control::LookError;
use super::super::owned::{self, Doubt, doubt};
use super::super::view::put;
use super::super::wrote::Wrote;
use super::apply::{Behalf, CREATING};
use super::effects::Begun;
use super::view::Part;
use impresario_api::status::Reason;
use impresario_objects::WriteOptions;
use std::collections::BTreeSet;

impl Behalf<'_> {
    /// Creates it, as long as the controller's object is as it was seen. The name is `taken` where another has it.
    pub(super) async fn begin(
        &self,
        begun: Begun,
        (part, wrote): (&Part, &Wrote),
        wrote_self: &Wrote,
        taken: &mut BTreeSet<String>,
    ) -> Result<(), LookError> {
        let Begun { kind, object, status } = begun;
        let resource = kind.served()?;
        let damaged = |cause| LookError::Damaged { key: self.entry.key.to_string(), cause };
        let mut itself = self.owner.object.clone();
        itself["status"] = status.map_err(damaged)?;
        let along = [put(self.entry, &itself)?];
        let namespace = part.namespace().unwrap_or(&self.entry.key.namespace);
        let options = WriteOptions::default();
        wrote.begin();
        let outcome =
            self.objects.create_along(&resource, namespace, object, &along, &options).await;
        let outcome = match outcome {
            Ok(object) => {
                let revision = owned::revision_of(&object);
                wrote.at(revision);
                wrote_self.at(revision);
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let message = format!("Created {}: {name}", resource.singular);
                self.tell_done(&resource, "SuccessfulCreate", &message);
                Ok(())
            }
            // Nothing is missing of what goes with its namespace.
            Err(error) if error.is_of_ending_namespace() => Ok(()),
            Err(error) => {
                if error.reason == Reason::AlreadyExists {
                    taken.insert(error.name.clone());
                } else if !error.is_fenced() && error.code() != 409 {
                    self.tell_failed(&CREATING, &error);
                }
                Err(error.into())
            }
        };
        match doubt(&outcome) {
            Doubt::No => wrote.all_known(),
            Doubt::MayBeDone => wrote.ended_unknown(),
            Doubt::MayCome => wrote.ended_unheard(),
        }
        outcome
    }
}
