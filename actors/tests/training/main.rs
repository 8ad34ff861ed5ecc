//! Training jobs over real connections: each member is an actor node of its own, with a certificate
//! of its own, and pods are started and killed by a stand-in for the cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod checkpoints;
mod cluster;
mod line;
mod modes;
mod orders;

use cluster::{Cluster, Learns};
use impresario_client::protocol::training::{Description, Size, StaleLease};
use line::{COUNTED_EPOCHS, LIMIT};

fn size(parameter_servers: u32, trainers: u32) -> Size {
    Size { parameter_servers, trainers }
}

/// Every gradient is in every part of the parameters, once: the values themselves say so.
fn counted_exactly(end: &Description) {
    assert_eq!(Some(end.step), end.total_steps);
    let error = end.evaluated.unwrap().loss.unwrap();
    assert!(error < 0.01, "a gradient was lost or counted twice: the values are off by {error}");
}

#[actix::test]
async fn a_job_learns_and_counts_every_step_once_while_it_grows_and_shrinks() {
    let cluster = Cluster::start(size(3, 3), COUNTED_EPOCHS, Learns::Count).await;
    cluster.until("one of each", LIMIT, |seen| seen.size == size(1, 1) && seen.step > 5).await;
    cluster.scale(1, size(3, 3), "there is room").await;
    let grown = cluster.until("three of each", LIMIT, |seen| seen.size == size(3, 3)).await;
    cluster.until("progress", LIMIT, |seen| seen.step > grown.step + 20).await;
    cluster.scale(2, size(1, 2), "another needs it").await;
    cluster.until("fewer", LIMIT, |seen| seen.size == size(1, 2)).await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;

    counted_exactly(&end);
    let status = cluster.status("Succeeded", LIMIT).await;
    assert_eq!(status["samples"], COUNTED_EPOCHS * line::SAMPLES);
    let sizes: Vec<_> = status["scaleEvents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            (event["parameterServers"].as_u64().unwrap(), event["trainers"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(sizes, [(1, 1), (3, 3), (1, 2)]);
    assert_eq!(status["scaleEvents"][2]["reason"], "another needs it");
}

#[actix::test]
async fn a_trainer_that_dies_is_replaced_and_its_batches_are_done_by_others() {
    let cluster = Cluster::start(size(1, 2), COUNTED_EPOCHS, Learns::Count).await;
    cluster.scale(1, size(1, 2), "there is room").await;
    cluster.until("two trainers", LIMIT, |seen| seen.size == size(1, 2) && seen.step > 5).await;
    cluster.kill("trainer");
    cluster.until_remarked("TrainerLost").await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
}

#[actix::test]
async fn a_parameter_server_that_dies_is_replaced_from_a_trainers_copy() {
    let cluster = Cluster::start(size(2, 1), 60, Learns::Line).await;
    cluster.scale(1, size(2, 1), "there is room").await;
    cluster.until("two servers", LIMIT, |seen| seen.size == size(2, 1) && seen.step > 5).await;
    cluster.kill("parameterServer");
    cluster.until_remarked("ParametersRestored").await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    assert_eq!(Some(end.step), end.total_steps);
    assert!(end.evaluated.unwrap().loss.unwrap() < 0.05, "{:?}", end.evaluated);
}

#[actix::test]
async fn another_activation_goes_on_where_the_first_was() {
    let mut cluster = Cluster::start(size(2, 2), COUNTED_EPOCHS, Learns::Count).await;
    cluster.scale(1, size(2, 2), "there is room").await;
    let before =
        cluster.until("two of each", LIMIT, |seen| seen.size == size(2, 2) && seen.step > 20).await;
    cluster.fail_over().await;
    // The status on the disk may be older; what the pods report makes up for it, and the count at the end
    // would show a step that was done anew.
    let goes_on = |seen: &Description| seen.size == size(2, 2) && seen.step + 5 >= before.step;
    cluster.until("two of each again, where the first was", LIMIT, goes_on).await;
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
}

#[actix::test]
async fn a_member_that_is_cut_off_does_not_go_on_running_the_job() {
    let mut cluster = Cluster::start(size(1, 1), COUNTED_EPOCHS, Learns::Count).await;
    let before = cluster.until("progress", LIMIT, |seen| seen.step > 20).await;
    cluster.cut_off().await;
    let taken = |seen: &Description| seen.size == size(1, 1) && seen.step > before.step;
    cluster.until("the other runs it", LIMIT, taken).await;
    let stopped = cluster.describe_cut_off().await.step;
    let older = StaleLease { given: 1, current: 2 }.to_string();
    for (order, said) in orders::orders(&cluster, 1).await {
        assert_eq!(said, older, "an order to {order}, of the lease that has passed");
    }
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
    assert_eq!(cluster.describe_cut_off().await.step, stopped, "it heard of no more work");
    assert!(stopped < end.step);
}

#[actix::test]
async fn a_trainer_says_that_it_lives_however_long_a_batch_takes() {
    let cluster = Cluster::start(size(1, 1), COUNTED_EPOCHS, Learns::Count).await;
    cluster.until("progress", LIMIT, |seen| seen.step > 5).await;
    cluster.hold(true);
    // Without these it is lost after twenty seconds.
    cluster.until_reported(4).await;
    assert_eq!(cluster.describe().await.size, size(1, 1));
    cluster.hold(false);
    cluster.hurry();
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    counted_exactly(&end);
    assert!(!cluster.remarks().iter().any(|said| said == "TrainerLost"));
}

#[actix::test]
async fn a_job_that_learns_a_line_finds_it() {
    let cluster = Cluster::start(size(1, 2), 60, Learns::Line).await;
    cluster.hurry();
    cluster.scale(1, size(1, 2), "there is room").await;
    let end = cluster.until("the end", LIMIT, |seen| seen.ended).await;
    assert!(end.evaluated.unwrap().loss.unwrap() < 0.01, "{:?}", end.evaluated);
}
