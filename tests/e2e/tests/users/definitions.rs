//! Kinds that users define, by kubectl.

use impresario_e2e::{Site, with_a_kubectl};

with_a_kubectl!(a_kind_that_is_defined_is_used_as_any_other,);

/// A kind of a group of its own, so that tests that run at the same time do not meet.
fn definition(group: &str) -> String {
    format!(
        r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: crontabs.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: crontabs, singular: crontab, kind: CronTab}}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {{type: string, description: When it runs.}}
              replicas:
                type: integer
                default: 1
                maximum: 10
                x-kubernetes-validations:
                - {{rule: self >= oldSelf, message: replicas may not shrink}}
          status: {{type: object, properties: {{replicas: {{type: integer}}}}}}
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {{name: Spec, type: string, jsonPath: .spec.cronSpec}}
"
    )
}

fn object(group: &str, spec: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: CronTab\nmetadata: {{name: a}}\nspec: {spec}\n")
}

fn a_kind_that_is_defined_is_used_as_any_other(site: &Site) {
    let kubectl = &site.kubectl;
    let group = format!("{}.example.com", kubectl.namespace);
    let (crd, crontabs) = (format!("crd/crontabs.{group}"), format!("crontabs.{group}"));
    kubectl.feed("apply -f -", &definition(&group)).ok();
    kubectl.run(&format!("wait --for=condition=Established {crd} --timeout=60s")).ok();
    // Another member may answer, which serves it a moment later.
    kubectl.until(&format!("get {crontabs}"), "{.items}", "[]");

    let wrong = kubectl.feed("create -f -", &object(&group, "{cronSpec: x, replicas: 11}"));
    assert!(wrong.err.contains("should be less than or equal to 10"), "{wrong:?}");
    kubectl.feed("apply -f -", &object(&group, "{cronSpec: '* * * * */5'}")).ok();
    let one = format!("{crontabs}/a");
    assert_eq!(kubectl.field(&format!("get {one}"), "{.spec.replicas}"), "1");
    kubectl.run(&format!("scale {one} --replicas=3")).ok();
    let shrunk = kubectl.run(&format!("scale {one} --replicas=2"));
    assert!(shrunk.err.contains("replicas may not shrink"), "{shrunk:?}");
    let table = kubectl.run(&format!("get {crontabs}")).ok();
    assert!(table.starts_with("NAME") && table.contains("SPEC"), "{table}");
    assert!(table.contains("* * * * */5"), "{table}");
    let told = kubectl.run(&format!("explain crontabs --api-version={group}/v1 --recursive")).ok();
    assert!(told.contains("cronSpec"), "{told}");

    kubectl.run(&format!("delete {crd} --timeout=60s")).ok();
    let gone = kubectl.run(&format!("get {crd}"));
    assert!(gone.err.contains("not found"), "{gone:?}");
}
