//! What the program prints of itself: shells take its completions, and man its manual.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}; install it by apt-get install {program}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output
}

fn printed(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(run(program, arguments).stdout).expect("text")
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = printed(SLUICE, &["--help"]);
    let list = help.split("\nCommands:\n").nth(1).expect("a list").split("\n\n").next().expect("its end");
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.filter(|name| name != "help").collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    let completed = |words: &str| {
        let at = words.split(' ').count() - 1;
        let script = format!(
            "source <('{SLUICE}' completions bash) && COMP_WORDS=({words}{}) COMP_CWORD={at} && \
             _sluice sluice \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{}]}}\" && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            if words.ends_with(' ') { "''" } else { "" },
            at - 1,
        );
        printed("bash", &["-c", &script]).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed("sluice exp"), ["explain"]);
    assert_eq!(completed("sluice check --deny"), ["--deny-warnings"]);
    assert_eq!(completed("sluice explain --format "), ["text", "json"]);
    let all = completed("sluice ");
    for name in commands() {
        assert!(all.contains(&name), "{name} is not completed: {all:?}");
    }
}

#[test]
fn completions_are_made_for_other_shells() {
    for (shell, word) in
        [("zsh", "#compdef sluice"), ("fish", "complete -c sluice"), ("elvish", "edit:completion")]
    {
        let script = printed(SLUICE, &["completions", shell]);
        assert!(script.contains(word), "{shell}: {script}");
    }
    let refused = Command::new(SLUICE).args(["completions", "tcsh"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(64));
}

/// Has groff's man macros read a page; what it warned of, and the page as text.
fn read(page: &Path) -> (String, String) {
    let path = page.to_str().expect("UTF-8");
    // What cannot be broken is a synopsis or an example, which are as wide as they are.
    let arguments = ["-man", "-Kutf8", "-Tutf8", "-rLL=200n", "-ww", "-Wbreak", "-Wmissing", "-P-cbou", path];
    let groff = fleet::tools::groff().expect("groff is there");
    let output = run(groff.to_str().expect("UTF-8"), &arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(output.stderr), text(output.stdout))
}

#[test]
fn man_reads_a_page_for_each_command_without_a_warning() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    run(SLUICE, &["man", "--dir", dir.to_str().expect("UTF-8")]);
    let mut names = commands();
    names.sort();
    let pages = names.iter().map(|name| format!("sluice-{name}.1")).chain(["sluice.1".to_owned()]);
    let pages: Vec<String> = pages.collect();
    let mut written: Vec<String> = fs::read_dir(&dir)
        .expect("made")
        .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
        .collect();
    written.sort();
    assert_eq!(written, pages);
    for page in &pages {
        let (warned, text) = read(&dir.join(page));
        assert!(warned.is_empty(), "{page}: {warned}");
        let named = page.trim_end_matches(".1");
        assert!(text.contains(named) && text.contains("SYNOPSIS"), "{page}: {text}");
    }
    let (_, explain) = read(&dir.join("sluice-explain.1"));
    assert!(
        explain.contains("EXIT CODES") && explain.contains("\n       64  the command line is wrong"),
        "{explain}"
    );
    assert_eq!(fs::read_to_string(dir.join("sluice.1")).expect("there"), printed(SLUICE, &["man"]));
    fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let output = Command::new(SLUICE).args(["man", "--dir", "/proc/nowhere"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/proc/nowhere cannot be written") && said.contains("give a directory"), "{said}");
}

#[test]
fn the_openapi_document_is_told_offline() {
    let document: serde_json::Value = serde_json::from_str(&printed(SLUICE, &["openapi"])).expect("JSON");
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    assert!(document["paths"]["/v1/status"]["get"]["responses"]["200"].is_object(), "{document}");
}
