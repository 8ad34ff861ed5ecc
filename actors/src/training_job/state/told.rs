//! What a job's actor tells of the job, and the two ends that it is told of.

use super::super::progress::ProgressBook;
use super::super::spec::Spec;
use super::{Phase, Remark, ScaleEvent, State};
use crate::training::data_plan::DataPlan;
use impresario_client::protocol::training::Size;
use std::time::Instant;

impl State {
    /// What is asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How far the job is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it has come to an end.
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether nothing is begun any more: it has ended, or its object is being deleted.
    pub fn over(&self) -> bool {
        self.deleting || self.ended()
    }

    /// The object is being deleted. Members are told to stop, and nothing is made in their place.
    pub fn is_deleted(&mut self) {
        self.deleting = true;
    }

    /// Whether the object is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// The object says that the job has ended: only now may those go who could end it again.
    pub fn end_is_written(&mut self, now: Instant) {
        if self.ended() {
            self.end_written.get_or_insert(now);
        }
    }

    /// Whether members are told to stop.
    pub fn dismisses(&self) -> bool {
        self.deleting || self.end_written.is_some()
    }

    /// What it wants to be.
    pub fn wanted(&self) -> Size {
        self.wanted
    }

    /// Epoch of the lease by which this activation runs.
    pub fn lease(&self) -> u64 {
        self.lease
    }

    /// What the job waits for, if it has not been granted its minimum.
    pub fn waits_for(&self) -> Option<&str> {
        (self.wanted == Size::default()).then_some(self.waiting.as_str())
    }

    /// Whether as many work as the job can do with at least.
    pub fn has_minimum(&self) -> bool {
        let (size, min) = (self.size(), self.spec.min());
        size.parameter_servers >= min.parameter_servers && size.trainers >= min.trainers
    }

    /// The latest round of the auction that gave the job another size, or told it that something else is missing.
    pub fn latest_round(&self) -> u64 {
        self.noted_round
    }

    /// Progress and predictions.
    pub fn book(&self) -> &ProgressBook {
        &self.book
    }

    /// Steps that are done; until a trainer has said what the data is, what the object says.
    pub fn steps(&self) -> u64 {
        self.plan.as_ref().map_or(self.recalled.unwrap_or(0), DataPlan::done)
    }

    /// Samples in the steps that are done.
    pub fn samples(&self) -> u64 {
        self.plan.as_ref().map_or(self.recalled_samples, DataPlan::samples_done)
    }

    /// The loss that an earlier activation wrote.
    pub fn recalled_loss(&self) -> Option<f64> {
        self.recalled_loss
    }

    /// The accuracy that an earlier activation wrote.
    pub fn recalled_accuracy(&self) -> Option<f64> {
        self.recalled_accuracy
    }

    /// Steps in all, if the rule says so.
    pub fn total_steps(&self) -> Option<u64> {
        self.plan.as_ref().and_then(DataPlan::total)
    }

    /// Changes of size since this activation began.
    pub fn scale_events(&self) -> &[ScaleEvent] {
        &self.scale_events
    }

    /// What is to be told to people since the last call.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }
}
