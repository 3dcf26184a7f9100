//! The subcommand as it is called: exit codes, several files, the standard input.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::{RIGHT, WRONG};

/// What is shipped for users to copy.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy");

fn check(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .env_clear()
        // How the sidecar is configured has nothing to do with it.
        .env("REDIS_URL", "nonsense")
        .envs(
            ["MEMORY_MAX_BUCKETS", "MAX_BODY_BYTES", "LOG_FORMAT"]
                .map(|name| (format!("SLUICE_{name}"), "x")),
        )
        .arg("check")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // It may have ended without reading.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// It exits with `code` and prints exactly this.
fn assert_prints(output: &Output, code: i32, printed: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), out.as_ref(), err.as_ref()), (Some(code), printed, ""));
}

#[test]
fn whatever_is_shipped_is_right_and_ends_with_0() {
    let mut files: Vec<String> = ["", "/examples"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(format!("{SHIPPED}{folder}")).expect("a folder"))
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .filter(|path| path.ends_with(".yaml"))
        .collect();
    files.sort();
    let output =
        check(&[&["--deny-warnings"], &*files.iter().map(String::as_str).collect::<Vec<_>>()].concat(), "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with(&format!("{} file", files.len())) && said.ends_with(": no problems\n"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_wrong_ends_with_1() {
    let printed = format!(
        "\
<stdin>:1:83: error: policies[0].limit: found \"5/mi\"; expected a limit such as \"60 per minute\", \"5 per 12s\", \"1000/day\" or {{ tokens: 60, per: minute }}
  |
1 | {WRONG}
  | {}^^^^^^
1 file, 1 Sluice filter, 1 policy: 1 error
",
        " ".repeat(82)
    );
    assert_prints(&check(&["-"], WRONG), 1, &printed);
}

#[test]
fn warnings_end_with_0_unless_they_are_denied() {
    let never = RIGHT.replace("\"key\"", "\"cost\": 6, \"key\"");
    let output = check(&["-"], &never);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("<stdin>:1:71: warning: policies[0].cost: "), "{said}");
    assert!(said.ends_with("1 file, 1 Sluice filter, 1 policy: 1 warning\n"), "{said}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(check(&["--deny-warnings", "-"], &never).status.code(), Some(1));
}

#[test]
fn a_file_that_cannot_be_read_keeps_nobody_from_the_others() {
    let output = check(&["/nowhere/envoy.yaml", "-", "/"], RIGHT);
    let printed = "\
/nowhere/envoy.yaml: error: it cannot be read: No such file or directory (os error 2)
/: error: it cannot be read: Is a directory (os error 21)
3 files, 1 Sluice filter, 1 policy: 2 errors
";
    assert_prints(&output, 1, printed);
    assert_eq!(check(&["/dev/zero"], "").status.code(), Some(1), "and one without an end is not read to it");
}

#[test]
fn files_without_a_filter_are_wrong_only_where_no_file_has_one() {
    let upstream = format!("{SHIPPED}/upstream.yaml");
    let output = check(&[&upstream, "-"], RIGHT);
    assert_prints(&output, 0, "2 files, 1 Sluice filter, 1 policy: no problems\n");
    let output = check(&[&upstream, "-"], "a: 1");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        (output.status.code(), said.matches("error: no Sluice filter was found").count()),
        (Some(1), 2)
    );
    assert!(said.ends_with("2 files, 0 Sluice filters, 0 policies: 2 errors\n"), "{said}");
}

#[test]
fn what_routes_say_is_checked_without_a_filter() {
    let routes = |said: &str| {
        format!(
            "routes:\n- match: {{ prefix: / }}\n  metadata: {{ filter_metadata: {{ sluice: {{ {said} }} }} }}\n"
        )
    };
    let output = check(&["-"], &routes("policies: [whatever]"));
    assert_prints(&output, 0, "1 file, 0 Sluice filters, 0 policies: no problems\n");
    let output = check(&["-"], &routes("policys: [whatever]"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("did you mean `policies`?"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    for wrong in [&[][..], &["--deny-everything", "-"]] {
        assert_eq!(check(wrong, "").status.code(), Some(64), "{wrong:?}");
    }
}

#[test]
fn the_schema_is_printed() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sluice")).env_clear().arg("schema").output().expect("it runs");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0));
    assert!(schema["properties"]["policies"].is_object(), "{schema:#}");
}
