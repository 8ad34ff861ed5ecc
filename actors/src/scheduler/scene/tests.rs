//! What is counted, against what looking at all pods would find.

use super::super::filters;
use super::super::fit::Unfit;
use super::super::picture::tests::{demanding, node, picture};
use super::super::plan::plan;
use super::super::plan::tests::moment;
use super::super::policy::{Which, policy};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Nodes with these values of `zone`, and their own names as `host`.
fn zones(zones: &[&str]) -> Picture {
    let nodes = zones.iter().enumerate().map(|(number, zone)| {
        let name = format!("n{number}");
        let mut node = node(&name, 10_000);
        node.labels.insert("host".into(), name);
        if !zone.is_empty() {
            node.labels.insert("zone".into(), (*zone).to_owned());
        }
        node
    });
    picture(nodes)
}

fn bind(picture: &mut Picture, uid: &str, app: &str, on: &str) {
    picture.pod_bound(demanding(uid, app, json!({})), on, false, None);
}

/// What is said of each node.
fn verdicts(picture: &Picture, pod: &Pending) -> Vec<Option<Unfit>> {
    let mut scene = Scene::new(picture);
    let subject = scene.subject(pod);
    (0..scene.nodes.len())
        .map(|node| {
            let why = filters::why(&scene, &subject, node);
            assert_eq!(why.is_none(), filters::passes(&scene, &subject, node));
            why
        })
        .collect()
}

fn spread(more: Value) -> Value {
    let mut one = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([one])
}

#[test]
fn a_pod_goes_where_it_is_spread_as_its_constraints_say() {
    // Two of the kind in zone a, one in b, none in c; one node has no zone.
    let mut all = zones(&["a", "b", "c", ""]);
    for (uid, on) in [("w1", "n0"), ("w2", "n0"), ("w3", "n1")] {
        bind(&mut all, uid, "web", on);
    }
    let selector = json!({"nodeSelector": {"host": "n0"}});
    let (none, skewed, no_place) = (None, Some(Unfit::Skewed), Some(Unfit::NoPlace));
    let not_chosen = || Some(Unfit::Selector);
    for (constraints, also, expected) in [
        (
            spread(json!({})),
            json!({}),
            [skewed.clone(), skewed.clone(), none.clone(), no_place.clone()],
        ),
        (
            spread(json!({"maxSkew": 2})),
            json!({}),
            [skewed.clone(), none.clone(), none.clone(), no_place.clone()],
        ),
        (
            spread(json!({"maxSkew": 3})),
            json!({}),
            [none.clone(), none.clone(), none.clone(), no_place.clone()],
        ),
        (
            spread(json!({"minDomains": 4, "maxSkew": 2})),
            json!({}),
            [skewed.clone(), none.clone(), none.clone(), no_place.clone()],
        ),
        (
            spread(json!({"whenUnsatisfiable": "ScheduleAnyway"})),
            json!({}),
            [None, None, None, None],
        ),
        // The only zone that counts is that of the node that the pod is meant for.
        (
            spread(json!({})),
            selector.clone(),
            [none.clone(), not_chosen(), not_chosen(), not_chosen()],
        ),
        (
            spread(json!({"nodeAffinityPolicy": "Ignore"})),
            selector,
            [skewed, not_chosen(), not_chosen(), not_chosen()],
        ),
    ] {
        let mut spec = json!({"topologySpreadConstraints": constraints});
        spec.as_object_mut().unwrap().extend(also.as_object().unwrap().clone());
        assert_eq!(verdicts(&all, &demanding("p", "web", spec.clone())), expected, "{spec}");
    }
}

#[test]
fn too_few_places_count_as_if_one_were_empty() {
    let mut all = zones(&["a", "b"]);
    bind(&mut all, "w1", "web", "n0");
    bind(&mut all, "w2", "web", "n1");
    for (least, expected) in [(2, None), (3, Some(Unfit::Skewed))] {
        let spec = json!({"topologySpreadConstraints": spread(json!({"minDomains": least}))});
        assert_eq!(verdicts(&all, &demanding("p", "web", spec))[0], expected, "{least}");
    }
}

#[test]
fn a_zone_whose_taints_are_not_tolerated_counts_unless_they_are_honored() {
    let mut tainted = node("n1", 1000);
    tainted.labels.insert("zone".into(), "b".into());
    tainted.taints = serde_json::from_value(json!([{"key": "k", "effect": "NoSchedule"}])).unwrap();
    let mut plain = node("n0", 1000);
    plain.labels.insert("zone".into(), "a".into());
    let mut all = picture([plain, tainted]);
    bind(&mut all, "w", "web", "n0");
    for (policy, expected) in [("Ignore", Some(Unfit::Skewed)), ("Honor", None)] {
        let spec =
            json!({"topologySpreadConstraints": spread(json!({"nodeTaintsPolicy": policy}))});
        assert_eq!(verdicts(&all, &demanding("p", "web", spec))[0], expected, "{policy}");
    }
}

#[test]
fn pods_on_their_way_out_are_not_counted_where_others_are_spread() {
    let mut all = zones(&["a", "b"]);
    let going = Pending { going: true, ..demanding("w", "web", json!({})) };
    all.pod_bound(going, "n0", false, Some(0));
    let spec = json!({"topologySpreadConstraints": spread(json!({}))});
    assert_eq!(verdicts(&all, &demanding("p", "web", spec)), [None, None]);
}

fn affinity(kind: &str, app: &str, key: &str) -> Value {
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[test]
fn pods_are_near_those_they_must_be_near_and_apart_from_those_who_must_be_apart() {
    let mut all = zones(&["a", "a", "b", ""]);
    bind(&mut all, "db", "db", "n0");
    all.pod_bound(
        demanding("hermit", "hermit", affinity("podAntiAffinity", "web", "host")),
        "n2",
        false,
        None,
    );
    let (far, near) = (|| Some(Unfit::Far), || Some(Unfit::TooNear));
    for (app, spec, expected) in [
        ("web", json!({}), [None, None, Some(Unfit::Unwelcome), None]),
        ("other", json!({}), [None, None, None, None]),
        ("other", affinity("podAffinity", "db", "zone"), [None, None, far(), far()]),
        ("other", affinity("podAffinity", "db", "host"), [None, far(), far(), far()]),
        ("other", affinity("podAntiAffinity", "db", "zone"), [near(), near(), None, None]),
        // The first of its kind may be anywhere where there is a place at all.
        ("first", affinity("podAffinity", "first", "zone"), [None, None, None, far()]),
        ("other", affinity("podAffinity", "nobody", "zone"), [far(), far(), far(), far()]),
    ] {
        assert_eq!(verdicts(&all, &demanding("p", app, spec.clone())), expected, "{app} {spec}");
    }
}

#[test]
fn namespaces_are_selected_by_their_labels_as_they_are() {
    let mut all = zones(&["a", "b"]);
    let mut other = demanding("db", "db", json!({}));
    other.namespace = "blue".into();
    all.pod_bound(other, "n0", false, None);
    let term = json!({"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone",
        "namespaceSelector": {"matchLabels": {"team": "b"}}});
    let spec = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let pod = demanding("p", "web", spec);
    assert_eq!(verdicts(&all, &pod), [None, None]);
    all.namespace_seen("blue", Some([("team".to_owned(), "b".to_owned())].into()));
    assert_eq!(verdicts(&all, &pod), [Some(Unfit::TooNear), None]);
}

fn chosen(picture: &Picture, pod: &Pending) -> String {
    let plan = plan([pod], &moment(picture), &mut *policy(Which::LeastAllocated, 0));
    plan.placements.into_keys().next().unwrap()
}

#[test]
fn what_a_pod_would_rather_have_decides_among_nodes_that_fit() {
    let mut all = zones(&["a", "b", "c"]);
    bind(&mut all, "db", "db", "n1");
    bind(&mut all, "w1", "web", "n0");
    bind(&mut all, "w2", "web", "n2");
    let term = |app: &str| {
        json!({"weight": 10, "podAffinityTerm": {
        "labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"}})
    };
    let preferred = |kind: &str, term: Value| {
        json!({"affinity": {kind: {
        "preferredDuringSchedulingIgnoredDuringExecution": [term]}}})
    };
    let zone = json!({"weight": 1, "preference": {"matchExpressions": [
        {"key": "zone", "operator": "In", "values": ["c"]}]}});
    for (spec, expected) in [
        (preferred("podAffinity", term("db")), "n1"),
        (preferred("podAntiAffinity", term("web")), "n1"),
        (preferred("nodeAffinity", zone), "n2"),
        (
            json!({"topologySpreadConstraints": spread(json!({"whenUnsatisfiable": "ScheduleAnyway"}))}),
            "n1",
        ),
    ] {
        assert_eq!(chosen(&all, &demanding("p", "web", spec.clone())), expected, "{spec}");
    }
}

#[test]
fn a_taint_that_only_asks_is_obeyed_where_that_is_possible() {
    let mut tainted = node("a", 1000);
    tainted.taints =
        serde_json::from_value(json!([{"key": "k", "effect": "PreferNoSchedule"}])).unwrap();
    let alone = picture([tainted.clone()]);
    let pod = demanding("p", "web", json!({}));
    assert_eq!(chosen(&alone, &pod), "a");
    let both = picture([tainted, node("b", 500)]);
    assert_eq!(chosen(&both, &pod), "b");
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    assert_eq!(chosen(&both, &demanding("p", "web", tolerant)), "a", "it has more");
}

#[test]
fn a_pod_goes_where_its_large_image_is_already() {
    let mut has = node("b", 1000);
    has.images = Arc::new([("example/large:1".to_owned(), 800 << 20)].into());
    let all = picture([node("a", 1000), has]);
    let mut pod = demanding("p", "web", json!({}));
    pod.demands = Arc::new(super::super::demands::Demands {
        images: vec!["example/large:1".into()],
        ..Default::default()
    });
    assert_eq!(chosen(&all, &pod), "b");
    assert_eq!(chosen(&all, &demanding("p", "web", json!({}))), "a");
}

proptest! {
    /// What a plan places is counted just as if it had been there from the beginning.
    #[test]
    fn no_plan_breaks_what_its_pods_demand_of_each_other(
        zone_of in proptest::collection::vec(0..3_u8, 2..6),
        kinds in proptest::collection::vec(0..4_u8, 1..14),
    ) {
        let zone_names: Vec<_> = zone_of.iter().map(|zone| format!("z{zone}")).collect();
        let zone_names: Vec<_> = zone_names.iter().map(String::as_str).collect();
        let all = zones(&zone_names);
        let pods: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(number, kind)| {
                let spec = match kind {
                    0 => affinity("podAntiAffinity", "web", "host"),
                    1 => json!({"topologySpreadConstraints": spread(json!({}))}),
                    2 => affinity("podAffinity", "web", "zone"),
                    _ => json!({}),
                };
                demanding(&format!("p{number:02}"), "web", spec)
            })
            .collect();
        let plan = plan(&pods, &moment(&all), &mut *policy(Which::Random, 3));
        let node_of = |uid: &str| plan.placements.iter().find(|(_, uids)| uids.iter().any(|one| one == uid)).map(|(node, _)| node.clone());
        let zone = |node: &str| zone_names[node[1..].parse::<usize>().unwrap()];
        let mut there: Vec<(u8, String)> = Vec::new();
        for (pod, kind) in pods.iter().zip(&kinds) {
            let in_zone = |name: &str| there.iter().filter(|(_, node)| zone(node) == name).count();
            let emptiest = zone_names.iter().map(|name| in_zone(name)).min().unwrap();
            let may = |node: &str| {
                let alone = there.iter().all(|(other, on)| on != node || (*other != 0 && *kind != 0));
                let spread = *kind != 1 || in_zone(zone(node)) < emptiest + 1;
                let near = *kind != 2 || there.is_empty() || in_zone(zone(node)) > 0;
                alone && spread && near
            };
            match node_of(&pod.uid) {
                Some(node) => {
                    prop_assert!(may(&node), "{} on {node} among {there:?}", pod.uid);
                    there.push((*kind, node));
                }
                None => {
                    let could = (0..zone_names.len()).find(|node| may(&format!("n{node}")));
                    prop_assert!(could.is_none(), "{} waits though {could:?} is free", pod.uid);
                }
            }
        }
    }
}
