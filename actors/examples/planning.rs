//! Prints how many pods the scheduler plans in a second, by case: nothing is asked, nothing is written.
//!
//! `cargo run --release --example planning -- 5000 10000` plans ten thousand pods on five thousand nodes, in passes of two
//! thousand as the scheduler does; each placement is in the picture when the next pass begins. A third word names one case.

use impresario_actors::scheduler::parties::Pending;
use impresario_actors::scheduler::picture::Picture;
use impresario_actors::scheduler::plan::{Moment, plan};
use impresario_actors::scheduler::policy::{Which, policy};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use std::error::Error;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// So many pods the scheduler looks at in a pass.
const PASS: usize = 2_000;
/// More than this a case does not take.
const LIMIT: Duration = Duration::from_secs(120);
const CASES: [&str; 8] = [
    "basic",
    "node-affinity",
    "preferred",
    "spread",
    "spread-hosts",
    "anti-affinity",
    "preemption",
    "unschedulable",
];

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let nodes = words.next().map_or(Ok(5_000), |text| text.parse())?;
    let pods = words.next().map_or(Ok(10_000), |text| text.parse())?;
    let wanted = words.next();
    println!("{pods} pods on {nodes} nodes");
    for case in CASES {
        if wanted.as_deref().is_none_or(|wanted| wanted == case) {
            measure(case, nodes, pods)?;
        }
    }
    Ok(())
}

/// Plans them and prints what came of it.
fn measure(case: &str, nodes: usize, pods: usize) -> Outcome<()> {
    let mut picture = Picture::default();
    for number in 0..nodes {
        picture.node_seen(&node(number)?);
        if case == "preemption" {
            // Full, in pieces.
            for part in 0..8 {
                let mut pod = pending(&format!("low-{number}-{part}"), "low", json!({}), "500m")?;
                pod.since = i64::try_from(number).unwrap_or(0);
                picture.pod_bound(pod, &name(number), false, None);
            }
        }
    }
    let mut waiting: Vec<Pending> = Vec::with_capacity(pods);
    for number in 0..pods {
        waiting.push(pod(case, number)?);
    }
    let mut policy = policy(Which::LeastAllocated, 1);
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    let (mut placed, mut left, mut told, mut turn, mut passes) = (0, 0, 0, 0, 0);
    while !waiting.is_empty() && began.elapsed() < LIMIT {
        let pass = Instant::now();
        let ready = &waiting[..waiting.len().min(PASS)];
        let moment = Moment::of(&picture, turn);
        let plan = plan(ready, &moment, &mut *policy);
        let mut done: std::collections::HashSet<String> =
            plan.unschedulable.iter().map(|(uid, _)| uid.clone()).collect();
        told += done.len();
        for preemption in plan.preemptions {
            let pod = ready.iter().find(|pod| pod.uid == preemption.uid).cloned();
            // Those that leave have left when the next pass begins.
            for victim in preemption.victims {
                picture.pod_gone(&victim);
                left += 1;
            }
            if let Some(pod) = pod {
                picture.pod_bound(pod, &preemption.node, false, None);
                placed += 1;
            }
        }
        for (node, uids) in plan.placements {
            for uid in uids {
                if let Some(pod) = ready.iter().find(|pod| pod.uid == uid) {
                    picture.assume(pod, &node);
                }
                placed += 1;
                turn += 1;
                done.insert(uid);
            }
        }
        if done.is_empty() {
            return Err(format!("{case}: a pass came to nothing").into());
        }
        waiting.retain(|pod| !done.contains(&pod.uid));
        passes += 1;
        longest = longest.max(pass.elapsed());
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "  {case:14} {placed:6} placed, {told:6} fit nowhere at first, {left:6} made to leave, {:6} not looked at; \
         {:9.0} pods/s, {passes} passes, the longest {:.0} ms",
        waiting.len(),
        f64::from(u32::try_from(pods - waiting.len())?) / seconds,
        longest.as_secs_f64() * 1e3,
    );
    Ok(())
}

fn name(number: usize) -> String {
    format!("n{number:05}")
}

fn node(number: usize) -> Outcome<Node> {
    let labels = json!({"kubernetes.io/hostname": name(number), "zone": format!("z{}", number % 10),
        "sort": format!("s{}", number % 50)});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name(number), "labels": labels},
        "status": {
            "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]
        }
    }))?)
}

/// A pod of a case.
fn pod(case: &str, number: usize) -> Outcome<Pending> {
    let uid = format!("p{number:06}");
    let selector = json!({"matchLabels": {"app": "web"}});
    let sort = |value: &str| json!([{"matchExpressions": [{"key": "sort", "operator": "In", "values": [value]}]}]);
    let spread = |key: &str, skew: u32| {
        json!({"topologySpreadConstraints": [{"maxSkew": skew, "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]})
    };
    let spec = match case {
        "node-affinity" => json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": sort("s7")}}}}),
        "preferred" => json!({"affinity": {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": sort("s7")[0]}]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "podAffinityTerm": {"labelSelector": selector, "topologyKey": "zone"}}]}}}),
        "spread" => spread("zone", 1),
        "spread-hosts" => spread("kubernetes.io/hostname", 1),
        "anti-affinity" => {
            // As many as there are nodes may be of one sort.
            let own = json!({"matchLabels": {"app": format!("web-{}", number / 1_000)}});
            let term = json!({"labelSelector": own, "topologyKey": "kubernetes.io/hostname"});
            let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            let spec = json!({"affinity": affinity});
            return pending(&uid, &format!("web-{}", number / 1_000), spec, "10m");
        }
        "preemption" => return pending(&uid, "web", json!({"priority": 10}), "1"),
        "unschedulable" if number.is_multiple_of(10) => {
            // Each of another kind, so that none is told what another was.
            let cpu = format!("{}m", 5_000 + number);
            return pending(&uid, "large", json!({}), &cpu);
        }
        _ => json!({}),
    };
    pending(&uid, "web", spec, "10m")
}

fn pending(uid: &str, app: &str, mut spec: Value, cpu: &str) -> Outcome<Pending> {
    spec["containers"] =
        json!([{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "16Mi"}}}]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "ns", "uid": uid, "labels": {"app": app}}, "spec": spec
    }))?;
    Pending::of(&pod).ok_or_else(|| "a pod without a uid".into())
}
