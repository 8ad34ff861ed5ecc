//! What members of the job, the auction and users ask its actor.

use super::{TrainingJob, status};
use crate::controllers::itself::Itself;
use actix::prelude::*;
use impresario_api::catalog::find_kind;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::protocol::{Part, Refusal};
use impresario_client::protocol::control;
use impresario_client::protocol::training::{
    Bid, ControlMembers, CurrentMap, Describe, Description, Held, JoinRefused, JoinTraining,
    NextPart, NextWork, Place, ReportError, RequestBid, RequestUnsureBid, Scale, ScaleError,
    ServerOrder, ServerReport, ShardMap, Size, TrainerReport, Welcome, Work,
};
use impresario_registry_api::{Epoch, Fence, Revision, shard_of};
use impresario_runtime::clock;
use serde_json::json;

impl Handler<JoinTraining> for TrainingJob {
    type Result = Result<Welcome, JoinRefused>;

    fn handle(&mut self, join: JoinTraining, context: &mut Self::Context) -> Self::Result {
        if !self.awake {
            return Err(JoinRefused::NotYet);
        }
        if !self.is_sure(clock::now()) {
            return Err(JoinRefused::NotYet);
        }
        let Place { path, address } = join.place.clone();
        let welcome = self.state.join(join, clock::now());
        if welcome.is_ok() {
            self.node.addresses().set(path.node, address);
        }
        self.drive(context);
        welcome
    }
}

impl Handler<NextWork> for TrainingJob {
    type Result = Result<Work, ReportError>;

    fn handle(&mut self, asked: NextWork, context: &mut Self::Context) -> Self::Result {
        self.work(&asked, None, context)
    }
}

impl Handler<NextPart> for TrainingJob {
    type Result = Result<Work, ReportError>;

    fn handle(&mut self, part: NextPart, context: &mut Self::Context) -> Self::Result {
        self.work(&part.asked, Some(&part.held), context)
    }
}

impl TrainingJob {
    fn work(
        &mut self,
        asked: &NextWork,
        held: Option<&Held>,
        context: &mut Context<Self>,
    ) -> Result<Work, ReportError> {
        let (before, now) = (self.state.phase(), clock::now());
        self.sure_of(now)?;
        let work = self.state.work_beside(asked, held, now);
        if self.state.phase() != before {
            self.drive(context);
        }
        work
    }
}

impl Handler<TrainerReport> for TrainingJob {
    type Result = Result<bool, ReportError>;

    fn handle(&mut self, report: TrainerReport, _: &mut Self::Context) -> Self::Result {
        let now = clock::now();
        self.sure_of(now)?;
        self.state.alive(&report, now)
    }
}

impl Handler<ServerReport> for TrainingJob {
    type Result = Result<ServerOrder, ReportError>;

    fn handle(&mut self, report: ServerReport, _: &mut Self::Context) -> Self::Result {
        let now = clock::now();
        self.sure_of(now)?;
        self.state.report(&report, now)
    }
}

impl Handler<CurrentMap> for TrainingJob {
    type Result = Result<ShardMap, ReportError>;

    fn handle(&mut self, asked: CurrentMap, _: &mut Self::Context) -> Self::Result {
        self.sure_of(clock::now())?;
        self.state.map_for(&asked)
    }
}

impl Handler<ControlMembers> for TrainingJob {
    type Result = MessageResult<ControlMembers>;

    fn handle(&mut self, _: ControlMembers, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.desk.control_members())
    }
}

impl TrainingJob {
    /// What it bids now; nothing while it may not, or waits for nothing.
    fn bid(&self) -> Option<Bid> {
        let now = clock::now();
        if !self.awake || !self.is_sure(now) {
            return None;
        }
        let created = status::created_unix_seconds(&self.job);
        let (namespace, name) = (self.text("namespace"), self.text("name"));
        self.state.bid(namespace, name, created, now)
    }
}

impl Handler<RequestBid> for TrainingJob {
    type Result = MessageResult<RequestBid>;

    fn handle(&mut self, _: RequestBid, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.bid())
    }
}

impl Handler<RequestUnsureBid> for TrainingJob {
    type Result = MessageResult<RequestUnsureBid>;

    fn handle(&mut self, _: RequestUnsureBid, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.bid().map(Into::into))
    }
}

impl Handler<Scale> for TrainingJob {
    type Result = Result<(), ScaleError>;

    fn handle(&mut self, scale: Scale, context: &mut Self::Context) -> Self::Result {
        let now = clock::now();
        if !self.awake || !self.is_sure(now) {
            return Err(ScaleError::InDoubt);
        }
        let outcome = self.state.scale(&scale, now);
        self.drive(context);
        outcome
    }
}

impl Handler<Describe> for TrainingJob {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        let now = clock::now();
        let (state, book) = (&self.state, self.state.book());
        let size: Size = state.size();
        MessageResult(Description {
            size,
            wanted: state.wanted(),
            step: state.steps(),
            total_steps: state.total_steps(),
            loss: book.loss().map(|loss| loss as f32),
            evaluated: book.evaluation(),
            steps_per_second: book.steps_per_second(now),
            remaining_seconds: status::remaining_seconds(state, now),
            ended: state.ended(),
        })
    }
}

impl Handler<control::Describe> for TrainingJob {
    type Result = MessageResult<control::Describe>;

    fn handle(&mut self, _: control::Describe, _: &mut Self::Context) -> Self::Result {
        MessageResult(control::Description {
            subject: format!("trainingjobs {}/{}", self.text("namespace"), self.text("name")),
            shard: shard_of(&self.uid).0,
            epoch: self.lease,
            looks: self.looks,
            last_error: self.last_error.clone(),
        })
    }
}

impl Handler<control::Scale> for TrainingJob {
    type Result = ResponseFuture<Result<Revision, Refusal>>;

    /// Trainers, where their number is fixed. Between a least and a most the auction decides.
    fn handle(&mut self, scale: control::Scale, _: &mut Self::Context) -> Self::Result {
        let refused = |reason, why: &str| -> Self::Result {
            let refusal = Status::new(reason, why).into();
            Box::pin(async move { Err(refusal) })
        };
        let Some(resource) = find_kind("training.impresario.dev", "v1", "TrainingJob") else {
            return refused(Reason::NotFound, "training jobs are not served here");
        };
        if !self.awake {
            return refused(
                Reason::ServiceUnavailable,
                "the actor has not seen its job yet: ask again",
            );
        }
        let trainer = &self.state.spec().trainer;
        let now = trainer.min;
        if now != trainer.max {
            return refused(
                Reason::Conflict,
                "the size of this job is between its least and its most, where the auction decides: change \
                 spec.trainer.min and spec.trainer.max",
            );
        }
        let itself = Itself {
            node: self.node.clone(),
            resource,
            namespace: self.text("namespace").to_owned(),
            name: self.text("name").to_owned(),
            uid: self.uid.clone(),
            fence: Fence { shard: shard_of(&self.uid), epoch: Epoch(self.lease) },
        };
        let operation = |op, field, value| json!({ "op": op, "path": format!("/spec/trainer/{field}"), "value": value });
        let patch = vec![
            operation("test", "min", now),
            operation("test", "max", now),
            operation("add", "min", scale.replicas),
            operation("add", "max", scale.replicas),
        ];
        Box::pin(itself.change(scale.sender, Part::Main, patch))
    }
}
