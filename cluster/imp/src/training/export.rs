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

/// What a job's object says of the newest it has saved: folder and hash.
fn saved(job: &Value, name: &str) -> Result<(PathBuf, String), ExportFailure> {
    let status = &job["status"];
    let newest = [&status["model"], &status["lastCheckpoint"]]
        .into_iter()
        .find_map(|one| Some((one["path"].as_str()?, one["sha256"].as_str()?)));
    if let Some((path, sha256)) = newest {
        return Ok((path.into(), sha256.to_owned()));
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

/// The hash that the job's object gives of the checkpoint in this folder, if it is one of those that it names.
fn named(job: &Value, folder: &Path) -> Option<String> {
    let name = folder.file_name()?;
    [&job["status"]["model"], &job["status"]["lastCheckpoint"]].into_iter().find_map(|one| {
        let is_it = Path::new(one["path"].as_str()?).file_name() == Some(name);
        let sha256 = one["sha256"].as_str()?;
        is_it.then(|| sha256.to_owned())
    })
}

async fn object(args: &Export) -> Result<Value, ExportFailure> {
    let rest = Rest::from_kubeconfig(&ClusterDir::new(args.target.dir.path()).kubeconfig())?;
    let path = format!(
        "/apis/training.impresario.dev/v1/namespaces/{}/trainingjobs/{}",
        escape(&args.target.namespace),
        escape(&args.job)
    );
    Ok(rest.get(&path).await?)
}

/// Writes the model.
pub(super) async fn export(args: &Export) -> Result<(), ExportFailure> {
    let job = object(args).await;
    let (folder, known) = match &args.from {
        None => {
            let (path, sha256) = saved(&job?, &args.job)?;
            (path, Some(sha256))
        }
        // An older one, or one whose job is gone: what it says of itself is all there is.
        Some(folder) => (folder.clone(), job.ok().and_then(|job| named(&job, folder))),
    };
    if !folder.is_dir() {
        return Err(ExportFailure::Elsewhere { path: folder });
    }
    let values = if args.latest { Values::Latest } else { Values::Average };
    let file = args.output.clone();
    let is_known = known.is_some();
    let done = tasks::spawn_blocking(move || write(&folder, known.as_deref(), values, &file));
    let exported = done.await.map_err(|_| ExportFailure::CutShort)??;
    say!("{}", told(&args.output, is_known, &exported));
    Ok(())
}

fn told(file: &Path, is_known: bool, exported: &Exported) -> String {
    let Exported { tensors, parameters, step, bytes, sha256 } = exported;
    let by = if is_known {
        ""
    } else {
        "; the job's object does not name this checkpoint: its files are as its own manifest says"
    };
    format!(
        "{}: {parameters} parameters in {tensors} tensors after {step} steps, {bytes} bytes, sha256 {sha256}{by}",
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
    fn a_checkpoint_is_compared_with_what_the_object_says_of_that_one_alone() {
        let one = |path: &str, hash: &str| json!({ "path": path, "sha256": hash, "step": 70 });
        let status = json!({ "lastCheckpoint": one("/x/checkpoint-8", "8"), "model": one("/x/checkpoint-9", "9") });
        let job = json!({ "status": status });
        let hash = |folder: &str| named(&job, Path::new(folder));
        assert_eq!(hash("/backup/checkpoint-8").as_deref(), Some("8"));
        assert_eq!(hash("/backup/checkpoint-9/").as_deref(), Some("9"));
        assert_eq!(hash("/backup/checkpoint-7"), None, "an older one is no broken one");
        let exported =
            Exported { tensors: 1, parameters: 2, step: 60, bytes: 3, sha256: "ab".to_owned() };
        let said = told(Path::new("f"), false, &exported);
        assert!(said.contains("60 steps") && said.contains("its own manifest"), "{said}");
    }

    #[test]
    fn what_was_saved_at_the_end_goes_before_what_was_saved_last() {
        let one = |path: &str, step: u64| json!({ "path": path, "sha256": "ab", "step": step });
        let mut job = json!({ "status": { "lastCheckpoint": one("/x/7", 70) } });
        assert_eq!(saved(&job, "digits").unwrap(), ("/x/7".into(), "ab".to_owned()));
        job["status"]["model"] = one("/x/8", 80);
        assert_eq!(saved(&job, "digits").unwrap().0, Path::new("/x/8"));
    }
}
