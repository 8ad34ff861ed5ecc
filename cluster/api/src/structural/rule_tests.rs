use super::Structural;
use serde_json::{Value, json};

fn parsed(spec: &Value) -> Result<Structural, Vec<String>> {
    Structural::parse(&json!({"type": "object", "properties": {"spec": spec}}))
        .map_err(|causes| causes.iter().map(ToString::to_string).collect())
}

fn asked(structural: &Structural, new: &Value, old: Option<&Value>) -> Vec<String> {
    let old = old.map(|old| json!({"spec": old}));
    let causes = structural.validate(&json!({"spec": new}), old.as_ref());
    causes.iter().map(ToString::to_string).collect()
}

fn with_rules(rules: &Value) -> Value {
    json!({
        "type": "object", "x-kubernetes-validations": rules,
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "kind-of": {"type": "string"},
            "namespace": {"type": "string"}, "maybe": {"type": "string", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true}, "free": {"x-kubernetes-preserve-unknown-fields": true},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    })
}

#[test]
fn a_rule_that_does_not_hold_is_told_with_its_message() {
    let rows = [
        (
            json!({"rule": "self.min <= self.max"}),
            "spec: Invalid value: \"object\": failed rule: self.min <= self.max",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "min is more than max"}),
            "spec: Invalid value: \"object\": min is more than max",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "'%d is more than %d'.format([self.min, self.max])"}),
            "spec: Invalid value: \"object\": 5 is more than 2",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "'a\\nb'", "message": "m"}),
            "spec: Invalid value: \"object\": m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueRequired", "fieldPath": ".kind-of"}),
            "spec.kind-of: Required value: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueForbidden"}),
            "spec: Forbidden: m",
        ),
        (
            json!({"rule": "self.labels['x'] == 'y'"}),
            "spec: Invalid value: \"object\": no such key: labels evaluating rule: self.labels['x'] == 'y'",
        ),
    ];
    for (rule, cause) in rows {
        let structural = parsed(&with_rules(&json!([rule]))).unwrap();
        assert_eq!(asked(&structural, &json!({"min": 5, "max": 2}), None), [cause], "{rule}");
    }
}

#[test]
fn a_rule_reaches_fields_as_kubernetes_names_them() {
    let rules = json!([
        {"rule": "self.kind__dash__of == 'a' && self.__namespace__ == 'n' && !has(self.maybe)"},
        {"rule": "type(self.port) == int ? self.port == 80 : self.port == 'http'"},
        {"rule": "self.pod.kind == 'Pod' && self.pod.metadata.name == 'p'"},
        {"rule": "self.labels.all(k, self.labels[k].startsWith('v'))"},
    ]);
    let structural = parsed(&with_rules(&rules)).unwrap();
    let object = json!({
        "kind-of": "a", "namespace": "n", "maybe": null, "port": 80, "labels": {"a": "v1"},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
    });
    assert_eq!(asked(&structural, &object, None), [""; 0]);
}

#[test]
fn a_rule_that_cannot_work_is_refused_with_the_schema() {
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    let rows = [
        (
            json!({"rule": "self.nothing > 1"}),
            ".rule: Invalid value: \"self.nothing > 1\": compilation failed: ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing > 1\n | ....^",
        ),
        (
            json!({"rule": "self.min"}),
            ".rule: Invalid value: \"self.min\": cel expression must evaluate to a bool",
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            ".messageExpression: Invalid value: \"1\": messageExpression must evaluate to a string",
        ),
        (
            json!({"rule": "has(self.free)"}),
            ".rule: Invalid value: \"has(self.free)\": compilation failed: ERROR: <input>:1:4: undefined field 'free'\n | has(self.free)\n | ...^",
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            ".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
        (
            json!({"rule": "true", "fieldPath": ".nothing"}),
            ".fieldPath: Invalid value: \".nothing\": fieldPath must be a valid path: does not refer to a valid field",
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            ".reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            json!({"rule": "true &&\ntrue"}),
            ".message: Required value: message must be specified if rule contains line breaks",
        ),
    ];
    for (rule, cause) in rows {
        let causes = parsed(&with_rules(&json!([rule]))).map(|_| ()).unwrap_err();
        assert_eq!(causes, [format!("{at}{cause}")], "{rule}");
    }
    let listed = json!({"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let causes = parsed(&listed).map(|_| ()).unwrap_err();
    assert!(causes[0].ends_with("oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[spec].items"), "{causes:?}");
}

#[test]
fn a_rule_about_a_change_is_asked_about_changes_alone() {
    let schema = json!({
        "type": "object",
        "properties": {
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "up": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf.orValue(3)", "message": "goes up from 3", "optionalOldSelf": true}]},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {
                    "k": {"type": "string"},
                    "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may not fall"}]},
                }}},
            "odd": {"type": "integer", "x-kubernetes-validations": [{"rule": "self % 2 == 1", "message": "must be odd"}]},
        },
    });
    let structural = parsed(&schema).unwrap();
    let rows: Vec<(Value, Option<Value>, &[&str])> = vec![
        (json!({"fixed": "a"}), None, &[]),
        (json!({"fixed": "a"}), Some(json!({})), &[]),
        (json!({"fixed": "a"}), Some(json!({"fixed": "a"})), &[]),
        (
            json!({"fixed": "a"}),
            Some(json!({"fixed": "b"})),
            &["spec.fixed: Invalid value: \"string\": is immutable"],
        ),
        (json!({"up": 2}), None, &["spec.up: Invalid value: \"integer\": goes up from 3"]),
        (json!({"up": 2}), Some(json!({"up": 1})), &[]),
        (
            json!({"map": [{"k": "b", "v": 1}, {"k": "a", "v": 1}]}),
            Some(json!({"map": [{"k": "a", "v": 2}, {"k": "b", "v": 0}]})),
            &["spec.map[1].v: Invalid value: \"integer\": may not fall"],
        ),
        (json!({"odd": 2}), None, &["spec.odd: Invalid value: \"integer\": must be odd"]),
        (json!({"odd": 2}), Some(json!({"odd": 2})), &[]),
        (
            json!({"odd": 2}),
            Some(json!({"odd": 4})),
            &["spec.odd: Invalid value: \"integer\": must be odd"],
        ),
    ];
    for (new, old, causes) in rows {
        assert_eq!(asked(&structural, &new, old.as_ref()), causes, "{new} {old:?}");
    }
}

#[test]
fn rules_are_not_asked_about_an_object_of_the_wrong_types() {
    let structural = parsed(&with_rules(&json!([{"rule": "self.min <= self.max"}]))).unwrap();
    assert_eq!(
        asked(&structural, &json!({"min": "a"}), None),
        [
            "spec.min: Invalid value: \"string\": spec.min in body must be of type integer: \"string\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn all_rules_of_an_object_together_end_when_their_budget_is_spent() {
    let schema = json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.exists(y, x == y))", "message": "m"}]}});
    let structural = parsed(&schema).unwrap();
    let list: Vec<i64> = (0..300).collect();
    let found = asked(&structural, &json!(vec![list; 40]), None);
    assert_eq!(found.len(), 1, "{found:?}");
    let why = "validation failed due to running out of cost budget, no further validation rules will be run";
    assert!(found[0].ends_with(why), "{found:?}");
    let list: Vec<i64> = (0..1500).collect();
    let found = asked(&structural, &json!([list]), None);
    assert_eq!(
        found,
        [
            "spec[0]: Invalid value: \"array\": operation cancelled: actual cost limit exceeded evaluating rule: m"
        ]
    );
}
