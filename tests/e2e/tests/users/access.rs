//! Who may do what, by kubectl: roles, bindings, reviews and acting as somebody else.

use impresario_e2e::{Kubectl, Site, eventually, with_every_kubectl};

with_every_kubectl!(
    a_user_may_what_a_role_gives_them,
    a_role_that_is_put_together_grows_with_its_parts,
    roles_are_reconciled_from_a_file,
    who_does_not_have_a_right_gives_it_to_nobody,
);

/// What `auth can-i` says: its exit code tells yes from no.
fn can(kubectl: &Kubectl, line: &str) -> bool {
    let said = kubectl.run(&format!("auth can-i {line}"));
    assert!(said.out.starts_with("yes") || said.out.starts_with("no"), "{said:?}");
    said.out.starts_with("yes")
}

/// Waits until it is so at whichever member answers.
fn until(kubectl: &Kubectl, line: &str, wanted: bool) {
    eventually(&format!("can-i {line} is {wanted}"), || {
        let now = can(kubectl, line);
        (now == wanted).then_some(()).ok_or_else(|| now.to_string())
    });
}

fn a_user_may_what_a_role_gives_them(site: &Site) {
    let kubectl = &site.kubectl;
    let namespace = &kubectl.namespace;
    assert!(can(kubectl, "create clusterroles"), "the operator may everything");
    let ann = "list configmaps --as ann";
    assert!(!can(kubectl, ann));
    kubectl.run("create role maps --verb=get,list --resource=configmaps").ok();
    kubectl.run("create rolebinding maps --role=maps --user=ann").ok();
    until(kubectl, ann, true);
    assert!(!can(kubectl, "list configmaps --as ann -n default"));
    assert!(!can(kubectl, "list configmaps --as bob"));
    kubectl.run("get configmaps --as ann").ok();
    let refused = kubectl.run("create configmap x --as ann").refused();
    assert!(
        refused.contains("cannot create resource \"configmaps\" in API group \"\""),
        "{refused}"
    );
    let told = kubectl.run("auth can-i --list --as ann").ok();
    let line = told.lines().find(|line| line.starts_with("configmaps"));
    assert!(line.is_some_and(|line| line.contains("[get list]")), "{told}");
    // Service accounts are users, too.
    kubectl
        .run(&format!("create rolebinding bot --role=maps --serviceaccount={namespace}:bot"))
        .ok();
    until(kubectl, &format!("list configmaps --as system:serviceaccount:{namespace}:bot"), true);
    kubectl.run("delete rolebinding maps").ok();
    until(kubectl, ann, false);
    let table = kubectl.run("get rolebindings -o wide").ok();
    assert!(table.contains("Role/maps") && table.contains(&format!("{namespace}/bot")), "{table}");
    let described = kubectl.run("describe role maps").ok();
    assert!(described.contains("configmaps") && described.contains("[get list]"), "{described}");
    if kubectl.version != "1.27" {
        let who = kubectl.run("auth whoami --as ann --as-group dev").ok();
        assert!(who.contains("ann") && who.contains("[dev system:authenticated]"), "{who}");
    }
}

fn a_role_that_is_put_together_grows_with_its_parts(site: &Site) {
    let kubectl = &site.kubectl;
    let name = kubectl.namespace.clone();
    kubectl.run("create rolebinding views --clusterrole=view --user=vic").ok();
    until(kubectl, "list pods --as vic", true);
    for (line, may) in [
        ("get pods --subresource=log --as vic", true),
        ("get secrets --as vic", false),
        ("create pods --as vic", false),
    ] {
        assert_eq!(can(kubectl, line), may, "{line}");
    }
    kubectl.run(&format!("create clusterrole {name} --verb=get --resource=leases")).ok();
    assert!(!can(kubectl, "get leases --as vic"));
    let label = "rbac.authorization.k8s.io/aggregate-to-view=true";
    kubectl.run(&format!("label clusterrole {name} {label}")).ok();
    until(kubectl, "get leases --as vic", true);
    kubectl.run(&format!("delete clusterrole {name}")).ok();
    until(kubectl, "get leases --as vic", false);
}

fn roles_are_reconciled_from_a_file(site: &Site) {
    let kubectl = &site.kubectl;
    // kubectl looks for what is there in the namespace that the file names.
    let space = kubectl.namespace.clone();
    let text = |verbs: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: kept, namespace: {space}}}\nrules:\n- apiGroups: ['']\n  \
             resources: [configmaps]\n  verbs: [{verbs}]\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n\
             metadata: {{name: kept, namespace: {space}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: kept}}\nsubjects:\n\
             - {{apiGroup: rbac.authorization.k8s.io, kind: User, name: rob}}\n"
        )
    };
    let path = site.cluster.scratch().join(format!("{}.yaml", kubectl.namespace));
    for verbs in ["get", "get, list", "get"] {
        std::fs::write(&path, text(verbs)).unwrap();
        let said = kubectl.run(&format!("auth reconcile -f {}", path.display())).ok();
        assert!(said.contains("kept"), "{said}");
    }
    // What was added once stays until somebody asks for it to be taken.
    until(kubectl, "list configmaps --as rob", true);
    kubectl.run(&format!("auth reconcile --remove-extra-permissions -f {}", path.display())).ok();
    until(kubectl, "list configmaps --as rob", false);
    assert!(can(kubectl, "get configmaps --as rob"));
}

fn who_does_not_have_a_right_gives_it_to_nobody(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create rolebinding admins --clusterrole=admin --user=ada").ok();
    until(kubectl, "create roles --as ada", true);
    kubectl.run("create role own --verb=get --resource=configmaps --as ada").ok();
    kubectl.run("create rolebinding edits --clusterrole=edit --user=dan --as ada").ok();
    let refused = kubectl.run("create role more --verb=get --resource=nodes --as ada").refused();
    assert!(
        refused.contains("attempting to grant RBAC permissions not currently held"),
        "{refused}"
    );
    let refused = kubectl
        .run("create rolebinding all --clusterrole=cluster-admin --user=dan --as ada")
        .refused();
    assert!(
        refused.contains("attempting to grant RBAC permissions not currently held"),
        "{refused}"
    );
    // The operator may act as a master, and so as anybody.
    kubectl.run("get pods --as ada --as-group system:masters -n kube-system").ok();
    let refused = kubectl.run("get pods -n kube-system --as ada").refused();
    assert!(refused.contains("cannot list resource \"pods\""), "{refused}");
}
