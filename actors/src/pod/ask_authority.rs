//! Asking the cluster's authority: any control member's will do, its own member's first.

use super::kit::Kit;
use impresario_client::protocol::authority::{AUTHORITY, AuthorityRole};
use impresario_runtime::{Accepts, ActorPath, AskError, Message, random};
use std::time::Duration;
use thiserror::Error;

const DEADLINE: Duration = Duration::from_secs(5);

/// No control member answered.
#[derive(Debug, Error)]
#[error("no authority answered: {cause}")]
pub struct NoAuthority {
    /// What the last one that was asked said.
    cause: String,
}

/// What the first authority that can be reached answers.
pub(super) async fn ask_authority<M>(kit: &Kit, request: &M) -> Result<M::Reply, NoAuthority>
where
    M: Message + Clone,
    AuthorityRole: Accepts<M>,
{
    let unreachable = |cause: String| NoAuthority { cause };
    let mut members = kit.members.borrow().clone();
    // Its own member answers without a network; otherwise any.
    members.sort_by_key(|name| (name != kit.node.name(), random::random::<u32>()));
    let mut last = "the cluster has no control member".to_owned();
    for member in members {
        let path = ActorPath::new(member, AUTHORITY);
        match kit.node.actor::<AuthorityRole>(path).ask(request.clone(), DEADLINE).await {
            Ok(answer) => return Ok(answer),
            Err(error @ AskError::Refused { .. }) => return Err(unreachable(error.to_string())),
            Err(error) => last = error.to_string(),
        }
    }
    Err(unreachable(last))
}
