//! What others ask the scheduler and tell it.

use super::Scheduler;
use super::explain;
use super::plan::{Away, Moment};
use actix::prelude::*;
use impresario_client::protocol::control::{Describe, Description};
use impresario_client::protocol::scheduler::{
    Examination, Examine, Explain, Explanation, NotWaiting, SchedulerStatus, Status,
    SummaryChanged, actor_name,
};
use impresario_registry_api::{Key, shard_of};
use impresario_runtime::clock;

impl Handler<SummaryChanged> for Scheduler {
    type Result = ();

    fn handle(&mut self, message: SummaryChanged, ctx: &mut Self::Context) {
        self.summary(message.summary, ctx);
    }
}

impl Handler<Status> for Scheduler {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        MessageResult(SchedulerStatus {
            name: self.settings.name.clone(),
            policy: self.policy.name().to_owned(),
            pending: self.queue.len() as u64,
            unschedulable: self.queue.stuck() as u64,
            nodes: self
                .picture
                .nodes()
                .map(|node| (node.name.clone(), node.free.clone()))
                .collect(),
            bound: self.bound,
            refused: self.refused,
        })
    }
}

impl Handler<Describe> for Scheduler {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        let subject = actor_name(&self.settings.name);
        MessageResult(Description {
            shard: self.fence.map_or_else(|| shard_of(&subject), |fence| fence.shard).0,
            epoch: self.fence.map_or(0, |fence| fence.epoch.0),
            looks: self.passes,
            last_error: None,
            subject,
        })
    }
}

impl Handler<Explain> for Scheduler {
    type Result = Result<Explanation, NotWaiting>;

    fn handle(&mut self, message: Explain, _: &mut Self::Context) -> Self::Result {
        let key = Key::new("pods", &message.namespace, &message.pod);
        let Some(waiting) = self.queue.named(&key) else {
            return Err(NotWaiting { namespace: message.namespace, pod: message.pod });
        };
        Ok(Explanation {
            requests: waiting.pod.requests.clone(),
            attempts: waiting.attempts,
            message: waiting.why.as_ref().map(ToString::to_string).unwrap_or_default(),
        })
    }
}

impl Handler<Examine> for Scheduler {
    type Result = Result<Examination, NotWaiting>;

    fn handle(&mut self, message: Examine, _: &mut Self::Context) -> Self::Result {
        let key = Key::new("pods", &message.namespace, &message.pod);
        let Some(waiting) = self.queue.named(&key) else {
            return Err(NotWaiting { namespace: message.namespace, pod: message.pod });
        };
        let now = clock::now();
        let away = |node: &str| self.is_silent(node, now).then_some(Away::Silent);
        let moment = Moment { away: &away, ..Moment::of(&self.picture, 0) };
        let seen = explain::look(&waiting.pod, &moment, &*self.policy);
        let nominated = self.picture.nominations.get(&waiting.pod.uid);
        Ok(Examination {
            requests: waiting.pod.requests.clone(),
            attempts: waiting.attempts,
            message: waiting.why.as_ref().map(ToString::to_string).unwrap_or_default(),
            nominated: nominated.map(|nomination| nomination.node.clone()),
            nodes: seen.nodes as u64,
            fitting: seen.fitting as u64,
            unfit: seen.unfit,
            best: seen.best,
        })
    }
}
