//! What a TrainingJob object asks for, in types.

use crate::training::gathering::MOST_PARTS;
use impresario_api::quantity;
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::{Member, Size};
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// How far trainers may be apart where a job with bounded staleness says nothing.
const STALENESS: u32 = 3;

/// How gradients come together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each trainer's gradient is applied as it comes.
    #[default]
    Asynchronous,
    /// The same, and no trainer is ahead of the slowest by more batches.
    BoundedStaleness {
        /// So many.
        most: u64,
    },
    /// Trainers compute each step together.
    Synchronous {
        /// So many trainers compute what others have not finished.
        backup: u32,
        /// Into how many parts each step's batch is cut.
        parts: u32,
    },
}

/// When a job is done. The first that is met counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StopRule {
    /// Passes over the data.
    pub epochs: Option<u64>,
    /// The mean loss of an epoch.
    pub target_loss: Option<f64>,
    /// The accuracy on the testing data.
    pub target_metric: Option<f64>,
    /// The loss falls by less than the first, of the largest loss, in each of so many epochs.
    pub convergence: Option<(f64, u64)>,
}

/// Where the parameters are saved, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRule {
    /// The folder, as every parameter server sees it.
    pub path: String,
    /// After so many steps.
    pub interval_steps: Option<u64>,
    /// After so much time.
    pub interval: Option<Duration>,
    /// How many are kept.
    pub keep: u32,
    /// A checkpoint of another job, or a folder of them, to begin from.
    pub resume_from: Option<String>,
}

impl CheckpointRule {
    fn read(object: &Value) -> Option<Self> {
        let text = |field: &str| object[field].as_str().filter(|text| !text.is_empty());
        Some(Self {
            path: text("path")?.to_owned(),
            interval_steps: object["intervalSteps"].as_u64(),
            interval: object["intervalSeconds"].as_u64().map(Duration::from_secs),
            keep: object["keep"].as_u64().and_then(|keep| u32::try_from(keep).ok()).unwrap_or(3),
            resume_from: text("resumeFrom").map(str::to_owned),
        })
    }
}

/// One role of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Role {
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// What each takes.
    pub resources: Resources,
    /// The container resources of each, if the role names them.
    pub requirements: Option<Value>,
    /// Its pod template.
    pub template: Value,
}

/// A job as it is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spec {
    /// How gradients come together.
    pub mode: Mode,
    /// Those that keep parameters.
    pub parameter_server: Role,
    /// Those that compute.
    pub trainer: Role,
    /// When it is done.
    pub stop: StopRule,
    /// Where it is saved.
    pub checkpoint: Option<CheckpointRule>,
}

/// What a job asks for cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A mode that is not served.
    #[error("mode {mode:?} is not served: use `async`, `boundedStaleness` or `sync`")]
    Mode {
        /// The mode.
        mode: String,
    },
    /// A part is missing or of a wrong kind.
    #[error("{field} is missing or not understood: correct the object")]
    Field {
        /// Which part.
        field: String,
    },
}

impl Spec {
    /// Reads the object.
    pub fn read(object: &Value) -> Result<Self, SpecError> {
        let spec = &object["spec"];
        let count = |field: &str| spec[field].as_u64().and_then(|count| u32::try_from(count).ok());
        let trainer = Role::read(&spec["trainer"], "spec.trainer")?;
        let mode = match spec["mode"].as_str().unwrap_or("async") {
            "async" => Mode::Asynchronous,
            "boundedStaleness" => Mode::BoundedStaleness {
                most: u64::from(count("maxStaleness").unwrap_or(STALENESS)),
            },
            "sync" => Mode::Synchronous {
                backup: count("backupTrainers").unwrap_or(0),
                parts: count("batchParts").unwrap_or(trainer.max).clamp(1, MOST_PARTS),
            },
            other => return Err(SpecError::Mode { mode: other.to_owned() }),
        };
        let stop = &spec["stop"];
        let convergence = stop["convergence"]["threshold"]
            .as_f64()
            .map(|threshold| (threshold, stop["convergence"]["epochs"].as_u64().unwrap_or(3)));
        Ok(Self {
            mode,
            parameter_server: Role::read(&spec["parameterServer"], "spec.parameterServer")?,
            trainer,
            stop: StopRule {
                epochs: stop["epochs"].as_u64(),
                target_loss: stop["targetLoss"].as_f64(),
                target_metric: stop["targetMetric"].as_f64(),
                convergence,
            },
            checkpoint: CheckpointRule::read(&spec["checkpoint"]),
        })
    }

    /// A role by what its pods do.
    pub fn role(&self, member: Member) -> &Role {
        match member {
            Member::ParameterServer => &self.parameter_server,
            Member::Trainer => &self.trainer,
        }
    }

    /// The least that it can work with.
    pub fn min(&self) -> Size {
        Size { parameter_servers: self.parameter_server.min, trainers: self.trainer.min }
    }

    /// The most that it wants.
    pub fn max(&self) -> Size {
        Size { parameter_servers: self.parameter_server.max, trainers: self.trainer.max }
    }

    /// The nearest size that the job allows.
    pub fn allowed(&self, size: Size) -> Size {
        let role = |role: &Role, count: u32| count.clamp(role.min, role.max.max(role.min));
        Size {
            parameter_servers: role(&self.parameter_server, size.parameter_servers),
            trainers: role(&self.trainer, size.trainers),
        }
    }
}

impl Role {
    fn read(role: &Value, name: &str) -> Result<Self, SpecError> {
        let field = |part: &str| SpecError::Field { field: format!("{name}.{part}") };
        let count = |part: &str| role[part].as_u64().and_then(|count| u32::try_from(count).ok());
        let min = count("min").unwrap_or(1).max(1);
        let template = role["template"].clone();
        if !template["spec"]["containers"].is_array() {
            return Err(field("template.spec.containers"));
        }
        let requirements = Some(&role["resources"]).filter(|r| r.is_object()).cloned();
        let resources = match &requirements {
            Some(requirements) => amounts(requirements).ok_or_else(|| field("resources"))?,
            None => {
                let mut sum = Resources::default();
                for container in template["spec"]["containers"].as_array().into_iter().flatten() {
                    let part = amounts(&container["resources"])
                        .ok_or_else(|| field("template.spec.containers.resources"))?;
                    sum.add(&part);
                }
                sum
            }
        };
        let resources = Resources { pods: 1, ..resources };
        Ok(Self {
            min,
            max: count("max").unwrap_or(min).max(min),
            resources,
            requirements,
            template,
        })
    }
}

/// What a container's requirements reserve: requests, or limits where there is no request.
fn amounts(requirements: &Value) -> Option<Resources> {
    let mut sum = Resources::default();
    for part in ["limits", "requests"] {
        for (name, amount) in requirements[part].as_object().into_iter().flatten() {
            let quantity = quantity::parse(amount)?;
            let amount = if name == "cpu" { quantity.millis() } else { quantity.units() };
            sum.set(name, u64::try_from(amount).ok()?);
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(mode: &str) -> Value {
        let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x" }] } });
        json!({ "spec": {
            "mode": mode,
            "parameterServer": { "min": 1, "max": 2, "template": template,
                "resources": { "requests": { "cpu": "200m", "memory": "64Mi" } } },
            "trainer": { "template": template, "max": 3, "resources": { "limits": { "cpu": 1 } } },
            "stop": { "epochs": 4 },
        }})
    }

    #[test]
    fn amounts_are_exact_and_limits_stand_in_for_requests() {
        let spec = Spec::read(&job("async")).unwrap();
        let server = &spec.parameter_server.resources;
        assert_eq!((server.cpu_milli, server.memory_bytes, server.pods), (200, 64 << 20, 1));
        assert_eq!(spec.trainer.resources.cpu_milli, 1_000);
        assert_eq!((spec.trainer.min, spec.trainer.max), (1, 3));
        let large = Size { parameter_servers: 9, trainers: 0 };
        assert_eq!(spec.allowed(large), Size { parameter_servers: 2, trainers: 1 });
    }

    #[test]
    fn a_mode_that_is_not_served_says_which_one_is() {
        let error = Spec::read(&job("allReduce")).unwrap_err();
        assert!(error.to_string().contains("async"));
    }
}
