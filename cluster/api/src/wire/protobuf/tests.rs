use super::{decode, encode};
use crate::rules::recorded_data::table;
use crate::schema::{self, Cardinality, Field, FieldType, Message, Shape};
use crate::wire::check;
use crate::wire::{self, FieldValidation, Target};
use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Draws choices from the bytes that proptest found.
struct Dice(Vec<u8>, usize);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.1 += 1;
        let byte = self.0.get(self.1 % self.0.len().max(1)).copied().unwrap_or(7);
        (u64::from(byte) * 31 + self.1 as u64 * 7) % sides
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

fn object(message: &'static Message, dice: &mut Dice, depth: usize) -> Value {
    let mut map = Map::new();
    for field in message.json_fields() {
        if dice.below(3) > 0 || (depth == 0 && field.message().is_some()) {
            continue;
        }
        let value = match field.cardinality {
            Cardinality::Single => single(field, dice, depth),
            Cardinality::Repeated => {
                (0..=dice.below(3)).map(|_| single(field, dice, depth)).collect()
            }
            Cardinality::Map => {
                let keys = ["a", "b/c"].into_iter().take(1 + dice.below(2) as usize);
                Value::Object(
                    keys.map(|key| (key.to_owned(), single(field, dice, depth))).collect(),
                )
            }
        };
        map.insert(field.name.to_owned(), value);
    }
    Value::Object(map)
}

fn single(field: &'static Field, dice: &mut Dice, depth: usize) -> Value {
    let depth = depth.saturating_sub(1);
    match field.kind {
        FieldType::String => dice.pick(&["a", "ß", "x/y", "line\nline", "0", "kube"]).into(),
        FieldType::Bytes => STANDARD.encode([1, dice.below(256) as u8, 255]).into(),
        FieldType::Int32 => dice.pick(&[1, -1, i32::MAX, i32::MIN]).into(),
        FieldType::Int64 => dice.pick(&[1, -1, i64::MAX, i64::MIN]).into(),
        FieldType::Bool => (field.zero_is_absent || dice.below(2) == 0).into(),
        FieldType::Double => dice.pick(&[1.5, -2.25e9]).into(),
        FieldType::Message(_) => {
            let message = field.message().unwrap();
            match message.shape {
                Shape::Object => object(message, dice, depth),
                Shape::Time => "2026-02-03T04:05:06Z".into(),
                Shape::MicroTime => "2026-02-03T04:05:06.000007Z".into(),
                Shape::Quantity => dice.pick(&["100m", "1Gi", "3"]).into(),
                Shape::IntOrString => dice.pick(&[json!(80), json!("http")]),
                Shape::Raw => json!({"f:metadata": {"f:name": {}}}),
                Shape::Json => json!([1, {"a": null}, "x"]),
                Shape::Strings => json!(["a", "b"]),
                Shape::SchemaOrBool => {
                    dice.pick(&[json!(true), json!(false), json!({"type": "string"})])
                }
                Shape::SchemaOrArray => {
                    dice.pick(&[json!([{"type": "string"}]), json!({"type": "x"})])
                }
                Shape::SchemaOrStrings => dice.pick(&[json!(["a"]), json!({"type": "string"})]),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_kind_survives_the_way_through_protobuf(bytes in proptest::collection::vec(any::<u8>(), 16..64)) {
        let mut dice = Dice(bytes, 0);
        for message in schema::messages().iter().filter(|message| message.is_kind()) {
            let value = object(message, &mut dice, 6);
            let mut checked = value.clone();
            let walked = check::check(message, &mut checked).unwrap();
            prop_assert!(walked.unknown.is_empty(), "{}: {:?}", message.name, walked.unknown);
            prop_assert_eq!(&checked, &value);
            let back = decode(message, &encode(message, &value)).unwrap();
            prop_assert_eq!(back, value, "{}", message.name);
        }
    }

    #[test]
    fn no_bytes_upset_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..2000) {
        let pod = schema::message("api.core.v1.Pod").unwrap();
        let _ = decode(pod, &bytes);
        let mut dice = Dice(bytes.clone(), 0);
        let mut whole = encode(pod, &object(pod, &mut dice, 6));
        if let Some(byte) = whole.get_mut(at) {
            *byte ^= 1 << (at % 8);
        }
        let _ = decode(pod, &whole);
        whole.truncate(at);
        let _ = decode(pod, &whole);
    }
}

/// The property above reads and writes by one table; this says that the table itself is right. The
/// record is of the definitions that Kubernetes publishes, not made from ours.
#[test]
fn every_field_has_the_number_and_type_that_kubernetes_publishes() {
    let mut seen = 0;
    for row in table("protobuf.tsv") {
        let [package, name, number, json_name, kind, label] = row.as_slice() else {
            panic!("six cells: {row:?}")
        };
        let whole = format!("{package}.{name}");
        let Some(message) = schema::message(&whole).filter(|it| it.shape == Shape::Object) else {
            continue;
        };
        let Some(field) = message.numbered(number.parse().unwrap()) else {
            // What JSON does not show has no place in the table.
            assert!(message.field(json_name).is_none(), "{whole}.{json_name} has another number");
            continue;
        };
        seen += 1;
        let (cardinality, kind) = match kind.strip_prefix("map<string, ") {
            Some(value) => (Cardinality::Map, value.trim_end_matches('>')),
            None if label == "repeated" => (Cardinality::Repeated, kind.as_str()),
            None => (Cardinality::Single, kind.as_str()),
        };
        assert_eq!(field.cardinality, cardinality, "{whole}.{json_name}");
        let expected = match field.kind {
            FieldType::String => "string",
            FieldType::Bytes => "bytes",
            FieldType::Int32 => "int32",
            FieldType::Int64 => "int64",
            FieldType::Bool => "bool",
            FieldType::Double => "double",
            FieldType::Message(_) => kind,
        };
        assert_eq!(kind, expected, "{whole}.{json_name}");
        if let Some(inner) = field.message() {
            let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
            assert_eq!(last(inner.name), last(kind), "{whole}.{json_name}");
        }
        if !field.inline {
            // Two are spelt with a capital where they are defined, and without one in JSON.
            assert!(field.name.eq_ignore_ascii_case(json_name), "{whole} {number}");
        }
    }
    assert!(seen > 1_500, "{seen} fields were looked at");
}

#[test]
fn what_go_writes_for_unset_fields_does_not_appear() {
    // As `kubectl create namespace x` sends it: empty strings, a creationTimestamp of no bytes.
    let mut metadata = Vec::new();
    super::bytes::put_bytes(&mut metadata, 1, b"x");
    for number in 2..=6 {
        super::bytes::put_bytes(&mut metadata, number, b"");
    }
    super::bytes::put_int(&mut metadata, 7, 0);
    super::bytes::put_bytes(&mut metadata, 8, b"");
    let mut raw = Vec::new();
    super::bytes::put_bytes(&mut raw, 1, &metadata);
    super::bytes::put_bytes(&mut raw, 2, b"");
    let mut status = Vec::new();
    super::bytes::put_bytes(&mut status, 1, b"");
    super::bytes::put_bytes(&mut raw, 3, &status);
    let body = super::seal("v1", "Namespace", &raw);

    let target = Target::of("", "v1", "Namespace").unwrap();
    let decoded = wire::decode(target, wire::PROTOBUF, &body, FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object,
        json!({"metadata": {"name": "x"}, "spec": {}, "status": {}, "apiVersion": "v1", "kind": "Namespace"})
    );
    let service = Target::of("", "v1", "Service").unwrap();
    let error = wire::decode(service, wire::PROTOBUF, &body, FieldValidation::Strict).unwrap_err();
    assert_eq!(error.code(), 400);
}

#[test]
fn a_pointer_to_zero_is_kept_and_a_plain_zero_is_not() {
    let rc = schema::message("api.core.v1.ReplicationController").unwrap();
    let value = json!({"spec": {"replicas": 0, "minReadySeconds": 0}});
    assert_eq!(decode(rc, &encode(rc, &value)).unwrap(), json!({"spec": {"replicas": 0}}));
    let service = schema::message("api.core.v1.Service").unwrap();
    let value = json!({"spec": {"ports": [{"port": 80, "nodePort": 0, "targetPort": 0}]}});
    assert_eq!(
        decode(service, &encode(service, &value)).unwrap(),
        json!({"spec": {"ports": [{"port": 80}]}})
    );
}

/// Bodies as kubectl 1.33 sends them, in hexadecimal.
#[test]
fn what_kubectl_creates_is_read() {
    let table = [
        (
            "",
            "Namespace",
            "6b3873000a0f0a02763112094e616d657370616365121c0a140a0464656d6f12001a0022002a0032003800420012001a020a001a002200",
            json!({"metadata": {"name": "demo"}, "spec": {}, "status": {}}),
        ),
        (
            "",
            "ConfigMap",
            "6b3873000a0f0a0276311209436f6e6669674d617012290a180a0873657474696e677312001a0022002a00320038004200120d0a05636f6c6f721204626c75651a002200",
            json!({"metadata": {"name": "settings"}, "data": {"color": "blue"}}),
        ),
        (
            "",
            "Secret",
            "6b3873000a0c0a0276311206536563726574121d0a110a017312001a0022002a0032003800420012060a01611201621a001a002200",
            json!({"metadata": {"name": "s"}, "data": {"a": "Yg=="}}),
        ),
        (
            "batch",
            "Job",
            "6b3873000a0f0a0862617463682f763112034a6f62128a010a150a0568656c6c6f12001a0022002a00320038004200126732650a100a0012001a0022002a003200380042001251122e0a0568656c6c6f120762757379626f781a046563686f1a0268692a0042006a007200800100880100900100a201001a054e65766572320042004a0052005800600068008201008a01009a0100c201001a082000280030003a001a002200",
            json!({
                "metadata": {"name": "hello"},
                "spec": {"template": {"metadata": {}, "spec": {
                    "containers": [{"name": "hello", "image": "busybox", "command": ["echo", "hi"], "resources": {}}],
                    "restartPolicy": "Never",
                }}},
                "status": {},
            }),
        ),
        (
            "",
            "Service",
            "6b3873000a0d0a02763112075365727669636512690a1f0a0377656212001a0022002a003200380042005a0a0a03617070120377656212420a1b0a0738302d38303830120354435018502207080010903f1a002800120a0a0361707012037765621a002209436c757374657249503a00420052005a00600068001a020a001a002200",
            json!({
                "metadata": {"name": "web", "labels": {"app": "web"}},
                "spec": {
                    "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
                    "selector": {"app": "web"},
                    "type": "ClusterIP",
                },
                "status": {"loadBalancer": {}},
            }),
        ),
    ];
    for (group, kind, body, expected) in table {
        let body: Vec<u8> = (0..body.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&body[at..at + 2], 16).unwrap())
            .collect();
        let target = Target::of(group, "v1", kind).unwrap();
        let mut object =
            wire::decode(target, wire::PROTOBUF, &body, FieldValidation::Strict).unwrap().object;
        assert_eq!(object["kind"].take(), kind);
        let map = object.as_object_mut().unwrap();
        map.retain(|name, _| name != "kind" && name != "apiVersion");
        assert_eq!(object, expected);
    }
}

#[test]
fn a_small_body_cannot_become_a_huge_object() {
    let spec = schema::message("api.core.v1.PodSpec").unwrap();
    let containers = [0x12, 0].repeat(600_000);
    assert!(decode(spec, &containers).is_err());
    let props = "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let mut deep = Vec::new();
    for _ in 0..200 {
        let mut outer = Vec::new();
        super::bytes::put_bytes(&mut outer, 28, &deep);
        deep = outer;
    }
    assert!(decode(schema::message(props).unwrap(), &deep).is_err());
}
