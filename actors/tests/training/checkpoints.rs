//! Jobs that save what they learn, on a real disk.

use crate::cluster::{Cluster, Learns};
use crate::line::{COUNTED_EPOCHS, LIMIT};
use crate::{counted_exactly, size};
use impresario_actors::training::checkpoint::{Manifest, open, verify};
use impresario_client::protocol::training::Size;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Runs a job to its end with members of this size, and gives the manifest of its model and its status.
async fn trained(folder: &Path, resume_from: Option<&Path>, members: Size) -> (Manifest, Value) {
    let mut checkpoint = json!({ "path": folder, "intervalSteps": 10, "keep": 2 });
    if let Some(from) = resume_from {
        checkpoint["resumeFrom"] = json!(from);
    }
    let cluster = Cluster::start_saving(members, 20, Learns::Line, checkpoint).await;
    if members != size(1, 1) {
        cluster.scale(1, members, "there is room").await;
        cluster.until("all members", LIMIT, |seen| seen.size == members).await;
    }
    if resume_from.is_none() {
        let is_kept = |status: &Value| status["lastCheckpoint"]["step"].is_u64();
        cluster.until_status("a checkpoint on the way", is_kept).await;
    }
    cluster.hurry();
    let status = cluster.status("Succeeded", LIMIT).await;
    let model = &status["model"];
    let path = Path::new(model["path"].as_str().unwrap());
    let manifest = open(path, model["sha256"].as_str().unwrap()).unwrap();
    verify(path, &manifest).unwrap();
    (manifest, status)
}

#[actix::test]
async fn another_number_of_servers_goes_on_with_the_same_parameters_bit_for_bit() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (before, status) = trained(first.path(), None, size(3, 2)).await;
    assert_eq!((&status["model"], &before.step), (&status["lastCheckpoint"], &160));
    let kept = fs::read_dir(first.path()).unwrap().count();
    assert_eq!(kept, 2, "of those that were written as many as are to be kept");
    // All steps are done: what the other job saves is what it took.
    let (after, status) = trained(second.path(), Some(first.path()), size(1, 1)).await;
    assert_eq!(status["step"], 160);
    let hashes = |manifest: &Manifest| -> Vec<String> {
        manifest.shards.iter().map(|shard| shard.sha256.clone()).collect()
    };
    assert_eq!(hashes(&after), hashes(&before), "values, means and what the optimizer remembers");
    assert_eq!(after.data, before.data);
}

#[actix::test]
async fn a_job_that_has_lost_all_its_members_goes_on_from_its_checkpoint_and_counts_exactly() {
    let folder = TempDir::new().unwrap();
    let checkpoint = json!({ "path": folder.path(), "intervalSteps": 5, "keep": 2 });
    let cluster =
        Cluster::start_saving(size(1, 1), COUNTED_EPOCHS, Learns::Count, checkpoint).await;
    cluster.until_status("a checkpoint", |status| status["lastCheckpoint"]["step"].is_u64()).await;
    cluster.kill("parameterServer");
    cluster.kill("trainer");
    cluster.until_remarked("ParametersRestored").await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
    assert!(!cluster.remarks().iter().any(|said| said == "TrainingBeginsAnew"));
}

#[actix::test]
async fn a_folder_that_cannot_be_written_is_told_and_training_goes_on() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let checkpoint = json!({ "path": file.join("deeper"), "intervalSteps": 5, "keep": 2 });
    let cluster =
        Cluster::start_saving(size(1, 1), COUNTED_EPOCHS, Learns::Count, checkpoint).await;
    cluster.until_remarked("CheckpointFailed").await;
    let at = cluster.until("progress", LIMIT, |seen| seen.step > 5).await.step;
    let is_told = |status: &Value| {
        let mut all = status["conditions"].as_array().into_iter().flatten();
        all.any(|one| one["type"] == "Checkpointed" && one["status"] == "False")
    };
    cluster.until_status("the condition", is_told).await;
    cluster.until("more progress", LIMIT, |seen| seen.step > at).await;
    // Somebody makes room.
    fs::remove_file(&file).unwrap();
    cluster.until_status("a checkpoint", |status| status["lastCheckpoint"]["step"].is_u64()).await;
}
