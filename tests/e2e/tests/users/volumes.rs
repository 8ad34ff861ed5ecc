//! Claims and volumes: a stateful set whose pods find what those before them have written, and folders that go with their
//! claims.

use impresario_e2e::{Site, eventually, with_a_kubectl};

with_a_kubectl!(a_stateful_set_keeps_its_data_until_its_claims_are_deleted,);

const NAMES: &str = "{.items[*].metadata.name}";
const PHASES: &str = "{.items[*].status.phase}";
const PLACE: &str = "{.spec.csi.volumeAttributes.node}/volumes/{.spec.csi.volumeHandle}";

/// Says what it finds in its volume, writes there and waits.
const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "echo found: `cat /data/kept`; echo kept > /data/kept; echo written; exec sleep 600"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

fn a_stateful_set_keeps_its_data_until_its_claims_are_deleted(site: &Site) {
    let kubectl = &site.kubectl;
    assert_eq!(
        kubectl.field("get storageclass local", "{.provisioner} {.volumeBindingMode}"),
        "impresario.dev/local WaitForFirstConsumer"
    );
    kubectl.feed("apply -f -", SET).ok();
    kubectl.until("get sts db", "{.status.availableReplicas}", "2");
    assert_eq!(kubectl.field("get pvc", NAMES), "data-db-0 data-db-1");
    assert_eq!(kubectl.field("get pvc", PHASES), "Bound Bound");
    assert_eq!(kubectl.field("get pvc data-db-0", "{.spec.storageClassName}"), "local");

    // Where the first of them is, and which folder it has there.
    let volume = kubectl.field("get pvc data-db-0", "{.spec.volumeName}");
    let place = kubectl.field(&format!("get pv {volume}"), PLACE);
    let node = kubectl.field("get pod db-0", "{.spec.nodeName}");
    assert_eq!(place, format!("{node}/volumes/{volume}"));
    let folder = site.cluster.node(&node).join("volumes").join(&volume);
    eventually("the pod has written", || {
        std::fs::read_to_string(folder.join("kept")).map_err(|error| error.to_string())
    });

    // Another pod of the name finds it there.
    kubectl.run("delete pod db-0 --timeout=120s").ok();
    kubectl.until("get sts db", "{.status.availableReplicas}", "2");
    assert_eq!(kubectl.field("get pod db-0", "{.spec.nodeName}"), node);
    eventually("the next one has found it", || {
        let log = kubectl.run("logs db-0").out;
        if log.contains("found: kept") { Ok(()) } else { Err(log) }
    });

    // A claim that is used is held; the set's claims stay when it goes, and what is in them.
    kubectl.run("delete pvc data-db-1 --wait=false").ok();
    assert_eq!(kubectl.field("get pvc data-db-1", "{.status.phase}"), "Bound");
    kubectl.run("delete sts db --timeout=120s").ok();
    kubectl.until("get pods", NAMES, "");
    kubectl.until("get pvc", NAMES, "data-db-0");
    assert!(folder.join("kept").exists());

    // Their folders go with them.
    kubectl.run("delete pvc data-db-0 --timeout=60s").ok();
    eventually("the volume is gone with its folder", || {
        let left = kubectl.run(&format!("get pv {volume} --ignore-not-found")).out;
        let is_gone = left.is_empty() && !folder.exists();
        if is_gone { Ok(()) } else { Err(left) }
    });
}
