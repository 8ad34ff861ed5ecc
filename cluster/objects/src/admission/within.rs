//! In which namespaces something holds.

use super::asked::Asked;
use crate::Objects;
use impresario_api::catalog::find;
use impresario_api::selector::LabelSelector;
use impresario_registry_api::Consistency;
use serde_json::Value;

impl Objects {
    /// Whether the namespace of what is written has these labels. What is in none has them always, but a namespace by its
    /// own.
    pub(crate) async fn is_in(
        &self,
        labels: &LabelSelector,
        asked: &Asked<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<bool, String> {
        if labels.is_everything() {
            return Ok(true);
        }
        let resource = asked.resource;
        if resource.group.is_empty() && resource.plural == "namespaces" {
            return Ok(labels.matches_object(if object.is_null() { old } else { object }));
        }
        // What is written into a namespace that is not there will be refused for that: nobody is left out for it.
        Ok(match self.namespace_of(asked).await? {
            Some(namespace) => labels.matches_object(&namespace),
            None => true,
        })
    }

    /// The namespace in which something is written; nothing where it is in none, or in one that is not there.
    pub(crate) async fn namespace_of(&self, asked: &Asked<'_>) -> Result<Option<Value>, String> {
        if !asked.resource.namespaced {
            return Ok(None);
        }
        let namespaces = find("", "v1", "namespaces").ok_or("no namespaces are served")?;
        // Only absence must be certain.
        for consistency in [Consistency::Local, Consistency::Linearizable] {
            let found = self.find(&namespaces, "", asked.namespace, consistency).await;
            if let Some(found) = found.map_err(|status| status.message)? {
                return Ok(Some(found.object));
            }
        }
        Ok(None)
    }
}
