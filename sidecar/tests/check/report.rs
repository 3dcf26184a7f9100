//! The words, and the place that they point at.

use proptest::prelude::*;

use super::{ENVOY, envoy_with, headlines, replace, said, said_of};

#[test]
fn what_is_right_is_not_spoken_of() {
    assert_eq!(said(ENVOY), "");
}

#[test]
fn a_wrong_value_is_shown_where_it_stands() {
    assert_eq!(
        said(&envoy_with("limit: 3 per minute", "limit: 3 per minut")),
        "\
envoy.yaml:49:30: error: policies[1].limit: found \"3 per minut\"; expected a limit such as \"60 per minute\", \"5 per 12s\", \"1000/day\" or { tokens: 60, per: minute }
   |
49 |                       limit: 3 per minut
   |                              ^^^^^^^^^^^
"
    );
}

#[test]
fn a_misspelt_name_is_shown_with_what_was_meant() {
    let said = said(&envoy_with("burst: 10", "brust: 10"));
    let (headline, rest) = said.split_once('\n').expect("several lines");
    assert!(headline.starts_with("envoy.yaml:45:23: error: policies[0].brust: found `brust`"), "{headline}");
    assert!(headline.ends_with("did you mean `burst`?"), "{headline}");
    assert_eq!(
        rest,
        "   |
45 |                       brust: 10
   |                       ^^^^^
"
    );
}

#[test]
fn what_is_missing_is_told_where_it_is_missing() {
    let text = "sidecar: { cluster: sluice }\npolicies:\n- name: a\n  key: []\n";
    let found = headlines(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("envoy.yaml:3:3: error: policies[0]") && found[0].contains("limit"),
        "{found:?}"
    );
    let found = headlines("policies:\n- { name: a, key: [], limit: 5/min }\n");
    assert!(found[0].starts_with("envoy.yaml:1:1: error: ") && found[0].contains("`sidecar`"), "{found:?}");
}

#[test]
fn everything_is_told_at_once_in_the_order_of_the_file() {
    let text = replace(ENVOY, "limit: 3 per minute", "limit: 3");
    let text = replace(&text, "timeout: 50ms", "timeout: 50");
    let text = replace(&text, "normalize_path: true", "normalize_path: false");
    let found = headlines(&text);
    let kinds: Vec<_> =
        found.iter().map(|line| line.split(": ").take(3).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        kinds,
        [
            "envoy.yaml:15:11: warning: normalize_path",
            "envoy.yaml:47:32: note: the path is used here",
            "envoy.yaml:38:58: error: sidecar.timeout",
            "envoy.yaml:49:30: error: policies[1].limit",
        ]
    );
}

#[test]
fn a_name_that_is_written_twice_is_told_with_both_lines() {
    assert_eq!(
        said(&envoy_with("burst: 10\n", "burst: 10\n                      limit: 20 per minute\n")),
        "\
envoy.yaml:46:23: error: found \"limit\" twice in one mapping; Envoy takes the last without a word: keep one
   |
46 |                       limit: 20 per minute
   |                       ^^^^^
envoy.yaml:44:23: note: it is also here
   |
44 |                       limit: 10 per minute
   |                       ^^^^^
"
    );
}

#[test]
fn values_are_what_envoy_makes_of_them() {
    for (burst, error) in
        [("0x10", None), ("\"10\"", None), ("0xA", None), ("1e1", Some("\"1e1\"")), ("yes", Some("true"))]
    {
        let found = headlines(&envoy_with("burst: 10", &format!("burst: {burst}")));
        match error {
            None => assert_eq!(found, [""; 0], "{burst}"),
            Some(error) => {
                assert!(found[0].contains(&format!("found {error}")) || found[0].contains(error), "{found:?}")
            }
        }
    }
}

#[test]
fn what_is_not_yaml_is_shown() {
    assert_eq!(
        said("a: [1, 2\n"),
        "\
envoy.yaml:1:4: error: the YAML cannot be read: unclosed bracket '['
  |
1 | a: [1, 2
  |    ^
"
    );
    assert_eq!(headlines(""), ["envoy.yaml: error: the file is empty"]);
    assert_eq!(headlines("---\n# nothing\n"), ["envoy.yaml: error: the file is empty"]);
}

#[test]
fn a_file_cannot_steer_the_terminal() {
    let said = said(
        "sidecar: { cluster: sluice }\npolicies:\n- { name: \"a\\e[2J\\x07\u{202e}\", key: [], limit: 5/min }\n",
    );
    assert!(said.contains("error") && !said.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{said:?}");
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let said = said(&format!("{{policies: [], {}}}", "a: 1, ".repeat(5_000)));
    assert!(said.ends_with("and 901 more\n"), "{}", &said[said.len() - 200..]);
    assert!(said.len() < 100_000, "{}", said.len());
}

#[test]
fn json_is_read_as_json() {
    let wrong = super::WRONG;
    let said = said_of("limits.JSON", wrong);
    assert!(said.starts_with("limits.JSON:1:83: error: policies[0].limit: found \"5/mi\""), "{said}");
    let said = said_of("limits.json", &wrong.replace("}]}", "}],}"));
    assert!(said.contains("limits.json:1:92: error: the JSON cannot be read"), "{said}");
}

proptest! {
    /// Whatever is cut out of a file, or put in.
    #[test]
    fn nothing_in_a_file_makes_it_panic(
        at in any::<prop::sample::Index>(),
        cut in 0..400_usize,
        put in "[\\[\\]{}\"':,&*!|>%@`#?a-c0 \\n\\t-]{0,12}",
    ) {
        let mut text = ENVOY.to_owned();
        let mut start = at.index(text.len());
        let mut end = (start + cut).min(text.len());
        while !text.is_char_boundary(start) { start -= 1; }
        while !text.is_char_boundary(end) { end += 1; }
        text.replace_range(start..end, &put);
        said(&text);
    }
}
