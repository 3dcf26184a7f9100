//! What is built in from others: licences, sources, versions, and known flaws where their list can be reached.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fleet::{artifacts, tools};

use crate::Failure;

/// The version that deny.toml is written for, and that is installed where there is none.
const VERSION: &str = "0.20.2";

/// Holds the dependencies to deny.toml. Advisories are asked for too, and where their database cannot be fetched, that is
/// said.
pub fn run() -> Result<(), Failure> {
    let program = cargo_deny()?;
    let check = |what: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--color", "never", "check", "--hide-inclusion-graph"]).args(what);
        command.current_dir(tools::workspace()).stdin(Stdio::null());
        command.output()
    };
    let outcome = check(&["licenses", "bans", "sources"])?;
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    if !outcome.status.success() {
        return Err(format!("cargo deny check failed:\n{said}").into());
    }
    let outcome = check(&["advisories"])?;
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    if outcome.status.success() {
        eprintln!("licences, versions, sources and advisories are as deny.toml wants them");
    } else if said.contains("failed to fetch advisory database") {
        let why = said.lines().find(|line| line.contains("fatal:")).unwrap_or("its host does not answer");
        eprintln!("licences, versions and sources are as deny.toml wants them");
        eprintln!("ADVISORIES WERE NOT CHECKED: their database cannot be fetched ({why})");
    } else {
        return Err(format!("cargo deny check advisories failed:\n{said}").into());
    }
    Ok(())
}

/// cargo-deny of this version on the path, or the one below the target directory, installed there if need be, which takes
/// minutes once. An older one may not understand deny.toml, and would blame the dependencies.
fn cargo_deny() -> Result<PathBuf, Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join("cargo-deny")).find(|file| file.is_file());
    if let Some(found) = found.filter(|found| is_of_our_version(found)) {
        return Ok(found);
    }
    let root = tools::state_dir().join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        eprintln!("cargo install cargo-deny {VERSION} below {}", root.display());
        let install = ["install", "--debug", "--locked", "--version", VERSION, "cargo-deny", "--root"];
        let mut command = Command::new(artifacts::cargo());
        let status = command.args(install).arg(&root).current_dir(tools::workspace()).status()?;
        if !status.success() {
            return Err(format!(
                "cargo-deny {VERSION} could not be installed ({status}, see above); put one of this version on the PATH"
            )
            .into());
        }
    }
    Ok(program)
}

fn is_of_our_version(program: &Path) -> bool {
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    said.is_ok_and(|said| tells_version(&String::from_utf8_lossy(&said.stdout)))
}

/// It says its name and its version.
fn tells_version(said: &str) -> bool {
    said.split_whitespace().nth(1) == Some(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_not_taken_for_ours() {
        assert!(tells_version(&format!("cargo-deny {VERSION}\n")));
        for other in ["cargo-deny 0.14.2\n", "cargo-deny 0.20.20", "cargo-deny", ""] {
            assert!(!tells_version(other), "{other}");
        }
    }
}
