//! What is told, kept and read has bounds.

use super::*;
use crate::status::Status;

#[test]
fn a_refused_apply_tells_the_beginning_of_a_long_path() {
    let mut container: serde_json::Map<String, Value> =
        (0..200).map(|number| (format!("a{number}"), json!(1))).collect();
    container.insert("name".to_owned(), "n".repeat(100_000).into());
    let twice = json!({ "name": "t".repeat(100_000) });
    let applied = json!({ "spec": { "containers": [twice.clone(), twice, container] } });
    let refused = World::of("", "pods").apply("a", &applied, false).unwrap_err();
    let told = Status::from(refused).to_value().to_string();
    assert!(told.contains("field not declared in schema") && told.contains("duplicate entries"));
    assert!(told.len() < 128 * 1024, "{} bytes", told.len());
}

#[test]
fn of_many_conflicts_the_first_are_told_and_how_many_more_there_are() {
    let long = "k".repeat(10_000);
    let data = |value: &str| -> Value {
        let mut all: serde_json::Map<String, Value> =
            (0..2_000).map(|number| (format!("{long}{number}"), value.into())).collect();
        all.insert("a".to_owned(), value.into());
        config(&all.into())
    };
    let mut world = World::of("", "configmaps").create("a", data("1"));
    let refused = world.apply("b", &data("2"), false).unwrap_err();
    let status = Status::from(refused);
    assert!(status.message.starts_with("Apply failed with 2001 conflicts: "));
    assert!(status.message.ends_with("and 1901 more"), "{}", status.message);
    assert_eq!(status.causes[0].field, ".data.a");
    let told = status.to_value().to_string();
    assert!(told.len() < 256 * 1024, "{} bytes", told.len());
}

#[test]
fn what_many_managers_own_can_be_sent_back_as_it_was_told() {
    let mut world = World::of("", "configmaps").create("a", config(&json!({ "x": "1" })));
    let mut told = world.object.clone();
    tell(&world.row, &mut told);
    let mut entry = told["metadata"]["managedFields"][0].clone();
    entry["operation"] = "Apply".into();
    let entries: Vec<Value> = (0..1_200)
        .map(|number| {
            entry["manager"] = format!("ci-{number:04}").into();
            entry.clone()
        })
        .collect();
    told["metadata"]["managedFields"] = entries.clone().into();
    let writer = world.writer("b", "");
    let error = updated(&world.row, &world.object, &mut told.clone(), &writer).unwrap_err();
    assert!(matches!(error, EntriesError::TooMany(1_200)), "{error}");
    // An older release has let them be made one by one.
    world.object = told;
    world.update(
        "b",
        "",
        &json!({ "data": { "y": "1" }, "metadata": { "managedFields": entries } }),
    );
    assert_eq!(world.owns("b Update"), [".data.y"]);
    let refused = world.apply("ci-new", &config(&json!({ "x": "1" })), false).unwrap_err();
    assert_eq!(refused, ApplyError::TooManyAppliers);
    assert_eq!(Status::from(refused).code(), 422);
    world.apply("ci-0001", &config(&json!({ "x": "1" })), false).unwrap();
    world.update("b", "", &json!({ "metadata": { "managedFields": [{}] } }));
    world.apply("ci-new", &config(&json!({ "x": "1" })), false).unwrap();
}
