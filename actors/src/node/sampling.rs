//! What is used here: every few seconds what the driver counts of each container is read, and told to the control members.

use super::NodeActor;
use super::sampler::{Read, SAMPLING};
use actix::prelude::*;
use impresario_client::protocol::usage::{Report, USAGE, UsageRole};
use impresario_host::container::DriverError;
use impresario_host::{Used, machine};
use impresario_runtime::{ActorPath, clock, tasks};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long the driver may take for a reading.
const READING_LIMIT: Duration = Duration::from_secs(4);

impl NodeActor {
    /// Reads and tells, and again after a while.
    pub(super) fn sample(&mut self, ctx: &mut Context<Self>) {
        let driver = self.kit.driver.clone();
        let is_hollow = driver.is_hollow();
        let name = self.key.name.clone();
        let work = async move {
            let asked = tasks::spawn(async move { driver.usage().await });
            let used = answered(asked, &name).await?;
            let (at, now) = (clock::now(), clock::timestamp());
            let (own, cpus) = if is_hollow {
                (None, None)
            } else {
                let own = || (machine::own_usage().ok(), machine::cpus().ok());
                tasks::spawn_blocking(own).await.unwrap_or_default()
            };
            Ok::<_, String>(Read { at, now, used, own, cpus })
        };
        ctx.spawn(work.into_actor(self).map(|read, node, ctx| {
            let failed_before = std::mem::replace(&mut node.sampler.fails, read.is_err());
            match read {
                Ok(read) => {
                    let report = node.sampler.take(&node.key.name, read);
                    node.tell_usage(&report);
                }
                Err(error) if failed_before => {
                    tracing::debug!(node = %node.key.name, error, "what is used can still not be read");
                }
                Err(error) => {
                    tracing::warn!(node = %node.key.name, error,
                        "what is used here cannot be read: nobody is told, and autoscalers do not go by it. Trying again");
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

/// What the driver answers. One that hangs is not asked again beside itself: its answer is waited for, and thrown away, for
/// nobody knows of which moment it is.
async fn answered(
    mut asked: JoinHandle<Result<Vec<Used>, DriverError>>,
    node: &str,
) -> Result<Vec<Used>, String> {
    match tokio::time::timeout(READING_LIMIT, &mut asked).await {
        Ok(answer) => return answer.map_err(|lost| lost.to_string())?.map_err(|it| it.to_string()),
        Err(_) => tracing::warn!(
            node,
            "the driver has not told what is used within {READING_LIMIT:?}: nobody is told before it answers"
        ),
    }
    // However it ends.
    let _ended = asked.await;
    Err(format!("the driver has taken longer than {READING_LIMIT:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_hangs_is_waited_for_and_what_it_answers_then_is_thrown_away() {
        let ends = Arc::new(Notify::new());
        let until = ends.clone();
        let asked = tasks::spawn(async move {
            until.notified().await;
            Ok(Vec::new())
        });
        let mut answer = Box::pin(answered(asked, "n"));
        tokio::time::timeout(100 * READING_LIMIT, &mut answer).await.unwrap_err();
        assert!(answer.as_mut().now_or_never().is_none());
        ends.notify_one();
        assert!(answer.await.unwrap_err().contains("longer"));
    }

    #[tokio::test]
    async fn what_a_driver_answers_in_time_is_told() {
        let asked = tasks::spawn(async { Ok(Vec::new()) });
        assert_eq!(answered(asked, "n").await, Ok(Vec::new()));
    }
}
