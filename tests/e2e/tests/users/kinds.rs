//! Every kind by kubectl: made, read, described and deleted as any other; where nothing of ours acts on one that would be
//! believed, with a word about what does not happen.

use impresario_e2e::{Site, with_a_kubectl, with_every_kubectl};

with_every_kubectl!(create_makes_quotas_classes_and_ingresses,);
with_a_kubectl!(
    every_kind_is_made_read_described_and_deleted,
    an_autoscaler_is_the_same_in_both_versions,
    a_certificate_is_approved_or_denied,
);

fn create_makes_quotas_classes_and_ingresses(site: &Site) {
    let kubectl = &site.kubectl;
    let quota = kubectl.run("create quota q --hard=pods=5,requests.cpu=2");
    assert_eq!(quota.ok(), "resourcequota/q created\n");
    assert_eq!(kubectl.field("get quota q", "{.spec.hard.pods}"), "5");

    // Classes are the cluster's: the name is this test's own.
    let class = format!("high-{}", kubectl.namespace);
    let made = kubectl.run(&format!("create priorityclass {class} --value=1000 --description=x"));
    assert_eq!(made.ok(), format!("priorityclass.scheduling.k8s.io/{class} created\n"));
    let shown = kubectl.run(&format!("get priorityclass {class} --no-headers")).ok();
    let shown: Vec<_> = shown.split_whitespace().take(3).collect();
    assert_eq!(shown, [class.as_str(), "1000", "false"]);
    kubectl.run(&format!("delete priorityclass {class}")).ok();

    let rule =
        "create ingress web --class=none --rule=a.example/x*=web:80 --rule=b.example/=web:http";
    assert_eq!(kubectl.run(rule).ok(), "ingress.networking.k8s.io/web created\n");
    let shown = kubectl.run("get ingress web --no-headers").ok();
    assert!(shown.contains("a.example,b.example"), "{shown}");
    let told = kubectl.run("describe ingress web").ok();
    assert!(told.contains("web:80") && told.contains("web:http"), "{told}");

    kubectl.run("create deployment d --image=busybox --replicas=0").ok();
    kubectl.run("autoscale deployment d --max=3 --min=1").ok();
    let shown = kubectl.run("get hpa d --no-headers").ok();
    assert!(shown.contains("Deployment/d") && shown.contains("<unknown>/80%"), "{shown}");
    let told = kubectl.run("describe hpa d").ok();
    assert!(told.contains("Deployment/d"), "{told}");
    kubectl.run("delete quota,ingress,hpa,deployment --all --timeout=60s").ok();
}

/// A kind: its word for kubectl, whether its objects are the cluster's, and what stands below the name of one. `NAME` is the
/// name of the object.
const KINDS: &[(&str, bool, &str)] = &[
    ("v1 LimitRange", false, "spec: {limits: [{type: Container, max: {cpu: 2}}]}"),
    ("v1 PodTemplate", false, "template: {spec: {containers: [{name: c, image: busybox}]}}"),
    (
        "v1 PersistentVolume",
        true,
        "spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /tmp}}",
    ),
    (
        "v1 PersistentVolumeClaim",
        false,
        "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}",
    ),
    (
        "apiregistration.k8s.io/v1 APIService",
        true,
        "spec: {group: NAME, version: v1, groupPriorityMinimum: 10, versionPriority: 10}",
    ),
    ("networking.k8s.io/v1 IngressClass", true, "spec: {controller: example.com/NAME}"),
    (
        "networking.k8s.io/v1 NetworkPolicy",
        false,
        "spec: {podSelector: {}, policyTypes: [Ingress]}",
    ),
    ("networking.k8s.io/v1 ServiceCIDR", true, "spec: {cidrs: [10.77.0.0/16]}"),
    ("storage.k8s.io/v1 CSIDriver", true, "spec: {attachRequired: false}"),
    ("storage.k8s.io/v1 CSINode", true, "spec: {drivers: []}"),
    ("storage.k8s.io/v1 CSIStorageCapacity", false, "storageClassName: fast"),
    ("storage.k8s.io/v1 StorageClass", true, "provisioner: example.com/disk"),
    (
        "storage.k8s.io/v1 VolumeAttachment",
        true,
        "spec: {attacher: a.example, nodeName: node-x, source: {persistentVolumeName: v}}",
    ),
    ("storage.k8s.io/v1 VolumeAttributesClass", true, "driverName: a.example\nparameters: {a: b}"),
    ("node.k8s.io/v1 RuntimeClass", true, "handler: other"),
    (
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy",
        true,
        "spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [NAME], apiVersions: [v1], resources: [x]}]}, validations: [{expression: 'true'}]}",
    ),
    (
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding",
        true,
        "spec: {policyName: p, validationActions: [Deny]}",
    ),
    (
        "admissionregistration.k8s.io/v1 MutatingAdmissionPolicy",
        true,
        "spec: {reinvocationPolicy: Never, matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [NAME], apiVersions: [v1], resources: [x]}]}, mutations: [{patchType: JSONPatch, jsonPatch: {expression: '[]'}}]}",
    ),
    (
        "admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding",
        true,
        "spec: {policyName: p}",
    ),
    (
        "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration",
        true,
        "webhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://a.example'}}]",
    ),
    (
        "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration",
        true,
        "webhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://a.example'}}]",
    ),
    ("resource.k8s.io/v1 DeviceClass", true, "spec: {selectors: [{cel: {expression: 'true'}}]}"),
    (
        "resource.k8s.io/v1 ResourceClaim",
        false,
        "spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}]}}",
    ),
    (
        "resource.k8s.io/v1 ResourceClaimTemplate",
        false,
        "spec: {spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}]}}}",
    ),
    (
        "resource.k8s.io/v1 ResourceSlice",
        true,
        "spec: {driver: a.example, allNodes: true, pool: {name: NAME, generation: 1, resourceSliceCount: 1}, devices: [{name: d}]}",
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1 FlowSchema",
        true,
        "spec: {priorityLevelConfiguration: {name: l}}",
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration",
        true,
        "spec: {type: Limited, limited: {limitResponse: {type: Reject}}}",
    ),
];

fn every_kind_is_made_read_described_and_deleted(site: &Site) {
    let kubectl = &site.kubectl;
    for (kind, of_the_cluster, rest) in KINDS {
        let (version, kind) = kind.split_once(' ').unwrap();
        // What is the cluster's has the test's own name.
        let own = format!("{}.example.com", kubectl.namespace);
        let name = match (kind, *of_the_cluster) {
            ("APIService", _) => format!("v1.{own}"),
            (_, true) => own.clone(),
            (_, false) => "a".to_owned(),
        };
        let group = version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        let word = format!("{}{group}", kind.to_lowercase());
        let manifest = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n{}\n",
            rest.replace("NAME", &own)
        );
        let created = kubectl.feed("create -f -", &manifest).ok();
        assert_eq!(created, format!("{word}/{name} created\n"), "{kind}");
        assert_eq!(kubectl.field(&format!("get {word}/{name}"), "{.kind}"), kind);
        let shown = kubectl.run(&format!("get {word} {name} --no-headers")).ok();
        assert!(shown.starts_with(&name), "{kind}: {shown}");
        // This kubectl describes it by a version that Kubernetes 1.36 serves no more.
        if kind != "VolumeAttributesClass" {
            let told = kubectl.run(&format!("describe {word} {name}")).ok();
            assert!(told.contains(&name), "{kind}: {told}");
        }
        assert_eq!(
            kubectl.run(&format!("label {word} {name} a=b")).ok(),
            format!("{word}/{name} labeled\n")
        );
        kubectl.run(&format!("delete {word} {name} --timeout=60s")).ok();
        let gone = kubectl.run(&format!("get {word} {name}")).refused();
        assert!(gone.contains("NotFound"), "{kind}: {gone}");
    }
    let empty = kubectl.run("get componentstatuses");
    assert!(empty.err.contains("No resources found"), "{empty:?}");
}

fn an_autoscaler_is_the_same_in_both_versions(site: &Site) {
    let kubectl = &site.kubectl;
    let manifest = r"
apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata: {name: a}
spec:
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}
  targetCPUUtilizationPercentage: 50
";
    kubectl.feed("apply -f -", manifest).ok();
    let v2 = "{.apiVersion} {.spec.metrics[0].resource.target.averageUtilization}";
    assert_eq!(kubectl.field("get hpa a", v2), "autoscaling/v2 50");
    let v1 = "{.apiVersion} {.spec.targetCPUUtilizationPercentage}";
    let older = "get horizontalpodautoscalers.v1.autoscaling a";
    assert_eq!(kubectl.field(older, v1), "autoscaling/v1 50");
    let changed = manifest.replace("Percentage: 50", "Percentage: 60");
    kubectl.feed("apply -f -", &changed).ok();
    assert_eq!(kubectl.field("get hpa a", v2), "autoscaling/v2 60");
    kubectl.run("delete hpa a").ok();
}

fn a_certificate_is_approved_or_denied(site: &Site) {
    let kubectl = &site.kubectl;
    // A request is read by its form alone: nobody of ours signs it.
    let request = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    for (verb, condition) in [("approve", "Approved"), ("deny", "Denied")] {
        let name = format!("{verb}-{}", kubectl.namespace);
        let manifest = format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
             spec: {{request: {request}, signerName: example.com/signer, usages: [client auth]}}\n"
        );
        kubectl.feed("create -f -", &manifest).ok();
        let shown = kubectl.run(&format!("get csr {name} --no-headers")).ok();
        assert!(shown.contains("Pending"), "{shown}");
        kubectl.run(&format!("certificate {verb} {name}")).ok();
        let shown = kubectl.run(&format!("get csr {name} --no-headers")).ok();
        assert!(shown.contains(condition), "{shown}");
        kubectl.run(&format!("delete csr {name}")).ok();
    }
}
