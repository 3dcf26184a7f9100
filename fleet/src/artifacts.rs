//! Builds what a fleet runs: the filter for Envoy, and the sidecar for this machine.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Error, Result, tools};

/// Builds `sluice_filter.wasm` in release mode and returns its path.
pub fn filter() -> Result<PathBuf> {
    wasm("sluice-filter")
}

/// Builds the library of a package for Envoy, in release mode, and returns the path of its `.wasm`.
pub fn wasm(package: &str) -> Result<PathBuf> {
    tools::wasm_target()?;
    build(&["--package", package, "--lib", "--target", tools::WASM_TARGET], |artifact| {
        let files = artifact["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        files.map(PathBuf::from).find(|file| file.extension().is_some_and(|end| end == "wasm"))
    })
}

/// Builds the program `sluice` in release mode and returns its path.
pub fn sidecar() -> Result<PathBuf> {
    build(&["--package", "sluice", "--bin", "sluice"], |artifact| {
        artifact["executable"].as_str().filter(|_| artifact["target"]["name"] == "sluice").map(PathBuf::from)
    })
}

/// Runs `cargo build --release`, and asks cargo itself where the outcome is: that depends on the environment and
/// on the user's own configuration.
fn build(args: &[&str], pick: impl Fn(&Value) -> Option<PathBuf>) -> Result<PathBuf> {
    let step = format!("cargo build --release {}", args.join(" "));
    tools::step(&step, || {
        let mut command = Command::new(cargo());
        command.args(["build", "--release", "--message-format=json-render-diagnostics"]).args(args);
        command.current_dir(tools::workspace()).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(Error::io(format!("run {step}")))?;
        if !output.status.success() {
            return Err(Error::Step { step: step.clone(), detail: "see above".into() });
        }
        let lines = output.stdout.split(|byte| *byte == b'\n');
        let mut messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let found = messages.find_map(|message| pick(&message));
        found.ok_or_else(|| Error::Step { step: step.clone(), detail: "it named no artifact".into() })
    })
}

/// The cargo that runs us, so that one toolchain builds everything.
#[must_use]
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
