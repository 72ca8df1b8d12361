//! YAML against its corners, and against junk.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    parse(text).unwrap().value
}

fn error(text: &str) -> YamlError {
    parse(text).unwrap_err()
}

#[test]
fn a_mapping_becomes_an_object_in_order() {
    let text = "b: 1\na:\n- x\n- {y: 'z', on: \"1\"}\nc: |\n  two\n  lines\n";
    let read = value(text);
    assert_eq!(read, json!({"b": 1, "a": ["x", {"y": "z", "on": "1"}], "c": "two\nlines\n"}));
    assert_eq!(read.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a", "c"]);
}

#[test]
fn json_is_yaml() {
    let text =
        "{\n\t\"a\": [1, 2.5, null, true, \"x\\u00e9\\/\"],\n\t\"b\": {\"c\": {}},\"d\":\"e\"}\n";
    assert_eq!(value(text), json!({"a": [1, 2.5, null, true, "xé/"], "b": {"c": {}}, "d": "e"}));
    assert_eq!(parse(text).unwrap().lines.line_of("b.c"), Some(3));
    assert_eq!(value(r#"["\ud83d\ude00", "\\ud83d"]"#), json!(["😀", "\\ud83d"]));
    assert_eq!(value(r#"["\uD83D\uDE00x\ud83d\ude00"]"#), json!(["😀x😀"]));
    assert!(parse(r#"["\ud83d"]"#).is_err());
}

#[test]
fn an_empty_file_is_null() {
    for text in ["", "\n", "# only words\n", "---\n", "\u{feff}"] {
        assert_eq!(value(text), Value::Null, "{text:?}");
    }
    assert_eq!(value("\u{feff}a: 1"), json!({"a": 1}));
}

#[test]
fn tags_of_the_core_schema_are_honoured_and_others_refused() {
    let read = value("a: !!str 12\nb: !!int 12\nc: ! 12\nd: !!map {}\ne: !!null\nf: !!float 1.5");
    assert_eq!(read, json!({"a": "12", "b": 12, "c": "12", "d": {}, "e": null, "f": 1.5}));
    for text in ["!mine x", "!!int x", "!!set {a}", "!!binary aGk=", "!<x> {}"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn aliases_are_copies() {
    assert_eq!(value("a: &x {k: [1]}\nb: *x"), json!({"a": {"k": [1]}, "b": {"k": [1]}}));
    assert_eq!(value("&k a: 1\nb: *k"), json!({"a": 1, "b": "a"}));
    assert!(error("a: &x [*x]").message.contains("alias"));
    assert!(parse("a: *nobody").is_err());
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    assert!(error(&text).message.contains("expand"));

    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), ["*a"; 1_000].join(","));
    assert!(error(&long).message.contains("expand"));
}

#[test]
fn nesting_is_bounded() {
    assert!(parse(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_ok());
    for deep in ["[".repeat(100_000), "{a: ".repeat(10_000), "- ".repeat(10_000)] {
        assert!(parse(&deep).is_err());
    }
    let mut chain = "a0: &a0 []\n".to_owned();
    for i in 1..200 {
        chain += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
    }
    assert!(error(&chain).message.contains("nested deeper"));
}

#[test]
fn what_could_be_misread_is_an_error_at_its_place() {
    let cases = [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key \"a\""),
        ("{\"a\": 1, \"a\": 2}", 1, 10, "duplicate key \"a\""),
        ("a: 1\n---\nb: 2\n", 3, 1, "a second document"),
        ("a: &b {c: 1}\nd:\n  <<: *b\n", 3, 3, "merge keys"),
        ("? [a]\n: b\n", 1, 3, "a key that is not plain text"),
        ("a: [1,\nb: 2\n", 0, 0, ""),
        ("a:\n\t- b\n", 0, 0, ""),
        ("a: 'x", 0, 0, ""),
    ];
    for (text, line, column, message) in cases {
        let error = error(text);
        assert!(error.message.starts_with(message), "{text:?}: {error}");
        assert!(error.line > 0 && error.column > 0, "{text:?}: {error}");
        if line > 0 {
            assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
        }
    }
}

#[test]
fn a_field_path_has_a_line() {
    let text = "# top\nstatic_resources:\n  clusters:\n  - name: a\n    connectTimeout: 1s\n  -\n    \
                name: b\n    typed:\n      \"x.y\": {z: 1}\n      w:\n        type_url: t\n        \
                value:\n          deep: 1\n";
    let lines = parse(text).unwrap().lines;
    let cases = [
        ("", Some(2)),
        ("static_resources", Some(2)),
        ("static_resources.clusters", Some(3)),
        ("static_resources.clusters[0].name", Some(4)),
        ("static_resources.clusters[0].connect_timeout", Some(5)),
        ("static_resources.clusters[0].connect_timeout.nanos", Some(5)),
        ("static_resources.clusters[0].lb_policy", Some(4)),
        ("static_resources.clusters[1].name", Some(7)),
        ("static_resources.clusters[7].name", Some(3)),
        ("static_resources.clusters[1].typed[\"x.y\"].z", Some(9)),
        ("static_resources.clusters[1].typed.w.deep", Some(13)),
        ("static_resources.clusters[1].<field 4>", Some(7)),
        ("a[", None),
        ("a[\"x", None),
        ("a..b", None),
        ("a[-1]", None),
    ];
    for (path, line) in cases {
        assert_eq!(lines.line_of(path), line, "{path}");
    }
}

#[test]
fn a_field_is_where_its_name_is_and_an_item_where_its_value_is() {
    let lines = parse("a: {b: 1, \"c\": [2, {d: 3}]}\n").unwrap().lines;
    for (path, column) in [("", 1), ("a.b", 5), ("a.c", 11), ("a.c[1]", 20), ("a.c[1].d", 21)] {
        let mark = Mark { line: 1, column };
        assert_eq!(lines.mark_of(path), Some(mark), "{path}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_that_looks_like_yaml_makes_it_panic(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "a", "b: ", "- ", "\n", "\n  ", " ", "\t", "[", "]", "{", "}", ",", ": ", "? ", "&a ",
            "*a", "!!str ", "!x ", "|", ">", "'", "\"", "\\", "\\u", "\\ud83d", "---\n", "...\n", "%YAML 1.2\n",
            "#c\n", "<<", "é", "\u{feff}", "\r", "0x", "1e", "~", "&b", "*b ", "- - ", "|2-\n",
        ]), 0..60),
    ) {
        let _ = parse(&tokens.concat());
    }

    #[test]
    fn json_text_reads_as_itself(value in json_value()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(&parse(&value.to_string()).unwrap().value, &value);
        prop_assert_eq!(parse(&pretty).unwrap().value, value);
    }

    #[test]
    fn no_path_makes_it_panic(path in "[a-b.\\[\\]\"\\\\0-9é]{0,20}") {
        let _ = parse("a: [{b: 1}]").unwrap().lines.line_of(&path);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é\n\t]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z<@:_ ]{0,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
