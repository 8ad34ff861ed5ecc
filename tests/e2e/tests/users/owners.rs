//! What becomes of objects when their owners go, of owners that are none, and of namespaces.

use crate::manifests::replicas;
use impresario_e2e::{Site, eventually, with_a_kubectl};
use std::collections::BTreeSet;

with_a_kubectl!(
    an_orphaned_controller_goes_at_once_and_the_next_adopts_its_pods,
    a_circle_of_owners_goes_with_the_first,
    an_owner_in_another_namespace_of_another_kind_or_name_or_gone_is_none,
    a_namespace_says_what_holds_it_up_and_ends_when_that_goes,
    the_authority_s_certificate_is_put_back,
);

fn owned(name: &str, owner: (&str, &str, &str)) -> String {
    let (kind, owner, uid) = owner;
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  ownerReferences: \
         [{{apiVersion: v1, kind: {kind}, name: {owner}, uid: {uid}}}]\n"
    )
}

fn an_orphaned_controller_goes_at_once_and_the_next_adopts_its_pods(site: &Site) {
    let kubectl = &site.kubectl;
    let names = || -> BTreeSet<String> {
        let text = kubectl.field("get pods -l app=app", "{.items[*].metadata.name}");
        text.split_whitespace().map(str::to_owned).collect()
    };
    kubectl.feed("create -f -", &replicas("app", 2)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "2");
    let pods = names();
    for _ in 0..5 {
        kubectl.run("delete rc app --cascade=orphan --timeout=120s").ok();
        kubectl.until("get pods", "{.items[*].metadata.ownerReferences}", "");
        kubectl.feed("create -f -", &replicas("app", 2)).ok();
        kubectl.until("get rc app", "{.status.readyReplicas}", "2");
        let uid = kubectl.field("get rc app", "{.metadata.uid}");
        kubectl.until(
            "get pods -l app=app",
            "{.items[*].metadata.ownerReferences[*].uid}",
            &format!("{uid} {uid}"),
        );
        assert_eq!(names(), pods);
    }
}

fn a_circle_of_owners_goes_with_the_first(site: &Site) {
    let kubectl = &site.kubectl;
    let uid = |name: &str| kubectl.field(&format!("get configmap {name}"), "{.metadata.uid}");
    for name in ["a", "b", "c"] {
        kubectl.run(&format!("create configmap {name} --from-literal=a=b")).ok();
    }
    for (name, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
        let patch = format!(
            r#"{{"metadata":{{"ownerReferences":[{{"apiVersion":"v1","kind":"ConfigMap","name":"{owner}","uid":"{}","blockOwnerDeletion":true}}]}}}}"#,
            uid(owner)
        );
        kubectl.run_with(&format!("patch configmap {name} -p"), &[&patch]).ok();
    }
    kubectl.run("delete configmap a --cascade=foreground --timeout=120s").ok();
    for name in ["b", "c"] {
        kubectl.run(&format!("wait --for=delete configmap/{name} --timeout=120s")).ok();
    }
}

fn an_owner_in_another_namespace_of_another_kind_or_name_or_gone_is_none(site: &Site) {
    let kubectl = &site.kubectl;
    let mut elsewhere = kubectl.clone();
    elsewhere.namespace = format!("{}-b", kubectl.namespace);
    kubectl.run(&format!("create namespace {}", elsewhere.namespace)).ok();
    kubectl.run("create configmap owner --from-literal=a=b").ok();
    let uid = kubectl.field("get configmap owner", "{.metadata.uid}");
    let nobody = "00000000-1111-2222-3333-444444444444";
    kubectl.feed("create -f -", &owned("good", ("ConfigMap", "owner", &uid))).ok();
    elsewhere.feed("create -f -", &owned("elsewhere", ("ConfigMap", "owner", &uid))).ok();
    for (name, owner) in [
        ("wrongkind", ("Secret", "owner", uid.as_str())),
        ("wrongname", ("ConfigMap", "somebody", uid.as_str())),
        ("nobody", ("ConfigMap", "ghost", nobody)),
    ] {
        kubectl.feed("create -f -", &owned(name, owner)).ok();
        kubectl.run(&format!("wait --for=delete configmap/{name} --timeout=120s")).ok();
    }
    elsewhere.run("wait --for=delete configmap/elsewhere --timeout=120s").ok();
    elsewhere.until(
        "get events --field-selector reason=OwnerRefInvalidNamespace",
        "{.items[*].involvedObject.name}",
        "elsewhere",
    );
    assert_eq!(kubectl.field("get configmap good", "{.metadata.name}"), "good");
    kubectl.run("delete configmap owner").ok();
    kubectl.run("wait --for=delete configmap/good --timeout=120s").ok();
    kubectl.feed("create -f -", &owned("late", ("ConfigMap", "owner", &uid))).ok();
    kubectl.run("wait --for=delete configmap/late --timeout=120s").ok();
    kubectl.run(&format!("delete namespace {} --wait=false", elsewhere.namespace)).ok();
}

fn a_namespace_says_what_holds_it_up_and_ends_when_that_goes(site: &Site) {
    let mut kubectl = site.kubectl.clone();
    kubectl.namespace = format!("{}-held", site.kubectl.namespace);
    let namespace = kubectl.namespace.clone();
    kubectl.run(&format!("create namespace {namespace}")).ok();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: held, finalizers: [example.com/hold]}\n\
         spec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: main, image: busybox, command: [sleep, \"600\"]}\n";
    kubectl.feed("create -f -", pod).ok();
    kubectl.run("create configmap after --from-literal=a=b").ok();
    kubectl.run(&format!("delete namespace {namespace} --wait=false")).ok();
    let message = |type_: &str| {
        let path = format!("{{.status.conditions[?(@.type=='{type_}')].message}}");
        kubectl.field(&format!("get namespace {namespace}"), &path)
    };
    eventually("the conditions say what is left", || {
        let content = message("NamespaceContentRemaining");
        let finalizers = message("NamespaceFinalizersRemaining");
        let said = content == "Some resources are remaining: pods. has 1 resource instances"
            && finalizers
                == "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
        if said { Ok(()) } else { Err(format!("{content}; {finalizers}")) }
    });
    let all = kubectl.json(&format!("get namespace {namespace}"))["status"]["conditions"].clone();
    let types: BTreeSet<_> =
        all.as_array().unwrap().iter().filter_map(|it| it["type"].as_str()).collect();
    let expected = [
        "NamespaceDeletionDiscoveryFailure",
        "NamespaceDeletionGroupVersionParsingFailure",
        "NamespaceDeletionContentFailure",
        "NamespaceContentRemaining",
        "NamespaceFinalizersRemaining",
    ];
    assert_eq!(types, expected.into());
    assert_eq!(kubectl.field("get configmap after", "{.metadata.name}"), "after", "pods go first");
    kubectl.run_with("patch pod held -p", &[r#"{"metadata":{"finalizers":null}}"#]).ok();
    kubectl.run(&format!("wait --for=delete namespace/{namespace} --timeout=120s")).ok();
}

fn the_authority_s_certificate_is_put_back(site: &Site) {
    let kubectl = &site.kubectl;
    let path = "{.data}";
    eventually("the namespace is furnished", || {
        let found = kubectl.run("get configmap kube-root-ca.crt");
        if found.code == 0 { Ok(()) } else { Err(found.err) }
    });
    let before = kubectl.field("get configmap kube-root-ca.crt", path);
    assert!(before.contains("BEGIN CERTIFICATE"), "{before}");
    let patch = r#"{"data":{"ca.crt":"something else","more":"x"}}"#;
    kubectl.run_with("patch configmap kube-root-ca.crt -p", &[patch]).ok();
    kubectl.until("get configmap kube-root-ca.crt", path, &before);
    let uid = kubectl.field("get configmap kube-root-ca.crt", "{.metadata.uid}");
    kubectl.run("delete configmap kube-root-ca.crt").ok();
    eventually("it is there again", || {
        let now = kubectl.run("get configmap kube-root-ca.crt -o jsonpath={.metadata.uid}");
        if now.code == 0 && now.out != uid { Ok(()) } else { Err(now.err) }
    });
    kubectl.until("get configmap kube-root-ca.crt", path, &before);
}
