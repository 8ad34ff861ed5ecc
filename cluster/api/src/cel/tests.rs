use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::sync::Arc;

fn object(fields: Vec<(&str, Type)>) -> Type {
    let fields = fields
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), Field { json: name.to_owned(), kind }))
        .collect();
    Type::Object(Arc::new(ObjectType { fields }))
}

fn variables() -> Vec<Variable> {
    let entry = object(vec![("name", Type::Text), ("n", Type::Int)]);
    let kind = object(vec![
        ("n", Type::Int),
        ("d", Type::Double),
        ("s", Type::Text),
        ("b", Type::Bool),
        ("list", Type::list(Type::Int)),
        ("texts", Type::list(Type::Text)),
        ("entries", Type::list(entry)),
        ("map", Type::map(Type::Text, Type::Int)),
        ("set", Type::List(Arc::new(ListType { element: Type::Text, unordered: true }))),
        ("other", Type::List(Arc::new(ListType { element: Type::Text, unordered: true }))),
        ("any", Type::Dyn),
        ("span", Type::Duration),
        ("at", Type::Timestamp),
        ("missing", Type::Text),
    ]);
    vec![("self".to_owned(), kind)]
}

fn value() -> Json {
    json!({
        "n": 5, "d": 2.5, "s": "Hello", "b": true, "list": [3, 1, 2], "texts": ["a", "b", "c"],
        "entries": [{"name": "x", "n": 1}, {"name": "y", "n": 2}], "map": {"a": 1, "b": 2},
        "set": ["a", "b"], "other": ["b", "a"], "any": "http", "span": "1h30m",
        "at": "2024-02-29T12:30:15.25Z",
    })
}

/// What an expression gives, or why it gives nothing.
fn run(source: &str, steps: u64) -> Result<String, String> {
    let variables = variables();
    let program = Program::compile(source, &variables).map_err(|error| error.to_string())?;
    let value = value();
    let this = Value::of(&value, &variables[0].1);
    let given = program.run(vec![this], &mut Budget::new(steps)).map_err(|f| f.to_string())?;
    Ok(match given {
        Value::Optional(None) => "none".to_owned(),
        Value::Null => "null".to_owned(),
        other => match other.all() {
            Some(all) => {
                let all: Vec<String> =
                    all.iter().map(|v| v.printed().unwrap_or_default()).collect();
                format!("[{}]", all.join(","))
            }
            None => other.printed().unwrap_or_else(|| other.type_name().to_owned()),
        },
    })
}

#[test]
fn an_expression_gives_what_the_language_says() {
    let rows = [
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-9223372036854775808 + 9223372036854775807 + -(3)", "-4"),
        ("0x1F == 31 && 2u + 3u == 5u && 1e3 == 1000.0", "true"),
        ("'a' + \"b\" + r'\\n' + '\\u00e9\\x41\\101'", "ab\\néAA"),
        ("'''a'b''' == \"a'b\"", "true"),
        ("b'ab' == bytes('ab') && size(b'\\xff') == 1", "true"),
        ("true ? 1 : 2", "1"),
        ("!false && !!true", "true"),
        ("1 < 2 && 2 <= 2 && 'b' > 'a' && 1 < 1.5 && 2.0 >= 1", "true"),
        ("self.n in [1, 5] && 'a' in self.map && !('z' in self.map)", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("false && 1 / 0 == 1", "false"),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("has(self.s) && !has(self.missing) && has(self.map.a) && !has(self.map.z)", "true"),
        ("self.list.all(x, x > 0) && self.list.exists_one(x, x == 3)", "true"),
        ("self.list.map(x, x * 2)", "[6,2,4]"),
        ("self.list.map(x, x > 1, x * 2)", "[6,4]"),
        ("self.list.filter(x, x > 1)", "[3,2]"),
        ("self.map.all(k, self.map[k] > 0) && self.map.exists(k, v, k == 'b' && v == 2)", "true"),
        ("self.list.all(i, v, self.list[i] == v)", "true"),
        ("self.list.transformList(i, v, i * 10 + v)", "[3,11,22]"),
        ("self.map.transformMap(k, v, v + 1)['b']", "3"),
        ("self.entries.filter(e, e.n > 1).map(e, e.name)", "[y]"),
        ("self.entries.all(e, self.entries.exists_one(f, e.name == f.name))", "true"),
        ("{'a': 1, 'b': [2]}.size() + size({1: 2}) + size('é') + self.texts.size()", "7"),
        ("self.set == self.other && ['a', 'b'] != ['b', 'a']", "true"),
        ("type(self.any) == string && type(1) == int && type(self.n) != string", "true"),
        ("type(self.any) == string ? self.any == 'http' : self.any > 5", "true"),
        ("int('5') + int(2.9) + int(3u)", "10"),
        ("string(5) + string(2.5) + string(true) + string(self.span)", "52.5true5400s"),
        ("double(1) + double('0.5')", "1.5"),
        ("self.span == duration('90m') && self.span + duration('30m') > duration('1h59m')", "true"),
        (
            "self.span.getMinutes() + self.at.getFullYear() + self.at.getMonth() + self.at.getDayOfYear()",
            "2174",
        ),
        ("self.at - duration('15s250ms') == timestamp('2024-02-29T12:30:00Z')", "true"),
        ("self.at - timestamp('2024-02-29T12:30:15.25Z')", "0s"),
        // The extended strings.
        ("'hello'.charAt(1) + 'hello'.substring(2) + 'hello'.substring(0, 1)", "elloh"),
        (
            "'tacocat'.indexOf('c') + 'tacocat'.lastIndexOf('c') + 'tacocat'.indexOf('c', 3) + 'x'.indexOf('y')",
            "9",
        ),
        ("'a,b,c'.split(',') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc']", "true"),
        ("['x', 'y'].join() + ['x', 'y'].join('-')", "xyx-y"),
        ("'A b'.lowerAscii() + 'a'.upperAscii() + ' t '.trim()", "a bAt"),
        ("'aaa'.replace('a', 'b', 2) + 'aaa'.replace('a', '')", "bba"),
        ("'%s is %d, %.2f %x%%'.format(['a', 5, 1.5, 255])", "a is 5, 1.50 ff%"),
        ("strings.quote('a\"b')", "\"a\\\"b\""),
        (
            "self.s.matches('^[A-Z]') && matches('ab', 'b$') && self.s.startsWith('He') && self.s.endsWith('o') && self.s.contains('ll')",
            "true",
        ),
        ("'abc 123'.find('[0-9]+')", "123"),
        ("'1, 2, 3'.findAll('[0-9]', 2)", "[1,2]"),
        // Lists and sets.
        ("[1, 3, 2].sum() + [1, 3].max() + [4, 2].min()", "11"),
        ("[1, 2].isSorted() && !self.list.isSorted() && [].isSorted()", "true"),
        ("[1, 2, 1].indexOf(1) + [1, 2, 1].lastIndexOf(1) + [1].indexOf(5)", "1"),
        (
            "sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
            "true",
        ),
        ("[1] + [2]", "[1,2]"),
        // Kubernetes' own.
        (
            "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1500m').add(quantity('500m')) == quantity('2')",
            "true",
        ),
        (
            "quantity('2').asInteger() + quantity('-1').sign() + quantity('1').compareTo(quantity('2'))",
            "0",
        ),
        ("isQuantity('1Gi') && !isQuantity('1X')", "true"),
        (
            "ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('10.0.0') && ip.isCanonical('::1')",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16')) && !isCIDR('10.0.0.0/33')",
            "true",
        ),
        (
            "string(cidr('10.1.2.3/8').masked()) + string(cidr('::/64').prefixLength())",
            "10.0.0.0/864",
        ),
        (
            "url('https://u@h:80/p?q=1').getHost() + url('https://h:80/p?q=1').getPort() + url('/a/b').getEscapedPath()",
            "h:8080/a/b",
        ),
        ("isURL('https://a') && !isURL('a b')", "true"),
        (
            "!format.dns1123Label().validate('ab').hasValue() && format.dns1123Label().validate('A').hasValue()",
            "true",
        ),
        // Optionals.
        ("self.?missing.orValue('x') + self.?s.orValue('x')", "xHello"),
        ("self.list[?7].hasValue() || optional.none().hasValue()", "false"),
        ("optional.of(1).optMap(x, x + 1).value()", "2"),
        ("self.map[?'a'].or(optional.of(7)).value()", "1"),
    ];
    for (source, expected) in rows {
        assert_eq!(run(source, 100_000).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_cannot_work_is_refused_when_it_is_compiled() {
    let rows = [
        ("self.x", "1:5: undefined field 'x'\n | self.x\n | ....^"),
        ("has(self.x)", "1:4: undefined field 'x'"),
        ("self.n > 0 && foo", "1:15: undeclared reference to 'foo' (in container '')"),
        ("foo(1)", "1:4: undeclared reference to 'foo' (in container '')"),
        ("self.s.foo()", "1:11: undeclared reference to 'foo' (in container '')"),
        ("semver('1.2.3')", "1:7: undeclared reference to 'semver' (in container '')"),
        ("self.n == 'a'", "1:8: found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.n + 1.5", "1:8: found no matching overload for '_+_' applied to '(int, double)'"),
        ("self.n.y", "1:7: type 'int' does not support field selection"),
        (
            "self.n.all(x, true)",
            "1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.list.all(x, x)", "1:14: expected type 'bool' but found 'int'"),
        ("self.list.all(x, y)", "1:18: undeclared reference to 'y' (in container '')"),
        ("self.list.all(1, true)", "1:15: argument is not an identifier"),
        ("size(1)", "1:5: found no matching overload for 'size' applied to '(int)'"),
        ("['a'].sum()", "1:10: found no matching overload for 'sum' applied to '(list(string))'"),
        ("has(1)", "1:4: invalid argument to has() macro"),
        ("1 +", "1:4: Syntax error: extraneous or mismatched input '<EOF>'"),
        ("1 ~ 2", "1:3: Syntax error: token recognition error at: '~'"),
        ("\n  'a", "2:3: Syntax error: a text without an end"),
        ("9223372036854775808", "1:1: invalid int literal"),
        ("while", "1:1: reserved identifier: while"),
    ];
    for (source, mistake) in rows {
        let error = run(source, 1000).unwrap_err();
        assert!(error.starts_with(&format!("ERROR: <input>:{mistake}")), "{source}: {error}");
    }
}

#[test]
fn what_goes_wrong_when_it_runs_is_said() {
    let rows = [
        ("1 / (self.n - 5)", "division by zero"),
        ("9223372036854775807 + self.n", "integer overflow"),
        ("self.list[9]", "index out of bounds: 9"),
        ("self.map['z']", "no such key: z"),
        ("self.missing == 'a'", "no such key: missing"),
        (
            "quantity('x')",
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("self.any > 5", "no such overload: _>_(string, int)"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'a'.substring(2)", "invalid substring range. start: 2, end: 1"),
    ];
    for (source, fault) in rows {
        assert_eq!(run(source, 1000), Err(fault.to_owned()), "{source}");
    }
}

#[test]
fn no_expression_works_or_grows_past_its_budget() {
    let many = "[1,2,3,4,5,6,7,8,9,10]";
    let nested = |depth: usize, body: &str| {
        (0..depth).fold(body.to_owned(), |inner, at| format!("{many}.all(x{at}, {inner})"))
    };
    let doubled = (0..12).fold("self.s".to_owned(), |inner, at| {
        format!("[{inner}].map(t{at}, t{at} + t{at} + t{at} + t{at})[0]")
    });
    let rows = [
        nested(8, "true"),
        nested(8, "1 / 0 == 1"),
        doubled.clone(),
        format!("{doubled}.replace('', {doubled})"),
        format!(
            "{many}.map(a, {many}.map(b, {many}.map(c, {many}.map(d, {many})))).size() > 0 && {}",
            nested(6, "true")
        ),
    ];
    for source in rows {
        assert_eq!(
            run(&source, 100_000),
            Err("operation cancelled: actual cost limit exceeded".to_owned()),
            "{source}"
        );
    }
}

#[test]
fn what_is_too_long_or_too_deep_is_refused() {
    let deep = [
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("self{}", ".a".repeat(5000)),
        format!("1{}", " + 1".repeat(3000)),
        "true ? true : ".repeat(500) + "true",
        format!("{}{}", "[".repeat(5000), "]".repeat(5000)),
        " ".repeat(20_000),
    ];
    for source in deep {
        assert!(Program::compile(&source, &variables()).is_err());
    }
    let long = vec!["true"; 2000].join(" && ");
    assert!(Program::compile(&long, &variables()).is_ok(), "a chain of && is not deep");
    assert!(Program::compile(&format!("{}true", "!".repeat(5000)), &variables()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_compiler_or_what_it_gives_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "self", ".", "n", "list", "map", "s", "any", "(", ")", "[", "]", "{", "}", "1", "0", "1.5", "'a'",
            "b'x'", "+", "-", "*", "/", "%", "==", "<", "&&", "||", "!", "?", ":", ",", "in", "x", "all(x,",
            "map(x,", "size(", "has(", "split(", "substring(", "matches(", "indexOf(", ".?", "[?", "\\", "é", "\"",
            "9223372036854775807", "optional.of(", "format(", "replace(", "quantity(", "sum()",
        ]), 0..14),
        apart in any::<bool>(),
    ) {
        let source = words.join(if apart { " " } else { "" });
        _ = run(&source, 10_000);
    }
}
