use super::*;
use serde_json::json;

fn decode_as(
    kind: &str,
    body: &Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let target = Target::of("", "v1", kind).unwrap();
    decode(target, JSON, body.to_string().as_bytes(), validation)
}

#[test]
fn wrong_types_are_refused_in_the_words_of_go() {
    let table = [
        (
            "ConfigMap",
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "Pod",
            json!({"spec": {"terminationGracePeriodSeconds": "ten"}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            "Pod",
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            json!({"spec": {"containers": ["x"]}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"image": true}]}}),
            "json: cannot unmarshal bool into Go struct field Container.spec.containers.image of type string",
        ),
        (
            "ReplicationController",
            json!({"spec": {"replicas": 3_000_000_000_u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field ReplicationControllerSpec.spec.replicas of type int32",
        ),
        (
            "Pod",
            json!({"metadata": {"labels": ["a"]}}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
    ];
    for (kind, body, why) in table {
        let error = decode_as(kind, &body, FieldValidation::Ignore).unwrap_err();
        assert_eq!(error.code(), 400);
        assert_eq!(
            error.to_string(),
            format!("{kind} in version \"v1\" cannot be handled as a {kind}: {why}")
        );
    }
}

#[test]
fn unknown_and_doubled_fields_are_told_as_asked_and_dropped() {
    let body = br#"{"kind":"Pod","apiVersion":"v1","foo":1,"spec":{"containers":[{"name":"c","imagee":"x","image":"i","image":"j"}]}}"#;
    let target = Target::of("", "v1", "Pod").unwrap();
    let read = |validation| decode(target, JSON, body, validation);
    let error = read(FieldValidation::Strict).unwrap_err().to_string();
    assert_eq!(
        error,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"foo\", \
         unknown field \"spec.containers[0].imagee\", duplicate field \"spec.containers[0].image\""
    );
    let warned = read(FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings.len(), 3);
    assert_eq!(warned.warnings[1], "unknown field \"spec.containers[0].imagee\"");
    let ignored = read(FieldValidation::Ignore).unwrap();
    assert!(ignored.warnings.is_empty());
    assert_eq!(
        ignored.object,
        json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"name": "c", "image": "j"}]}})
    );
}

#[test]
fn nulls_are_absent_fields_and_zero_entries() {
    let body =
        json!({"metadata": {"labels": null, "creationTimestamp": null}, "data": {"a": null}});
    let decoded = decode_as("ConfigMap", &body, FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object,
        json!({"metadata": {}, "data": {"a": ""}, "kind": "ConfigMap", "apiVersion": "v1"})
    );
}

#[test]
fn numbers_become_quantities_and_times_become_utc() {
    let body = json!({
        "metadata": {"creationTimestamp": "2026-01-01T02:00:00+02:00"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 2}}}]}
    });
    let pod = decode_as("Pod", &body, FieldValidation::Strict).unwrap().object;
    assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    let node = |cpu: Value| {
        decode_as("Node", &json!({"status": {"capacity": {"cpu": cpu}}}), FieldValidation::Strict)
    };
    assert_eq!(node(json!("1500m")).unwrap().object["status"]["capacity"]["cpu"], "1500m");
    assert_eq!(node(json!(0.5)).unwrap().object["status"]["capacity"]["cpu"], "500m");
    assert!(node(json!("much")).unwrap_err().to_string().contains("quantities must match"));
    let wrong = decode_as(
        "Pod",
        &json!({"metadata": {"creationTimestamp": "yesterday"}}),
        FieldValidation::Strict,
    );
    assert!(wrong.unwrap_err().to_string().contains("parsing time \"yesterday\""));
}

#[test]
fn other_kinds_and_versions_are_refused() {
    let error = |body: Value| decode_as("Pod", &body, FieldValidation::Warn).unwrap_err();
    assert!(
        error(json!({"kind": "Podd", "apiVersion": "v1"}))
            .to_string()
            .starts_with("no kind \"Podd\" is registered")
    );
    assert!(
        error(json!({"kind": "Service", "apiVersion": "v1"}))
            .to_string()
            .contains("cannot be handled as a Pod")
    );
    assert_eq!(
        error(json!({"kind": "Pod", "apiVersion": "v2"})).to_string(),
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
    assert_eq!(error(json!([1])).code(), 400);
    assert_eq!(error(json!({"kind": 1})).code(), 400);
}

#[test]
fn the_form_is_read_off_the_content_type() {
    let target = Target::of("", "v1", "ConfigMap").unwrap();
    let yaml = b"data:\n  a: \"1\"\nkind: ConfigMap\n";
    for content_type in ["application/yaml", "application/apply-patch+yaml; charset=utf-8"] {
        let decoded = decode(target, content_type, yaml, FieldValidation::Strict).unwrap();
        assert_eq!(decoded.object["data"]["a"], "1");
    }
    assert!(decode(target, "", b"{}", FieldValidation::Strict).is_ok());
    assert_eq!(
        decode(target, "text/html", b"{}", FieldValidation::Strict).unwrap_err().code(),
        415
    );
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    assert_eq!(decode(target, JSON, &large, FieldValidation::Strict).unwrap_err().code(), 413);
}

#[test]
fn an_answer_in_protobuf_can_be_read_again() {
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "1"}});
    let body = encode(PROTOBUF, &map).unwrap();
    let target = Target::of("", "v1", "ConfigMap").unwrap();
    assert_eq!(decode(target, PROTOBUF, &body, FieldValidation::Strict).unwrap().object, map);
    assert!(encode("text/html", &map).is_none());
    assert!(encode(PROTOBUF, &json!({"kind": "Nonsense", "apiVersion": "v1"})).is_none());
}

#[test]
fn what_says_nothing_is_left_out_and_what_says_zero_stays() {
    let body = json!({
        "metadata": {"labels": {}, "finalizers": [], "generateName": ""},
        "spec": {
            "replicas": 0,
            "minReadySeconds": 0,
            "template": {"spec": {"containers": [], "volumes": [{"name": "", "emptyDir": {}}], "hostNetwork": false}},
        },
    });
    let rc = decode_as("ReplicationController", &body, FieldValidation::Strict).unwrap().object;
    assert_eq!(
        rc["spec"],
        json!({"replicas": 0, "template": {"spec": {"containers": [], "volumes": [{"name": "", "emptyDir": {}}]}}})
    );
    assert_eq!(rc["metadata"], json!({}));
}
