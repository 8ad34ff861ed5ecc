use super::super::mirror::Mirror;
use super::super::view::served;
use super::decide::{Decision, Scale, Seen, decide};
use super::*;
use crate::testing::LIMIT;
use crate::usage::Known;
use impresario_api::resource::Row;
use impresario_client::protocol::usage::{Amounts, ContainerUsage, PodUsage, Report};
use impresario_objects::{Door, WriteOptions};
use impresario_registry::{Epoch, MemoryRegistry, Shard};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerStatus;
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;
use std::sync::LazyLock;
use std::time::Duration;

fn autoscaler(spec: Value) -> HorizontalPodAutoscaler {
    let mut object = json!({"metadata": {"name": "web", "uid": "hpa", "generation": 3},
        "spec": {"minReplicas": 2, "maxReplicas": 10,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

/// The same throughout, in whole seconds as it is stored; pods began before it.
fn now() -> Timestamp {
    static NOW: LazyLock<Timestamp> =
        LazyLock::new(|| Timestamp::from_second(clock::timestamp().as_second()).unwrap());
    *NOW
}

fn pod_json(name: &str) -> Value {
    let long_ago = (clock::timestamp() - SignedDuration::from_hours(2)).to_string();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"phase": "Running", "startTime": long_ago, "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}})
}

/// What follows where so many pods use so many thousandths of a CPU each.
fn decided(
    autoscaler: &HorizontalPodAutoscaler,
    replicas: i32,
    milli: u64,
    history: &mut History,
) -> Decision {
    let pod: Pod = serde_json::from_value(pod_json("p")).unwrap();
    let pods = vec![&pod; usize::try_from(replicas).unwrap()];
    let usage = |_: &Pod| Some(known(milli));
    let scale = Scale { replicas, selector: "app=web".into() };
    let view = Seen {
        autoscaler,
        scale: Ok(scale),
        pods: Ok(pods),
        rivals: Vec::new(),
        usage: &usage,
        now: now(),
        at: clock::now(),
    };
    decide(&view, history)
}

fn known(milli: u64) -> Known<Arc<PodUsage>> {
    let amounts = Amounts { cpu_nanos: milli * 1_000_000, memory_bytes: 1 };
    let containers = vec![ContainerUsage { name: "c".into(), amounts }];
    let of = Arc::new(PodUsage { uid: "uid-p".into(), window_ms: 5000, containers });
    Known { taken: now(), window: Duration::from_secs(5), of }
}

fn condition(status: &HorizontalPodAutoscalerStatus, kind: &str) -> String {
    let all = status.conditions.as_deref().unwrap_or_default();
    let found = all.iter().find(|condition| condition.type_ == kind);
    found.map_or(String::new(), |it| {
        format!("{} {}", it.status, it.reason.as_deref().unwrap_or_default())
    })
}

#[test]
fn so_many_are_asked_for_as_the_metrics_and_the_bounds_say() {
    let table = "
        now | milli each | then | able                        | active                | limited
        2   | 50         |      | True ReadyForNewScale       | True ValidMetricFound | False DesiredWithinRange
        2   | 100        | 4    | True ReadyForNewScale       | True ValidMetricFound | False DesiredWithinRange
        2   | 900        | 6    | True ReadyForNewScale       | True ValidMetricFound | True ScaleUpLimit
        8   | 900        | 10   | True ReadyForNewScale       | True ValidMetricFound | True TooManyReplicas
        8   | 10         |      | True ScaleDownStabilized    | True ValidMetricFound | False DesiredWithinRange
        12  | 50         | 10   | True SucceededGetScale      |                       |
        1   | 50         | 2    | True SucceededGetScale      |                       |
        0   | 50         |      | True SucceededGetScale      | False ScalingDisabled |";
    for row in table.lines().skip(2) {
        let [current, milli, then, able, active, limited] = super::super::table::cells(row);
        let current: i32 = current.parse().unwrap();
        let mut history = History::default();
        let decision =
            decided(&autoscaler(json!({})), current, milli.parse().unwrap(), &mut history);
        let to = decision.rescale.as_ref().map_or(String::new(), |it| it.to.to_string());
        let status = &decision.status;
        let told =
            ["AbleToScale", "ScalingActive", "ScalingLimited"].map(|kind| condition(status, kind));
        assert_eq!(to, then, "in row {row}");
        assert_eq!(told, [able, active, limited], "in row {row}");
        assert_eq!((status.current_replicas, status.observed_generation), (Some(current), Some(3)));
    }
}

#[test]
fn what_became_of_a_change_is_said() {
    let mut history = History::default();
    let mut decision = decided(&autoscaler(json!({})), 2, 100, &mut history);
    let rescale = decision.rescale.clone().unwrap();
    let reason = "cpu resource utilization (percentage of request) above target";
    assert_eq!((rescale.from, rescale.to, rescale.reason.as_str()), (2, 4, reason));
    let mut failed = decision.clone();
    decision.rescaled(&rescale, Ok(()), now());
    assert_eq!(condition(&decision.status, "AbleToScale"), "True SucceededRescale");
    assert_eq!(decision.status.last_scale_time, Some(Time(now())));
    let told = decision.told.last().unwrap();
    assert_eq!((told.is_warning, told.reason.as_str()), (false, "SuccessfulRescale"));
    assert_eq!(told.message, format!("New size: 4; reason: {reason}"));
    failed.rescaled(&rescale, Err("it is busy".into()), now());
    assert_eq!(condition(&failed.status, "AbleToScale"), "False FailedUpdateScale");
    assert_eq!(failed.told.last().unwrap().reason, "FailedRescale");
    assert_eq!((failed.status.desired_replicas, failed.status.last_scale_time), (2, None));
}

/// The scale, the pods, the rivals, and the condition that is false for which reason.
type Case<'a> =
    (Result<Scale, String>, Result<Vec<&'a Pod>, String>, &'a [&'a str], &'a str, &'a str);

#[test]
fn what_keeps_it_from_scaling_is_told_once() {
    let usage = |_: &Pod| None;
    let mut autoscaler = autoscaler(json!({}));
    let scale = |selector: &str| Ok(Scale { replicas: 2, selector: selector.into() });
    let pod: Pod = serde_json::from_value(pod_json("p")).unwrap();
    let cases: [Case<'_>; 5] = [
        (Err("it is not there".into()), Ok(vec![]), &[], "AbleToScale", "FailedGetScale"),
        (scale(""), Ok(vec![]), &[], "ScalingActive", "InvalidSelector"),
        (scale("a=("), Err("no".into()), &[], "ScalingActive", "InvalidSelector"),
        (scale("a=b"), Ok(vec![&pod]), &["other", "web"], "ScalingActive", "AmbiguousSelector"),
        (scale("a=b"), Ok(vec![&pod]), &[], "ScalingActive", "FailedGetResourceMetric"),
    ];
    for (scale, pods, rivals, kind, reason) in cases {
        let look = |autoscaler: &HorizontalPodAutoscaler| {
            let view = Seen {
                autoscaler,
                scale: scale.clone(),
                pods: pods.clone(),
                rivals: rivals.iter().map(|name| (*name).to_owned()).collect(),
                usage: &usage,
                now: now(),
                at: clock::now(),
            };
            decide(&view, &mut History::default())
        };
        autoscaler.status = None;
        let first = look(&autoscaler);
        assert_eq!(condition(&first.status, kind), format!("False {reason}"));
        assert!(first.told.iter().any(|told| told.is_warning && told.reason == reason), "{reason}");
        assert_eq!(first.rescale, None);
        autoscaler.status = Some(first.status.clone());
        let again = look(&autoscaler);
        assert_eq!((again.told, again.status), (Vec::new(), first.status), "{reason}");
    }
}

/// A registry with a deployment of two replicas, its pods and an autoscaler, and what looks after that.
struct Stage {
    view: View,
    usage: Usage,
    look: Autoscaler,
}

impl Stage {
    async fn set() -> Self {
        let registry = MemoryRegistry::default();
        registry.assign_shards(&["test".to_owned()]);
        let objects = Objects::new(Arc::new(registry));
        objects.lay_foundation("pem", 6443).await.unwrap();
        let view = View::start(objects, "test");
        let template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"app": "web"}}, "template": template}});
        let options = WriteOptions::default();
        let mut other = deployment.clone();
        other["metadata"]["name"] = "green".into();
        for deployment in [deployment, other] {
            let row = served("apps", "deployments");
            view.objects.create(&row, "default", deployment, &options).await.unwrap();
        }
        for name in ["a", "b"] {
            let write = Transaction::create(
                impresario_registry_api::Key::new("pods", "default", name),
                pod_json(name).to_string(),
            );
            let revision = view.registry().transact(write).await.unwrap().revision;
            view.pods.reached(revision, LIMIT).await.unwrap();
        }
        let uid = Self::autoscale(&view, "web").await;
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let activation = Activation {
            actor: "horizontalpodautoscaler/web".into(),
            namespace: "default".into(),
            name: "web".into(),
            uid,
            fence,
            since: clock::now(),
        };
        let usage = Usage::default();
        let look = Autoscaler::new(view.clone(), usage.clone(), &activation);
        Self { view, usage, look }
    }

    /// An autoscaler of the deployment; its uid.
    async fn autoscale(view: &View, name: &str) -> String {
        let row = impresario_api::catalog::find("autoscaling", "v2", "horizontalpodautoscalers");
        let wanted = autoscaler(json!({})).spec;
        let object = json!({"metadata": {"name": name}, "spec": wanted});
        let options = WriteOptions::default();
        let made = view.objects.create(&row.unwrap(), "default", object, &options).await.unwrap();
        Self::mirror(view).reached(owned::revision_of(&made), LIMIT).await.unwrap();
        made["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    fn mirror(view: &View) -> Mirror<HorizontalPodAutoscaler> {
        view.mirrors.of()
    }

    /// Node `n1` tells that each pod uses so many thousandths of a CPU.
    fn tell(&self, milli: u64) {
        let amounts = Amounts { cpu_nanos: milli * 1_000_000, memory_bytes: 1 << 20 };
        let pod = |uid: &str| PodUsage {
            uid: uid.to_owned(),
            window_ms: 5000,
            containers: vec![ContainerUsage { name: "c".into(), amounts }],
        };
        let report = Report {
            node: "n1".into(),
            taken_ms: clock::timestamp().as_millisecond(),
            window_ms: 5000,
            amounts,
            pods: vec![pod("uid-a"), pod("uid-b")],
        };
        self.usage.put(report, clock::now());
    }

    async fn replicas(&self) -> Value {
        self.replicas_of("web").await
    }

    async fn replicas_of(&self, name: &str) -> Value {
        let row = served("apps", "deployments");
        self.view.objects.get(&row, "default", name).await.unwrap()["spec"]["replicas"].clone()
    }

    /// Changes a field of an object as a user does.
    async fn edit(&self, row: &Row, name: &str, field: &str, value: Value) -> Revision {
        let change = |old: &Value| {
            let mut new = old.clone();
            *new.pointer_mut(field).unwrap() = value.clone();
            Ok(new)
        };
        let options = WriteOptions::default();
        let edited = self.view.objects.modify(row, Door::Main, "default", name, &options, change);
        owned::revision_of(&edited.await.unwrap())
    }

    async fn status(&self) -> HorizontalPodAutoscalerStatus {
        let mirror = Self::mirror(&self.view);
        let row = impresario_api::catalog::find("autoscaling", "v2", "horizontalpodautoscalers");
        let stored = self.view.objects.get(&row.unwrap(), "default", "web").await.unwrap();
        mirror.reached(owned::revision_of(&stored), LIMIT).await.unwrap();
        let seen = mirror.get("default", "web").unwrap();
        seen.object.status.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_deployment_under_load_gets_more_pods_as_soon_as_its_node_tells_of_it() {
    let stage = Stage::set().await;
    stage.tell(50);
    stage.look.look_once().await.unwrap();
    assert_eq!(stage.replicas().await, 2);
    let status = stage.status().await;
    assert_eq!(condition(&status, "ScalingActive"), "True ValidMetricFound");
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 2));
    // Its own status is no news.
    stage.look.look_once().await.unwrap();
    let before = stage.status().await;
    let Next::At(next) = stage.look.look_once().await.unwrap() else { panic!("it looks again") };
    assert!(next <= clock::timestamp() + GLANCE);
    assert_eq!(stage.status().await, before);

    stage.tell(100);
    stage.look.state.lock().last.as_mut().unwrap().rests_until = clock::now();
    stage.look.look_once().await.unwrap();
    assert_eq!(stage.replicas().await, 4);
    let status = stage.status().await;
    assert_eq!(condition(&status, "AbleToScale"), "True SucceededRescale");
    assert!(status.last_scale_time.is_some());
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 4));
}

#[tokio::test]
async fn of_two_autoscalers_of_one_target_neither_scales() {
    let stage = Stage::set().await;
    Stage::autoscale(&stage.view, "other").await;
    stage.tell(400);
    stage.look.look_once().await.unwrap();
    assert_eq!(stage.replicas().await, 2);
    assert_eq!(condition(&stage.status().await, "ScalingActive"), "False AmbiguousSelector");
}

#[test]
fn two_autoscalers_of_one_target_do_not_scale_it_into_each_others_bounds() {
    let usage = |_: &Pod| None;
    for replicas in [1, 12] {
        let autoscaler = autoscaler(json!({}));
        let view = Seen {
            autoscaler: &autoscaler,
            scale: Ok(Scale { replicas, selector: "a=b".into() }),
            pods: Ok(Vec::new()),
            rivals: vec!["other".into(), "web".into()],
            usage: &usage,
            now: now(),
            at: clock::now(),
        };
        let decision = decide(&view, &mut History::default());
        assert_eq!(decision.rescale, None, "of {replicas}");
        assert_eq!(condition(&decision.status, "ScalingActive"), "False AmbiguousSelector");
    }
}

#[test]
fn a_change_that_is_refused_again_has_been_refused_since_the_first_time() {
    let mut autoscaler = autoscaler(json!({}));
    let mut refuse = |at: Timestamp| {
        let mut decision = decided(&autoscaler, 2, 100, &mut History::default());
        let rescale = decision.rescale.clone().unwrap();
        decision.rescaled(&rescale, Err("it is busy".into()), at);
        autoscaler.status = Some(decision.status.clone());
        decision.status
    };
    let first = refuse(now());
    assert_eq!(refuse(now() + SignedDuration::from_secs(20)), first);
}

#[tokio::test]
async fn another_target_is_scaled_although_nobody_has_changed_it_since_the_first_was() {
    let stage = Stage::set().await;
    stage.tell(100);
    stage.look.look_once().await.unwrap();
    assert_eq!(stage.replicas().await, 4);
    let row = impresario_api::catalog::find("autoscaling", "v2", "horizontalpodautoscalers");
    let green = "green".into();
    let edited = stage.edit(&row.unwrap(), "web", "/spec/scaleTargetRef/name", green).await;
    Stage::mirror(&stage.view).reached(edited, LIMIT).await.unwrap();
    stage.look.look_once().await.unwrap();
    assert_eq!(stage.replicas_of("green").await, 4);
}

#[tokio::test]
async fn what_a_user_asks_for_after_the_target_was_seen_is_not_undone() {
    let stage = Stage::set().await;
    let objects = &stage.view.objects;
    let wanted = autoscaler(json!({})).spec.scale_target_ref;
    let seen = target::read(objects, "default", &wanted).await.unwrap();
    stage.edit(&served("apps", "deployments"), "web", "/spec/replicas", 0.into()).await;
    assert_eq!(seen.write(objects, "default", 6).await.unwrap(), None);
    assert_eq!(stage.replicas().await, 0);
    let seen = target::read(objects, "default", &wanted).await.unwrap();
    assert!(seen.write(objects, "default", 6).await.unwrap().is_some());
    assert_eq!(stage.replicas().await, 6);
}

#[tokio::test]
async fn words_alone_are_written_now_and_then_and_what_it_wrote_is_not_looked_at() {
    let stage = Stage::set().await;
    stage.tell(50);
    stage.look.look_once().await.unwrap();
    let before = stage.status().await;
    assert_eq!(condition(&before, "AbleToScale"), "True ReadyForNewScale");
    let seen = Stage::mirror(&stage.view).get("default", "web").unwrap();
    assert!(stage.look.may_wait(&seen, clock::now()).is_some());

    // As long as it rests, also what nodes tell waits.
    stage.tell(10);
    let rests_until = clock::now() + INTERVAL;
    stage.look.state.lock().last.as_mut().unwrap().rests_until = rests_until;
    assert!(stage.look.may_wait(&seen, clock::now()).is_some());
    stage.look.state.lock().last.as_mut().unwrap().rests_until = clock::now();
    assert!(stage.look.may_wait(&seen, clock::now()).is_none());
    stage.look.look_once().await.unwrap();
    assert_eq!(stage.status().await, before);
    // The next time that is due it is written.
    {
        let mut state = stage.look.state.lock();
        (state.told, state.last) = (None, None);
    }
    stage.look.look_once().await.unwrap();
    assert_eq!(condition(&stage.status().await, "AbleToScale"), "True ScaleDownStabilized");
}
