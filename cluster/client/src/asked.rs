//! What a program asks of actors that run on one control member at a time, and of those of objects: to scale, to pause.

use crate::client::Client;
use crate::objects::protocol::{Refusal, Sender};
use crate::protocol::control::{ControlRole, Describe, Scale, Suspend};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use impresario_api::catalog::find_kind;
use impresario_api::status::Status;
use impresario_registry_api::Revision;
use impresario_runtime::{Accepts, ActorName, ActorPath, ActorRef, AskError, Message, Role};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::{Duration, Instant};
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

/// An actor that was asked, and what it says.
type Found<R, M> = Result<(ActorRef<R>, <M as Message>::Reply), AskError>;

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

    /// Asks an actor that runs on one control member at a time, such as a scheduler or what drives
    /// an object: all members are asked at once, and the one that has it answers. Gives the actor
    /// too. For messages that ask; one that changes something may find the actor twice while its
    /// shard moves.
    pub async fn ask_member<R, M>(
        &self,
        actor: &str,
        message: M,
        deadline: Duration,
    ) -> Result<(ActorRef<R>, M::Reply), AskError>
    where
        R: Role + Accepts<M>,
        M: Message + Clone,
    {
        let mut asked = self.ask_members(actor, &message, deadline);
        // What says most: that a member refused, then that one could not be asked.
        let mut worst = AskError::NoSuchActor { actor: ActorName::from(actor) };
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(found) => return Ok(found),
                Err(error @ AskError::Refused { .. }) => return Err(error),
                Err(AskError::NoSuchActor { .. }) => {}
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    /// Asks the actors of this name of all members at once; their answers as they come.
    fn ask_members<R, M>(
        &self,
        actor: &str,
        message: &M,
        deadline: Duration,
    ) -> impl Stream<Item = Found<R, M>> + Unpin + use<R, M>
    where
        R: Role + Accepts<M>,
        M: Message + Clone,
    {
        let ask = |member| {
            let found = self.node().actor::<R>(ActorPath::new(member, actor));
            let answer = found.ask(message.clone(), deadline);
            async move { answer.await.map(|reply| (found, reply)) }
        };
        self.members().into_iter().map(ask).collect::<FuturesUnordered<_>>()
    }

    /// Asks an actor ([`actor_of`] names it) for so many copies. Gives the revision at which its object says so.
    pub async fn scale(
        &self,
        actor: &str,
        replicas: u32,
        deadline: Duration,
    ) -> Result<Revision, AskedError> {
        let scale = Scale { sender: self.sender(), replicas };
        self.have_changed(actor, scale, deadline).await
    }

    /// Asks the actor of a job to pause it, or to let it go on. Gives the revision at which the job says so.
    pub async fn suspend(
        &self,
        actor: &str,
        suspend: bool,
        deadline: Duration,
    ) -> Result<Revision, AskedError> {
        let suspend = Suspend { sender: self.sender(), suspend };
        self.have_changed(actor, suspend, deadline).await
    }

    /// Has the actor of an object change it: one that says that it is there, and another only where that one did
    /// nothing. While a shard moves there may be two for a moment, and a second copy of the message might be done after
    /// what somebody said since.
    async fn have_changed<M>(
        &self,
        actor: &str,
        message: M,
        deadline: Duration,
    ) -> Result<Revision, AskedError>
    where
        ControlRole: Accepts<M>,
        M: Message<Reply = Result<Revision, Refusal>> + Clone,
    {
        let begun = Instant::now();
        let mut there = self.ask_members::<ControlRole, Describe>(actor, &Describe, deadline);
        let nobody = AskError::NoSuchActor { actor: ActorName::from(actor) };
        let mut worst = AskedError::Ask(nobody);
        while let Some(answer) = there.next().await {
            let found = match answer {
                Ok((found, _)) => found,
                Err(error @ AskError::Refused { .. }) => return Err(error.into()),
                Err(AskError::NoSuchActor { .. }) => continue,
                Err(error) => {
                    // That one refused it says more.
                    if !matches!(worst, AskedError::Refused(_)) {
                        worst = error.into();
                    }
                    continue;
                }
            };
            let left = deadline.saturating_sub(begun.elapsed());
            match found.ask(message.clone(), left).await {
                Ok(Ok(revision)) => return Ok(revision),
                Ok(Err(refusal)) => {
                    let status = Status::from(refusal);
                    // It does not reach the registry, or has lost its shard: nothing was changed.
                    if status.code() != 503 {
                        return Err(status.into());
                    }
                    worst = status.into();
                }
                Err(error @ (AskError::NoSuchActor { .. } | AskError::Overloaded { .. })) => {
                    worst = error.into();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(worst)
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
