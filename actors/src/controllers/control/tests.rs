//! When an actor looks, and again.

use super::*;
use impresario_registry_api::{Epoch, Shard};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// No passing test spends it.
const LIMIT: Duration = Duration::from_secs(60);

/// Says that it looks, and that it need not look again for very long.
struct Content(mpsc::UnboundedSender<()>, Next);

impl Look for Content {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        let _ = self.0.send(());
        let next = self.1;
        async move { Ok(next) }.boxed()
    }
}

#[actix::test]
async fn a_controller_that_nobody_tells_anything_looks_again_all_the_same() {
    let far = clock::timestamp() + k8s_openapi::jiff::SignedDuration::from_hours(1);
    for next in [Next::WhenTold, Next::At(far)] {
        let (seen, mut looks) = mpsc::unbounded_channel();
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let mut control = Control::new("test".into(), fence, Arc::new(Content(seen, next)));
        assert!(control.resync >= Duration::from_mins(1), "it is not what looks are made by");
        control.resync = Duration::from_millis(5);
        let _running = control.start();
        for _ in 0..4 {
            let look = tokio::time::timeout(LIMIT, looks.recv()).await;
            assert_eq!(look, Ok(Some(())), "{next:?}");
        }
    }
}

/// Panics on its first look.
struct Clumsy(mpsc::UnboundedSender<()>, AtomicBool);

impl Look for Clumsy {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        async {
            assert!(self.1.swap(true, Ordering::SeqCst), "it stumbles");
            let _ = self.0.send(());
            Ok(Next::WhenTold)
        }
        .boxed()
    }
}

#[actix::test]
async fn a_look_that_panics_is_tried_again_and_said() {
    let (seen, mut looks) = mpsc::unbounded_channel();
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let look = Arc::new(Clumsy(seen, AtomicBool::new(false)));
    let control = Control::new("test".into(), fence, look).start();
    assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
    assert_eq!(control.send(Describe).await.unwrap().looks, 2, "the first one panicked");
}

/// Fails as it is told to.
struct Failing(mpsc::UnboundedSender<()>, fn() -> LookError);

impl Look for Failing {
    fn look(&self) -> BoxFuture<'_, Result<Next, LookError>> {
        let _ = self.0.send(());
        async { Err((self.1)()) }.boxed()
    }
}

/// The actor over this failure, of which only hints make it look again; its looks.
fn failing(error: fn() -> LookError) -> (Addr<Control>, mpsc::UnboundedReceiver<()>) {
    let (seen, looks) = mpsc::unbounded_channel();
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let mut control = Control::new("test".into(), fence, Arc::new(Failing(seen, error)));
    control.backoff = Backoff { first: LIMIT * 100, most: LIMIT * 100 };
    (control.start(), looks)
}

#[actix::test]
async fn one_thing_that_is_refused_keeps_no_hint_from_being_heard_soon() {
    let (control, mut looks) = failing(|| LookError::Refused(Status::bad_request("no")));
    for _ in 0..3 {
        assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
        control.send(Changed).await.unwrap();
    }
    // A panic is the same whatever changed, until its object does.
    let (control, mut looks) = failing(|| LookError::Panicked { message: "x".into() });
    assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
    for _ in 0..3 {
        control.send(Changed).await.unwrap();
    }
    assert_eq!(control.send(Describe).await.unwrap().looks, 1);
}

#[actix::test]
async fn a_controller_that_is_told_all_the_time_rests_between_its_looks_and_misses_nothing() {
    let (seen, mut looks) = mpsc::unbounded_channel();
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let look = Arc::new(Content(seen, Next::WhenTold));
    let with = |rest| Control { rest, ..Control::new("test".into(), fence, look.clone()) };
    let control = with(LIMIT * 100).start();
    assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
    for _ in 0..10 {
        control.send(Changed).await.unwrap();
    }
    assert_eq!(control.send(Describe).await.unwrap().looks, 1, "it has no pause");
    // What it was told meanwhile is one look, afterwards.
    let control = with(Duration::from_millis(5)).start();
    assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
    for _ in 0..3 {
        control.send(Changed).await.unwrap();
        assert_eq!(tokio::time::timeout(LIMIT, looks.recv()).await, Ok(Some(())));
    }
}

#[test]
fn looks_that_nobody_asked_for_come_within_minutes_and_not_all_at_once() {
    assert_eq!(resync(RESYNC, 0.0), RESYNC / 2);
    assert_eq!(resync(RESYNC, 1.0), RESYNC);
}
