//! What is used here: every few seconds what the driver counts of each container is read, and told to the control members.

use super::NodeActor;
use super::sampler::{Read, SAMPLING};
use actix::prelude::*;
use impresario_client::protocol::usage::{Report, USAGE, UsageRole};
use impresario_host::machine;
use impresario_runtime::{ActorPath, clock, tasks};
use std::time::Duration;

/// How long the driver may take for a reading: what it has not told by then is told with the next one.
const READING_LIMIT: Duration = Duration::from_secs(4);

impl NodeActor {
    /// Reads and tells, and again after a while.
    pub(super) fn sample(&mut self, ctx: &mut Context<Self>) {
        let driver = self.kit.driver.clone();
        let work = async move {
            let used = tokio::time::timeout(READING_LIMIT, driver.usage()).await;
            let (at, now) = (clock::now(), clock::timestamp());
            let own = if driver.is_hollow() {
                None
            } else {
                tasks::spawn_blocking(machine::own_usage).await.ok().and_then(Result::ok)
            };
            match used {
                Ok(Ok(used)) => Ok(Read { at, now, used, own }),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the driver has not told within {READING_LIMIT:?}")),
            }
        };
        ctx.spawn(work.into_actor(self).map(|read, node, ctx| {
            match read {
                Ok(read) => {
                    let report = node.sampler.take(&node.key.name, read);
                    node.tell_usage(&report);
                }
                Err(error) => {
                    tracing::debug!(node = %node.key.name, error, "what is used cannot be read, trying again");
                }
            }
            ctx.run_later(SAMPLING, Self::sample);
        }));
    }

    fn tell_usage(&self, report: &Report) {
        for member in self.kit.members.borrow().iter() {
            let actor = self.kit.node.actor::<UsageRole>(ActorPath::new(member.clone(), USAGE));
            // Lost or not, the next one says everything again.
            if let Err(error) = actor.tell(report.clone()) {
                tracing::debug!(%member, %error, "a member is not told what is used");
            }
        }
    }
}
