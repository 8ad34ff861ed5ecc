//! `imp training export`: the model that a job has saved, as one file.

use crate::cli::training::Export;
use crate::layout::ClusterDir;
use crate::objects::escape;
use crate::output::say;
use crate::rest::{Rest, RestError};
use impresario_actors::training::export::{ExportError, Exported, Values, export as write};
use impresario_runtime::tasks;
use serde_json::Value;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why no model was written.
#[derive(Debug, Error)]
pub enum ExportFailure {
    /// The API said no, or did not answer.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The job saves nothing.
    #[error(
        "trainingjob {0} saves nothing, so that what it learns goes with it: run one with spec.checkpoint.path"
    )]
    SavesNothing(String),
    /// Not yet.
    #[error(
        "trainingjob {job} has no checkpoint yet: wait for its first; `imp describe tj {job}` shows how far it is{problem}"
    )]
    NotYet {
        /// The job.
        job: String,
        /// And what is in the way, if something is.
        problem: String,
    },
    /// The folder is on other machines.
    #[error(
        "{path} is not on this machine: run this where the job's parameter servers ran, or bring the folder here \
         and name it with --from"
    )]
    Elsewhere {
        /// The folder.
        path: PathBuf,
    },
    /// The checkpoint or the file does not do.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The program is ending.
    #[error("the file was not written: the program is ending")]
    CutShort,
}

/// What a job's object says of the newest it has saved: folder, hash and step.
fn saved(job: &Value, name: &str) -> Result<(PathBuf, String, u64), ExportFailure> {
    let status = &job["status"];
    let newest = [&status["model"], &status["lastCheckpoint"]].into_iter().find_map(|one| {
        Some((one["path"].as_str()?, one["sha256"].as_str()?, one["step"].as_u64()?))
    });
    if let Some((path, sha256, step)) = newest {
        return Ok((path.into(), sha256.to_owned(), step));
    }
    if job["spec"]["checkpoint"].is_null() {
        return Err(ExportFailure::SavesNothing(name.to_owned()));
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let failed = conditions
        .filter(|one| one["type"] == "Checkpointed" && one["status"] == "False")
        .find_map(|one| one["message"].as_str());
    let problem = failed.map(|why| format!(" ({why})")).unwrap_or_default();
    Err(ExportFailure::NotYet { job: name.to_owned(), problem })
}

/// Writes the model.
pub(super) async fn export(args: &Export) -> Result<(), ExportFailure> {
    let rest = Rest::from_kubeconfig(&ClusterDir::new(args.target.dir.path()).kubeconfig())?;
    let path = format!(
        "/apis/training.impresario.dev/v1/namespaces/{}/trainingjobs/{}",
        escape(&args.target.namespace),
        escape(&args.job)
    );
    let job = rest.get(&path).await?;
    let (path, sha256, step) = saved(&job, &args.job)?;
    let folder = args.from.clone().unwrap_or(path);
    if !folder.is_dir() {
        return Err(ExportFailure::Elsewhere { path: folder });
    }
    let values = if args.latest { Values::Latest } else { Values::Average };
    let file = args.output.clone();
    let done = tasks::spawn_blocking(move || write(&folder, &sha256, values, &file));
    let exported = done.await.map_err(|_| ExportFailure::CutShort)??;
    say!("{}", told(&args.output, step, &exported));
    Ok(())
}

fn told(file: &Path, step: u64, exported: &Exported) -> String {
    let Exported { tensors, parameters, bytes, sha256 } = exported;
    format!(
        "{}: {parameters} parameters in {tensors} tensors after {step} steps, {bytes} bytes, sha256 {sha256}",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_without_a_model_says_what_to_do() {
        let refused = |job: &Value| saved(job, "digits").unwrap_err().to_string();
        let said = refused(&json!({ "spec": {}, "status": { "phase": "Succeeded" } }));
        assert!(said.contains("spec.checkpoint.path"), "{said}");
        let mut job = json!({ "spec": { "checkpoint": { "path": "/x" } }, "status": {} });
        assert!(refused(&job).contains("wait for its first"));
        job["status"]["conditions"] = json!([
            { "type": "Checkpointed", "status": "False", "message": "/x: No space left on device" }
        ]);
        assert!(refused(&job).contains("No space left"), "{}", refused(&job));
    }

    #[test]
    fn what_was_saved_at_the_end_goes_before_what_was_saved_last() {
        let one = |path: &str, step: u64| json!({ "path": path, "sha256": "ab", "step": step });
        let mut job = json!({ "status": { "lastCheckpoint": one("/x/7", 70) } });
        assert_eq!(saved(&job, "digits").unwrap(), ("/x/7".into(), "ab".to_owned(), 70));
        job["status"]["model"] = one("/x/8", 80);
        assert_eq!(saved(&job, "digits").unwrap().2, 80);
    }
}
