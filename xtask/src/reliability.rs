//! `cargo xtask reliability`: runs the faults of `e2e/tests/faults/`, and writes what came of each to
//! docs/reliability.md.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

use fleet::{Envoy, Programs, Redis, artifacts, tools};

use crate::Failure;

const BEGIN: &str = "<!-- made: faults -->\n";
const END: &str = "<!-- end -->";

/// Runs the tests one after the other; where one fails, the page stays as it is.
pub fn run() -> Result<(), Failure> {
    let programs = Programs::prepare(true)?;
    let arguments =
        ["test", "--package", "sluice-e2e", "--test", "faults", "--", "--test-threads=1", "--nocapture"];
    let mut command = Command::new(artifacts::cargo());
    command.args(arguments).current_dir(tools::workspace()).envs(programs.variables());
    // The page may lack a row of a new fault, or have one of an old: that is what is being mended.
    command.args(["--skip", "every_fault_has_its_row"]).stderr(Stdio::inherit());
    let output = tools::step("the faults, which takes minutes", || {
        command
            .output()
            .map_err(|error| fleet::Error::Step { step: "cargo test".into(), detail: error.to_string() })
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("`cargo {}` failed:\n{said}", arguments.join(" ")).into());
    }
    let setting = format!(
        "Envoy {}, Redis {}.",
        Envoy::version(programs.envoy()?)?,
        Redis::version(programs.redis_server()?)?
    );
    let page = tools::workspace().join("docs/reliability.md");
    let text = fs::read_to_string(&page)?;
    fs::write(&page, made(&text, &setting, &said)?)?;
    eprintln!("· wrote docs/reliability.md");
    Ok(())
}

/// The page with a table of the lines that begin with `FAULT`, and one of those that begin with `MEMORY`.
fn made(page: &str, setting: &str, said: &str) -> Result<String, Failure> {
    let (before, after) = page.split_once(BEGIN).ok_or("docs/reliability.md has no mark `made: faults`")?;
    let (_, after) = after.split_once(END).ok_or("docs/reliability.md has no mark `end`")?;
    let faults = table(
        "| fault | requests | undecided | longest, ms | decided again after, ms | beyond the promise | of what may be |",
        // As tests are named in the README, and found by the test that wants a row for each.
        '`',
        lines(said, "FAULT"),
        ["name", "answered", "failed", "max_latency_ms", "recovery_ms", "admitted_over", "allowed_over"],
    )?;
    let memory = table(
        "| memory while an attacker brings new keys | after half of them, KiB | after all, KiB |",
        ' ',
        lines(said, "MEMORY"),
        ["process", "halfway_kib", "end_kib"],
    )?;
    Ok(format!("{before}{BEGIN}{setting}\n\n{faults}\n{memory}{END}{after}"))
}

/// What follows a word on each line that has it: with one test at a time, its name is printed before its line.
fn lines<'a>(said: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    let word = format!("{word} ");
    said.lines().filter_map(move |line| Some(line.split_once(&word)?.1))
}

/// A table in which the first column is a name.
fn table<'a, const COLUMNS: usize>(
    head: &str,
    quote: char,
    rows: impl Iterator<Item = &'a str>,
    columns: [&str; COLUMNS],
) -> Result<String, Failure> {
    let mut table = format!("{head}\n|---|{}\n", "---:|".repeat(COLUMNS - 1));
    for row in rows {
        let fields: BTreeMap<&str, &str> = row.split(' ').filter_map(|field| field.split_once('=')).collect();
        for (place, name) in columns.iter().enumerate() {
            let value = fields.get(name).ok_or_else(|| format!("a line has no `{name}`: {row}"))?;
            table += &if place == 0 { format!("| {quote}{value}{quote} |") } else { format!(" {value} |") };
        }
        table.push('\n');
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_made_of_the_lines_and_nothing_else_changes() {
        let page = format!("before\n{BEGIN}old\n{END}\nafter\n");
        let said = "test a ... FAULT name=a answered=9 failed=2 max_latency_ms=7 recovery_ms=0 admitted_over=1 \
                    allowed_over=20\nMEMORY process=redis halfway_kib=7 end_kib=8\nok\n";
        let made = made(&page, "Envoy 1.", said).unwrap();
        assert!(
            made.starts_with(&format!("before\n{BEGIN}Envoy 1.\n"))
                && made.ends_with("|\n<!-- end -->\nafter\n")
        );
        assert!(made.contains("| `a` | 9 | 2 | 7 | 0 | 1 | 20 |\n") && !made.contains("old"), "{made}");
        assert!(made.contains("|  redis  | 7 | 8 |\n"), "{made}");
        assert!(super::made(&page, "", "FAULT name=a").is_err());
    }
}
