//! What fuzzing needs besides Rust: cargo-fuzz, and a C++ compiler for libFuzzer.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fleet::{artifacts, tools};

use crate::Failure;

/// The version that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// The program cargo-fuzz.
pub struct CargoFuzz(PathBuf);

impl CargoFuzz {
    /// A subcommand on `fuzz/`, with the options that make it work on stable Rust.
    pub fn command<'a>(&self, subcommand: &str, rest: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.0);
        command.args([subcommand, "--fuzz-dir", "fuzz", "--sanitizer", "none", "--target-dir"]);
        command.arg(tools::state_dir().join("fuzz/build")).args(rest);
        // Where cargo-fuzz itself was called does not matter; where a target panicked does.
        command.env("RUST_LIB_BACKTRACE", "0").current_dir(tools::workspace()).stdin(Stdio::null());
        command
    }
}

/// cargo-fuzz on the path, or the one below the target directory, installed there if need be; and sees to it that
/// libFuzzer can be compiled.
pub fn cargo_fuzz() -> Result<CargoFuzz, Failure> {
    cxx_compiler()?;
    if let Some(found) = on_path("cargo-fuzz") {
        return Ok(CargoFuzz(found));
    }
    let root = tools::state_dir().join("cargo-fuzz");
    let program = root.join("bin/cargo-fuzz");
    if !program.is_file() {
        // It only drives cargo, so that it need not be fast.
        let install = ["install", "--debug", "--locked", "--version", CARGO_FUZZ_VERSION, "cargo-fuzz"];
        let mut command = Command::new(artifacts::cargo());
        command.args(install).arg("--root").arg(&root).current_dir(tools::workspace());
        run(&format!("cargo install cargo-fuzz below {}", tools::state_dir().display()), &mut command)?;
    }
    Ok(CargoFuzz(program))
}

/// `$CXX`, or `c++` on the path, or else installed by apt-get for root.
fn cxx_compiler() -> Result<(), Failure> {
    if env::var_os("CXX").is_some() || on_path("c++").is_some() {
        return Ok(());
    }
    let mend = "there is no C++ compiler, which libFuzzer needs: install one (Debian and Ubuntu: apt-get install g++) \
                or set CXX";
    if !is_root() || on_path("apt-get").is_none() {
        return Err(mend.into());
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(&format!("apt-get {}: there is no `c++` on the path", arguments.join(" ")), &mut command)
    };
    let install = ["install", "-y", "--no-install-recommends", "g++"];
    // A fresh image knows no packages until it has asked.
    let installed = apt_get(&install).or_else(|_| apt_get(&["update"]).and_then(|()| apt_get(&install)));
    installed.map_err(|failure| format!("{failure}; {mend}").into())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process's own directory belongs to the user that it runs as.
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())?;
    Some(std::path::absolute(&found).unwrap_or(found))
}

/// Runs a command as one step; its output is shown where it fails.
fn run(what: &str, command: &mut Command) -> Result<(), Failure> {
    let outcome = tools::step(what, || Ok(command.stdin(Stdio::null()).output()))??;
    if outcome.status.success() {
        return Ok(());
    }
    let program = Path::new(command.get_program()).display();
    let said = String::from_utf8_lossy(&outcome.stderr);
    Err(format!("{program} failed with {}:\n{}", outcome.status, said.trim()).into())
}
