//! That no expression works, or makes, more than it pays for.

use super::*;
use serde_json::{Value as Json, json};
use std::sync::Arc;

const OVER: Result<(), Fault> = Err(Fault::OverBudget);

fn variables() -> Vec<Variable> {
    let kinds = [
        ("l", Type::list(Type::Int)),
        ("big", Type::Text),
        ("link", Type::Text),
        ("blob", Type::Bytes),
        ("map", Type::map(Type::Text, Type::Int)),
    ];
    let fields = kinds
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), Field { json: name.to_owned(), kind }))
        .collect();
    vec![("self".to_owned(), Type::Object(Arc::new(ObjectType { fields })))]
}

fn value() -> Json {
    let big = "x".repeat(100_000);
    json!({
        "l": vec![1; 1000], "big": big, "link": format!("https://host/{big}"),
        "blob": "AAAA".repeat(25_000), "map": {"a": 1},
    })
}

fn run(source: &str, steps: u64) -> Result<(), Fault> {
    let program = Program::compile(source, &variables()).unwrap();
    let (value, kinds) = (value(), variables());
    program.run(vec![Value::of(&value, &kinds[0].1)], &mut Budget::new(steps)).map(|_| ())
}

/// A list of a few shared values that, walked as a tree, has more leaves than anybody can count.
fn folded() -> String {
    format!("[1]{}", ".map(a, [a, a])".repeat(60))
}

#[test]
fn a_value_that_is_shared_many_times_over_is_weighed_no_further_than_the_budget() {
    let folded = folded();
    assert_eq!(run(&format!("{folded}.size() == 1"), 1000), Ok(()), "it is made in a few steps");
    for rule in [
        format!("{folded} == []"),
        format!("[] != {folded}"),
        format!("dyn(1) in {folded}"),
        format!("{folded}.indexOf(dyn(1)) == 0"),
        format!("[dyn(1)].indexOf({folded}) == 0"),
        format!("sets.contains({folded}, [])"),
        format!("sets.contains([dyn(1)], {folded})"),
        format!("'%s'.format([{folded}]) == ''"),
    ] {
        assert_eq!(run(&rule, 1_000_000), OVER, "{rule}");
    }
}

#[test]
fn a_weight_is_what_is_walked_or_none() {
    let of = |json: &Json, most| Value::of(json, &Type::Dyn).weight(most);
    let list = json!(["a".repeat(100), 1, {"k": null}]);
    assert_eq!(of(&list, 100), Some(1 + 11 + 1 + 3));
    assert_eq!(of(&list, 16), Some(16));
    assert_eq!(of(&list, 15), None);
}

#[test]
fn a_long_text_is_paid_for_wherever_it_is_copied_or_read() {
    for once in [
        "{self.big: x}.size() > 0",
        "self.big.format([]) != ''",
        "url(self.link).getHost() == ''",
        "isURL(self.link)",
        "int(self.big) == 1",
        "uint(self.big) == 1u",
        "double(self.big) == 1.0",
        "bool(self.big)",
        "duration(self.big) == duration('1s')",
        "timestamp(self.big) == timestamp('2024-01-01T00:00:00Z')",
        "isQuantity(self.big)",
        "quantity(self.big).sign() == 0",
        "isIP(self.big)",
        "ip(self.big).family() == 4",
        "isCIDR(self.big)",
        "cidr(self.big).prefixLength() == 4",
        "size(self.blob) == 0",
        "has(self.blob) && false",
        "self.map[self.big] == 1",
        "self.big in self.map",
        "{'a': 1}[self.big] == 1",
    ] {
        // Whatever comes of it, the next entry is looked at.
        let rule = format!("self.l.all(x, ({once}) || x > 0)");
        assert_eq!(run(&rule, 1_000_000), OVER, "{once}");
    }
    assert_eq!(run("self.l.map(x, {self.big: x}).size() > 0", 1_000_000), OVER);
    assert_eq!(run("self.l.map(x, url(self.link)).size() > 0", 1_000_000), OVER);
    let path = "[url(self.link)].all(u, self.l.map(x, u.getEscapedPath()).size() > 0)";
    assert_eq!(run(path, 1_000_000), OVER);
}

#[test]
fn a_fault_quotes_the_beginning_of_a_long_text() {
    for rule in ["int(self.big) == 1", "url(self.big).getHost() == ''", "self.map[self.big] == 1"] {
        let Err(Fault::Failed(why)) = run(rule, 1_000_000) else { panic!("{rule} gave a value") };
        assert!(why.contains("xxxx") && why.len() < 1024, "{rule}: {} bytes", why.len());
    }
}
