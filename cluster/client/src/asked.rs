//! What a program asks of the actors of objects: to scale, to pause.

use crate::client::Client;
use crate::objects::protocol::Sender;
use crate::protocol::control::{ControlRole, Scale, Suspend};
use impresario_api::catalog::find_kind;
use impresario_api::status::Status;
use impresario_registry_api::Revision;
use impresario_runtime::AskError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::Duration;
use thiserror::Error;

/// Why an actor did not do what it was asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskedError {
    /// It did not answer, or does not take the message.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It was refused by the rules of the API, in the words of the API.
    #[error(transparent)]
    Refused(#[from] Status),
}

/// The name of the actor of an object, such as `deployment/UID`; nothing for one without a uid, and of a kind that is
/// not served.
pub fn actor_of<K>(object: &K) -> Option<String>
where
    K: k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    let resource = find_kind(K::GROUP, K::VERSION, K::KIND)?;
    let uid = object.metadata().uid.as_deref()?;
    Some(format!("{}/{uid}", resource.singular))
}

impl Client {
    /// Who this program is, for messages that say who sends them.
    pub fn sender(&self) -> Sender {
        let identity = self.node().identity();
        Sender { name: identity.node.as_str().to_owned(), role: identity.role.clone() }
    }

    /// Asks an actor ([`actor_of`] names it) for so many copies. Gives the revision at which its object says so.
    pub async fn scale(
        &self,
        actor: &str,
        replicas: u32,
        deadline: Duration,
    ) -> Result<Revision, AskedError> {
        let scale = Scale { sender: self.sender(), replicas };
        let (_, answer) = self.ask_member::<ControlRole, _>(actor, scale, deadline).await?;
        Ok(answer.map_err(Status::from)?)
    }

    /// Asks the actor of a job to pause it, or to let it go on. Gives the revision at which the job says so.
    pub async fn suspend(
        &self,
        actor: &str,
        suspend: bool,
        deadline: Duration,
    ) -> Result<Revision, AskedError> {
        let suspend = Suspend { sender: self.sender(), suspend };
        let (_, answer) = self.ask_member::<ControlRole, _>(actor, suspend, deadline).await?;
        Ok(answer.map_err(Status::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    #[test]
    fn an_actor_is_called_as_one_of_its_kind_is_and_by_the_uid() {
        let mut deployment = Deployment::default();
        assert_eq!(actor_of(&deployment), None);
        deployment.metadata.uid = Some("u".into());
        assert_eq!(actor_of(&deployment).as_deref(), Some("deployment/u"));
    }
}
