//! That looking at an object, or at a schema, takes no more than it may.

use super::defaults::{self, MAX_FILLED};
use super::findings::Findings;
use super::place::Place;
use super::room::Room;
use super::{Structural, given_defaults};
use serde_json::{Value, json};

fn parsed(spec: &Value) -> Result<Structural, Vec<String>> {
    Structural::parse(&json!({"type": "object", "properties": {"spec": spec}}))
        .map_err(|causes| causes.iter().map(ToString::to_string).collect())
}

fn wrong(structural: &Structural, spec: &Value) -> Vec<String> {
    let causes = structural.validate(&json!({"spec": spec}), None);
    causes.iter().map(ToString::to_string).collect()
}

fn entries_with_a_default(bytes: usize) -> Value {
    let default = "d".repeat(bytes);
    json!({"type": "array", "items": {"type": "object",
        "properties": {"a": {"type": "string", "default": default}}}})
}

#[test]
fn defaults_that_make_an_object_too_large_are_not_filled_in_but_told() {
    let structural = parsed(&entries_with_a_default(100_000)).unwrap();
    let few = json!({"spec": vec![json!({}); 10]});
    let mut object = few.clone();
    structural.default(&mut object);
    assert_eq!(object["spec"][9]["a"].as_str().map(str::len), Some(100_000));
    assert_eq!(structural.validate(&object, None), []);

    let many = json!({"spec": vec![json!({}); 5000]});
    let mut object = many.clone();
    structural.default(&mut object);
    assert_eq!(object, many);
    let found = wrong(&structural, &many["spec"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("the defaults of its fields are more than"), "{found:?}");
}

#[test]
fn a_default_that_asks_for_more_defaults_than_an_object_may_have_is_refused() {
    let mut list = entries_with_a_default(100_000);
    list["default"] = json!(vec![json!({}); 5000]);
    let found = parsed(&list).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("spec].default: Forbidden: asks for more than"), "{found:?}");
    list["default"] = json!(vec![json!({}); 5]);
    assert!(parsed(&list).is_ok());
}

#[test]
fn what_is_owed_is_what_is_filled_in_and_nothing_is_owed_after() {
    let structural = parsed(&json!({"type": "object", "default": {}, "properties": {
        "a": {"type": "string", "default": "xyz"},
        "m": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
        "o": {"type": "object", "default": {}, "properties": {"b": {"type": "boolean", "default": true}}},
    }}))
    .unwrap();
    for given in [json!({}), json!({"spec": {"a": null, "m": {"k": null}, "o": {"b": false}}})] {
        let mut room = MAX_FILLED;
        let mut filled = given.clone();
        assert!(defaults::fill(structural.root(), &mut filled, &mut room));
        let owed = MAX_FILLED - room;
        assert!(owed > 0, "{given}");
        let mut left = MAX_FILLED;
        assert_eq!(defaults::owed(structural.root(), &filled, &mut left), Some(()));
        assert_eq!(left, MAX_FILLED, "{filled}");
        let mut same = given.clone();
        assert!(!defaults::fill(structural.root(), &mut same, &mut (owed - 1)));
        assert_eq!(same, given);
    }
}

#[test]
fn the_rules_of_all_defaults_of_a_definition_have_one_budget() {
    let field = json!({"type": "array", "items": {"type": "integer"}, "default": [1],
        "x-kubernetes-validations": [{"rule": "[1,2,3,4,5,6,7,8,9,10].all(a, self.all(b, a > 0))"}]});
    let spec = json!({"type": "object", "properties": {"a": field, "b": field}});
    let structural = parsed(&spec).unwrap();
    let place = Place::Root("schema");
    let check = |room: &mut Room| {
        let mut findings = Findings::default();
        given_defaults::check(structural.root(), &place, room, &mut findings);
        findings.into_causes()
    };
    let mut room = Room::default();
    let all = room.steps;
    assert_eq!(check(&mut room), []);
    let cost = all - room.steps;
    assert!(cost > 0);
    room.steps = cost - 1;
    let causes = check(&mut room);
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert!(causes[0].message.contains("running out of cost budget"), "{causes:?}");
    // What is left for nobody is told, not passed over.
    assert_eq!(room.steps, 0);
    assert_eq!(check(&mut room).len(), 2);
}

#[test]
fn a_cause_shows_the_beginning_of_a_long_value_and_of_a_long_set() {
    let long = "é\"".repeat(500_000);
    let choices: Vec<String> = (0..20_000).map(|at| format!("choice{at}")).collect();
    for (schema, value) in [
        (json!({"type": "string", "minLength": 9_999_999}), json!(long)),
        (json!({"type": "string", "format": "date"}), json!(long)),
        (
            json!({"type": "object", "minProperties": 9, "additionalProperties": {"type": "string"}}),
            json!({"a": long}),
        ),
        (json!({"type": "string", "enum": choices}), json!(long)),
    ] {
        let found = wrong(&parsed(&schema).unwrap(), &json!(value));
        assert_eq!(found.len(), 1, "{schema}");
        assert!(found[0].contains("...") && found[0].contains('é'), "{}", found[0]);
        assert!(found[0].len() < 16 * 1024, "{} bytes", found[0].len());
    }
}

#[test]
fn alternatives_that_do_not_match_are_not_written_out() {
    let mut findings = Findings::default();
    let mut probe = findings.probe();
    probe.part().invalid(&Place::Root("a"), &json!("v"), "why");
    probe.invalid(&Place::Root("a"), &json!("v"), "why");
    assert!(!findings.ended(&probe));
    let causes = probe.into_causes();
    assert_eq!((causes.len(), causes[0].message.as_str()), (1, ""));
}

#[test]
fn the_length_of_a_text_is_paid_for_by_each_alternative_that_asks_for_it() {
    let alternatives = vec![json!({"minLength": 9_999_999}); 1000];
    let structural = parsed(&json!({"type": "string", "anyOf": alternatives})).unwrap();
    let found = wrong(&structural, &json!("x".repeat(1_000_000)));
    assert!(found.iter().any(|why| why.contains("takes too long to validate")), "{found:?}");
}
