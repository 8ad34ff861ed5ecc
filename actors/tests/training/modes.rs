//! Jobs whose trainers wait for each other: for each step, or where one is too far ahead.

use crate::cluster::{Cluster, Learns};
use crate::line::{COUNTED_EPOCHS, LIMIT};
use crate::{counted_exactly, size};
use impresario_actors::training::checkpoint::open;
use impresario_client::protocol::training::{Description, Size};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

const MOST: Size = Size { parameter_servers: 3, trainers: 3 };

fn together() -> Value {
    json!({ "mode": "sync", "batchParts": 4, "backupTrainers": 0 })
}

async fn scales(cluster: &Cluster, round: u64, wanted: Size) -> Description {
    cluster.scale(round, wanted, "the auction says so").await;
    cluster.until("the size", LIMIT, |seen| seen.size == wanted).await
}

/// The hashes of all shards of the model: values, running means, and what the optimizer remembers.
async fn ends(cluster: &Cluster) -> Vec<String> {
    cluster.hurry();
    let status = cluster.status("Succeeded", LIMIT).await;
    let model = &status["model"];
    let path = Path::new(model["path"].as_str().unwrap());
    let manifest = open(path, model["sha256"].as_str().unwrap()).unwrap();
    assert_eq!(manifest.step, 160);
    manifest.shards.into_iter().map(|shard| shard.sha256).collect()
}

async fn begins(folder: &TempDir) -> Cluster {
    let mut fields = together();
    fields["checkpoint"] = json!({ "path": folder.path(), "intervalSteps": 1_000_000 });
    Cluster::start_with(MOST, 20, Learns::Line, fields).await
}

#[actix::test]
async fn steps_that_are_computed_together_make_the_same_parameters_whoever_comes_and_goes() {
    let folder = TempDir::new().unwrap();
    let alone = begins(&folder).await;
    let expected = ends(&alone).await;
    drop(alone);
    for seed in [1, 2] {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = TempDir::new().unwrap();
        let cluster = begins(&folder).await;
        let mut at = 0;
        for round in 1..=3 {
            let next = at + random.random_range(1..5);
            at = cluster.until("steps", LIMIT, |seen| seen.step >= next).await.step;
            let wanted = size(random.random_range(1..=3), random.random_range(1..=3));
            scales(&cluster, round, wanted).await;
        }
        assert_eq!(ends(&cluster).await, expected, "seed {seed}");
    }
}

#[actix::test]
async fn a_trainer_that_dies_amid_a_step_changes_no_bit_of_what_is_learned() {
    let folder = TempDir::new().unwrap();
    let expected = ends(&begins(&folder).await).await;
    let folder = TempDir::new().unwrap();
    let cluster = begins(&folder).await;
    scales(&cluster, 1, size(2, 2)).await;
    cluster.kill("trainer");
    cluster.until_remarked("TrainerLost").await;
    assert_eq!(ends(&cluster).await, expected);
}

#[actix::test]
async fn steps_that_are_computed_together_count_once_while_the_job_grows_and_moves() {
    let mut cluster = Cluster::start_with(MOST, COUNTED_EPOCHS, Learns::Count, together()).await;
    cluster.until("progress", LIMIT, |seen| seen.step > 2).await;
    scales(&cluster, 1, size(3, 3)).await;
    cluster.fail_over().await;
    cluster.until("all again", LIMIT, |seen| seen.size == size(3, 3)).await;
    scales(&cluster, 2, size(1, 2)).await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
}

#[actix::test]
async fn a_server_that_dies_amid_a_step_holds_nobody_up_for_good() {
    let cluster = Cluster::start_with(MOST, 60, Learns::Line, together()).await;
    scales(&cluster, 1, size(2, 2)).await;
    cluster.until("progress", LIMIT, |seen| seen.step > 5).await;
    cluster.kill("parameterServer");
    cluster.until_remarked("ParametersRestored").await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    assert_eq!(Some(end.step), end.total_steps);
    assert!(end.evaluated.unwrap().loss.unwrap() < 0.05, "{:?}", end.evaluated);
}

#[actix::test]
async fn a_job_with_a_backup_trainer_counts_what_is_computed_twice_once() {
    let mut fields = together();
    fields["backupTrainers"] = json!(1);
    let cluster = Cluster::start_with(MOST, COUNTED_EPOCHS, Learns::Count, fields).await;
    scales(&cluster, 1, size(2, 3)).await;
    let at = cluster.describe().await.step;
    cluster.until("progress", LIMIT, |seen| seen.step > at + 5).await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
}

#[actix::test]
async fn a_job_whose_trainers_may_not_be_far_apart_counts_every_step_once() {
    let fields = json!({ "mode": "boundedStaleness", "maxStaleness": 1 });
    let cluster = Cluster::start_with(MOST, COUNTED_EPOCHS, Learns::Count, fields).await;
    scales(&cluster, 1, size(2, 3)).await;
    let at = cluster.describe().await.step;
    cluster.until("progress", LIMIT, |seen| seen.step > at + 10).await;
    scales(&cluster, 2, size(1, 2)).await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
}
