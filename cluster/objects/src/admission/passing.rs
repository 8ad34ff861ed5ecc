//! What a write passes when it is known what it comes to.

use super::asked::{Action, Asked};
use crate::Objects;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::objects::WriteOptions;
use serde_json::Value;

impl Objects {
    /// Refuses what a policy or a webhook refuses.
    pub(crate) async fn permitted(
        &self,
        resource: &Row,
        asked: Asked<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<(), Status> {
        self.passed(asked, object, old).await?;
        self.validated(resource, asked, object, old).await
    }

    /// Refuses a deletion that a policy or a webhook refuses, before something is done that only makes sense with it. It is
    /// asked again by the deletion itself: what is deleted then may be in another state.
    pub(crate) async fn may_go(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        object: &Value,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let action = Action::Delete;
        let asked = Asked { resource, subresource: "", action, namespace, name, options };
        self.mutated(resource, asked, Value::Null, object).await?;
        self.permitted(resource, asked, &Value::Null, object).await
    }
}
