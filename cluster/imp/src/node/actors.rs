//! Tells an operator which actors live on this node.

use actix::{Actor, Context, Handler};
use impresario_client::protocol::actors::{
    ACTORS, Actor as Living, ActorsRole, List, Mailbox, PAGE, Page,
};
use impresario_runtime::{ActorName, ActorNode, ActorUsage, SpawnError, SpawnOptions};

/// Serves it on a node.
pub fn serve(node: &ActorNode) -> Result<(), SpawnError> {
    let own = node.clone();
    node.spawn::<ActorsRole, _>(ACTORS, SpawnOptions::default(), move |_| {
        ActorsActor(own.clone())
    })?;
    Ok(())
}

struct ActorsActor(ActorNode);

impl Actor for ActorsActor {
    type Context = Context<Self>;
}

impl Handler<List> for ActorsActor {
    type Result = actix::MessageResult<List>;

    fn handle(&mut self, list: List, _: &mut Self::Context) -> Self::Result {
        let after = list.after.map(ActorName::from);
        let most = list.most.clamp(1, PAGE) as usize;
        let page = self.0.actors(after.as_ref(), most);
        actix::MessageResult(Page {
            actors: page.actors.into_iter().map(living).collect(),
            all: page.all as u64,
            more: page.more,
        })
    }
}

fn living(actor: ActorUsage) -> Living {
    Living {
        name: actor.name.to_string(),
        role: actor.role.to_owned(),
        restarts: actor.restarts,
        up_millis: u64::try_from(actor.up.as_millis()).unwrap_or(u64::MAX),
        mailbox: actor.mailbox.map(|mailbox| Mailbox {
            messages: mailbox.messages,
            bytes: mailbox.bytes,
            limit_messages: mailbox.limit_messages,
            limit_bytes: mailbox.limit_bytes,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::gate::ClusterGate;
    use impresario_runtime::{
        ActorPath, AskError, ClusterAuthority, Credential, NodeConfig, PeerRole,
    };
    use std::{sync::Arc, time::Duration};

    const LIMIT: Duration = Duration::from_secs(60);

    fn issue(authority: &ClusterAuthority, name: &str, role: PeerRole) -> Credential {
        authority.issue(name, role, &[], Duration::from_hours(1)).unwrap()
    }

    #[test]
    fn an_admin_and_a_member_are_told_page_by_page_and_others_are_refused() {
        actix::System::new().block_on(async {
            let authority = ClusterAuthority::create("test").unwrap();
            let gate = Arc::new(ClusterGate::default());
            let config = NodeConfig::new(issue(&authority, "n1", PeerRole::Node));
            let node = ActorNode::start(NodeConfig { gate, ..config }).await.unwrap();
            serve(&node).unwrap();
            crate::node::traffic::serve(&node).unwrap();
            let list = |after: Option<&str>, most| List { after: after.map(str::to_owned), most };
            let roles = [
                ("admin", PeerRole::Admin, true),
                ("m1", PeerRole::Control, true),
                ("n2", PeerRole::Node, false),
                ("program", PeerRole::Client, false),
                ("guest", PeerRole::Guest { scope: "j1".into() }, false),
            ];
            for (name, role, may) in roles {
                let config = NodeConfig::new(issue(&authority, name, role));
                let peer = ActorNode::start(config).await.unwrap();
                peer.addresses().set(node.name().clone(), node.local_addr());
                let actors = peer.actor::<ActorsRole>(ActorPath::new(node.name().clone(), ACTORS));
                let told = actors.ask(list(None, 1), LIMIT).await;
                if may {
                    let first = told.unwrap();
                    assert_eq!((first.actors.len(), first.all, first.more), (1, 2, true));
                    assert_eq!(first.actors[0].name, ACTORS);
                    let mailbox = first.actors[0].mailbox.unwrap();
                    assert!(mailbox.messages >= 1, "this question is being handled: {mailbox:?}");
                    let last = actors.ask(list(Some(ACTORS), u32::MAX), LIMIT).await.unwrap();
                    assert_eq!((last.actors.len(), last.more), (1, false));
                    assert_eq!(last.actors[0].name, "traffic");
                } else {
                    assert!(matches!(told, Err(AskError::Refused { .. })), "{name}: {told:?}");
                }
                peer.stop(LIMIT).await;
            }
            node.stop(LIMIT).await;
        });
    }
}
