//! Who leaves for whom, with real nodes: what is written, and that the room is had.

use super::*;
use impresario_registry_api::Key;

fn of_priority(priority: i32, cpu: &str) -> Value {
    let mut spec = asks(cpu);
    spec["priority"] = priority.into();
    spec
}

#[actix::test]
async fn a_pod_of_a_higher_priority_has_the_room_of_one_of_a_lower_that_is_told_why() {
    let machine = Machine::start(1000).await;
    let _scheduler = schedule(&machine);
    let low = machine.create("low", of_priority(1, "600m")).await;
    let lowest = machine.create("lowest", of_priority(0, "300m")).await;
    for pod in [&low, &lowest] {
        machine.until(pod, "running", |pod| pod["status"]["phase"] == "Running").await;
    }
    let high = Key::new("pods", "ns", "high");
    let is_told = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter().any(|condition| {
                condition["type"] == "DisruptionTarget"
                    && condition["reason"] == "PreemptionByScheduler"
            })
        })
    };
    let (nominated, told, _) = tokio::join!(
        machine.until(&high, "nominated", |pod| pod["status"]["nominatedNodeName"] == "n1"),
        machine.until(&lowest, "told why", is_told),
        machine.create("high", of_priority(10, "350m")),
    );
    assert!(nominated["spec"]["nodeName"].is_null());
    assert!(told["metadata"]["deletionTimestamp"].is_null(), "first it is told why");
    machine
        .until(&lowest, "gone, or over", |pod| {
            pod.is_null() || !pod["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
    let high = machine.until(&high, "running", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(high["spec"]["nodeName"], "n1");
    assert!(high["status"]["nominatedNodeName"].is_null(), "it has the room");
    let low = machine.until(&low, "there", |pod| !pod.is_null()).await;
    assert!(low["metadata"]["deletionTimestamp"].is_null(), "one was enough");
}

#[actix::test]
async fn a_pod_waits_behind_its_gates_and_goes_when_they_are_open() {
    let machine = Machine::start(1000).await;
    let scheduler = schedule(&machine);
    let mut spec = asks("100m");
    spec["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    let gated = machine.create("gated", spec).await;
    let other = machine.create("other", asks("100m")).await;
    machine.until(&other, "running", |pod| pod["status"]["phase"] == "Running").await;
    let status = scheduler.ask(Status, LIMIT).await.unwrap();
    assert_eq!((status.bound, status.pending), (1, 0), "it came first, and is not even looked at");
    change::change(&machine.registry, &gated, None, None, |pod| {
        pod["spec"]["schedulingGates"] = Value::Null;
    })
    .await
    .unwrap();
    machine.until(&gated, "running", |pod| pod["status"]["phase"] == "Running").await;
}

#[actix::test]
async fn what_a_node_is_to_a_pod_that_waits_is_told() {
    let machine = Machine::start(1000).await;
    let node = Key::new("nodes", "", "n1");
    machine.until(&node, "registered", |node| !node.is_null()).await;
    let scheduler = schedule(&machine);
    let mut spec = asks("2");
    spec["nodeSelector"] = json!({"none": "has"});
    let pod = machine.create("p", spec).await;
    machine.until(&pod, "told why not", |pod| scheduled(pod).is_some()).await;
    let examine = Examine { namespace: "ns".into(), pod: "p".into() };
    let told = scheduler.ask(examine.clone(), LIMIT).await.unwrap().unwrap();
    assert_eq!((told.nodes, told.fitting, told.best.len()), (1, 0, 0));
    let reasons = ["node(s) didn't match Pod's node affinity/selector", "Insufficient cpu"];
    assert_eq!(
        (told.unfit[0].node.as_str(), &told.unfit[0].reasons[..]),
        ("n1", &reasons.map(str::to_owned)[..])
    );
    let unknown = Examine { pod: "unknown".into(), ..examine };
    assert!(scheduler.ask(unknown, LIMIT).await.unwrap().is_err());
}
