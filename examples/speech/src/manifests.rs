//! The two training jobs of the demonstration.

use crate::guest::PROGRAM;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The namespace of both.
pub const NAMESPACE: &str = "default";
/// The job that starts alone and grows.
pub const FIRST: &str = "digits";
/// The job that comes in the middle.
pub const SECOND: &str = "digits-again";

/// What the jobs are made for.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The program that runs in the pods: this very binary.
    pub program: PathBuf,
    /// The hidden subcommand under which it runs guests.
    pub subcommand: String,
    /// A folder of recordings instead of those that ship with the example.
    pub data: Option<PathBuf>,
    /// What the smallest node has for pods, in thousandths of a core.
    pub node_cpu_milli: u64,
}

/// How a job differs from the other.
struct Wish {
    name: &'static str,
    seed: u64,
    epochs: u64,
    parameter_servers: (u32, u32),
    trainers: (u32, u32),
}

impl Circumstances {
    /// The job that starts with one of each and may grow to the whole cluster.
    pub fn first(&self) -> Value {
        self.job(&Wish {
            name: FIRST,
            seed: 1,
            epochs: 60,
            parameter_servers: (1, 2),
            trainers: (1, 3),
        })
    }

    /// A shorter job that needs two trainers at once.
    pub fn second(&self) -> Value {
        self.job(&Wish {
            name: SECOND,
            seed: 2,
            epochs: 6,
            parameter_servers: (1, 1),
            trainers: (2, 2),
        })
    }

    fn job(&self, wish: &Wish) -> Value {
        let mut command = vec![
            self.program.display().to_string(),
            self.subcommand.clone(),
            PROGRAM.to_owned(),
            "--seed".to_owned(),
            wish.seed.to_string(),
        ];
        if let Some(data) = &self.data {
            command.extend(["--data".to_owned(), Path::display(data).to_string()]);
        }
        let template = json!({ "spec": { "containers": [{
            "name": PROGRAM,
            "image": "impresario/speech",
            "command": command,
            // One trainer is one thread; several share the machine by being several. The two others
            // keep glibc from giving each tensor's memory back to the system at once.
            "env": [
                { "name": "RAYON_NUM_THREADS", "value": "1" },
                { "name": "MALLOC_MMAP_THRESHOLD_", "value": "67108864" },
                { "name": "MALLOC_TRIM_THRESHOLD_", "value": "134217728" },
            ],
        }], "terminationGracePeriodSeconds": 5 }});
        // A node has room for one trainer and two parameter servers.
        let share = |percent: u64| format!("{}m", self.node_cpu_milli * percent / 100);
        let role = |(min, max): (u32, u32), cpu: String| {
            json!({
                "min": min,
                "max": max,
                "resources": { "requests": { "cpu": cpu, "memory": "64Mi" } },
                "template": template,
            })
        };
        json!({
            "apiVersion": "training.impresario.dev/v1",
            "kind": "TrainingJob",
            "metadata": { "name": wish.name, "namespace": NAMESPACE },
            "spec": {
                "mode": "async",
                "parameterServer": role(wish.parameter_servers, share(15)),
                "trainer": role(wish.trainers, share(55)),
                "stop": { "epochs": wish.epochs },
            },
        })
    }
}
