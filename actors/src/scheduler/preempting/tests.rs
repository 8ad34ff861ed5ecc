//! Who is told to leave, and when nobody is.

use super::*;
use crate::testing::Machine;
use std::cell::RefCell;

/// Making room for the pod on a node, and a pod that is in the way.
async fn scene(machine: &Machine) -> (Making, Vec<Arc<Pending>>) {
    let spec = json!({"containers": [], "schedulerName": "nobody"});
    let key = machine.create("waits", spec.clone()).await;
    for name in ["one", "two"] {
        machine.create(name, spec.clone()).await;
    }
    let making = Making {
        registry: machine.registry.clone(),
        fence: None,
        events: Recorder::new(machine.registry.clone(), "test", "test"),
        scheduler: "test".into(),
        uid: "waits".into(),
        node: "n7".into(),
        key,
    };
    let victim = |name: &str| {
        let (uid, name, namespace) = (name.to_owned(), name.to_owned(), "ns".to_owned());
        Arc::new(Pending { uid, namespace, name, ..Pending::default() })
    };
    (making, vec![victim("one"), victim("two")])
}

async fn read(machine: &Machine, name: &str) -> Value {
    let key = Key::new(POD, "ns", name);
    crate::change::get(&machine.registry, key).await.unwrap().unwrap_or_default()
}

#[actix::test]
async fn nobody_leaves_for_a_pod_that_is_bound_going_or_gone() {
    let machine = Machine::start(1000).await;
    let (making, victims) = scene(&machine).await;
    let deleted = RefCell::new(Vec::new());
    let delete = async |pod: &Pending| {
        deleted.borrow_mut().push(pod.uid.clone());
        Ok(())
    };
    let edit = async |edit: fn(&mut Value)| {
        change(&machine.registry, &making.key, None, None, edit).await.unwrap();
    };
    edit(|pod| pod["spec"]["nodeName"] = "elsewhere".into()).await;
    assert_eq!(making.make(&victims, &delete).await, Ok(Made::NotNeeded));
    edit(|pod| {
        pod["spec"]["nodeName"] = Value::Null;
        pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
    })
    .await;
    assert_eq!(making.make(&victims, &delete).await, Ok(Made::NotNeeded));
    assert_eq!(read(&machine, "waits").await["status"]["nominatedNodeName"], Value::Null);
    let other = Making { uid: "another".into(), ..making };
    assert_eq!(other.make(&victims, &delete).await, Ok(Made::NotNeeded));
    assert_eq!(*deleted.borrow(), Vec::<String>::new());
    assert_eq!(read(&machine, "one").await["status"]["conditions"], Value::Null);
}

#[actix::test]
async fn when_one_is_not_let_go_it_is_told_so_and_nobody_after_it_is_told_anything() {
    let machine = Machine::start(1000).await;
    let (making, victims) = scene(&machine).await;
    let refusal = || Status::new(Reason::Forbidden, "a policy says no");
    let told = RefCell::new(Vec::new());
    let delete = async |pod: &Pending| {
        let nominated = read(&machine, "waits").await["status"]["nominatedNodeName"].clone();
        let why = read(&machine, &pod.name).await["status"]["conditions"][0]["reason"].clone();
        told.borrow_mut().push((pod.uid.clone(), nominated, why));
        Err(refusal())
    };
    let made = making.make(&victims, &delete).await;
    assert_eq!(made, Ok(Made::Refused { victim: "one".into(), status: refusal() }));
    assert_eq!(*told.borrow(), [("one".to_owned(), json!("n7"), json!(BY_SCHEDULER))]);
    assert_eq!(read(&machine, "one").await["status"]["conditions"], json!([]));
    assert_eq!(read(&machine, "two").await["status"]["conditions"], Value::Null);
    assert_eq!(read(&machine, "waits").await["status"]["nominatedNodeName"], Value::Null);
}
