//! The programs of a fleet: found and built for the first time, or named by the environment.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{Result, artifacts, tools, tools::missing};

/// What a fleet is made of. A program that is not here is missed only by the fleet that needs it.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Envoy; `ENVOY_BIN` in the environment.
    pub envoy: Option<PathBuf>,
    /// Redis; `REDIS_SERVER` in the environment.
    pub redis_server: Option<PathBuf>,
    /// Chromium; `CHROMIUM_BIN` in the environment.
    pub chromium: Option<PathBuf>,
    /// What drives it; `CHROMEDRIVER` in the environment.
    pub chromedriver: Option<PathBuf>,
    /// The filter; `SLUICE_WASM` in the environment.
    pub wasm: Option<PathBuf>,
    /// The sidecar; `SLUICE_BIN` in the environment.
    pub sluice: Option<PathBuf>,
}

impl Programs {
    /// Finds, installs and builds everything that a fleet can need; a redis-server only where `redis` says so.
    pub fn prepare(redis: bool) -> Result<Self> {
        let envoy = Some(tools::envoy()?);
        let redis_server = if redis { Some(tools::redis_server()?) } else { None };
        Ok(Self {
            envoy,
            redis_server,
            wasm: Some(artifacts::filter()?),
            sluice: Some(artifacts::sidecar()?),
            ..Self::default()
        })
    }

    /// What the environment names, as `cargo xtask test` sets it for tests. A test never builds or installs.
    #[must_use]
    pub fn from_env() -> Self {
        let path = |name| env::var_os(name).map(PathBuf::from);
        Self {
            envoy: path("ENVOY_BIN"),
            redis_server: path("REDIS_SERVER"),
            chromium: path("CHROMIUM_BIN"),
            chromedriver: path("CHROMEDRIVER"),
            wasm: path("SLUICE_WASM"),
            sluice: path("SLUICE_BIN"),
        }
    }

    /// The variables that [`from_env`](Self::from_env) reads, with their values here.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let all = [
            ("ENVOY_BIN", &self.envoy),
            ("REDIS_SERVER", &self.redis_server),
            ("CHROMIUM_BIN", &self.chromium),
            ("CHROMEDRIVER", &self.chromedriver),
            ("SLUICE_WASM", &self.wasm),
            ("SLUICE_BIN", &self.sluice),
        ];
        all.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }

    /// Envoy, or what to do about its absence.
    pub fn envoy(&self) -> Result<&Path> {
        known("Envoy", "ENVOY_BIN", &self.envoy)
    }

    /// Redis, or what to do about its absence.
    pub fn redis_server(&self) -> Result<&Path> {
        known("redis-server", "REDIS_SERVER", &self.redis_server)
    }

    /// Chromium, or what to do about its absence.
    pub fn chromium(&self) -> Result<&Path> {
        known("Chromium", "CHROMIUM_BIN", &self.chromium)
    }

    /// What drives it, or what to do about its absence.
    pub fn chromedriver(&self) -> Result<&Path> {
        known("chromedriver", "CHROMEDRIVER", &self.chromedriver)
    }

    /// The filter, or what to do about its absence.
    pub fn wasm(&self) -> Result<&Path> {
        known("the filter", "SLUICE_WASM", &self.wasm)
    }

    /// The sidecar, or what to do about its absence.
    pub fn sluice(&self) -> Result<&Path> {
        known("the sidecar", "SLUICE_BIN", &self.sluice)
    }
}

fn known<'a>(program: &str, variable: &str, path: &'a Option<PathBuf>) -> Result<&'a Path> {
    let path = path.as_deref().ok_or_else(|| {
        missing(program, format!("{variable} is not set. Run `cargo xtask test`, which sees to everything"))
    })?;
    if !path.is_file() {
        return Err(missing(program, format!("{variable} names {}, which is no file", path.display())));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_mend() {
        let error = Programs::default().wasm().unwrap_err().to_string();
        assert!(error.contains("SLUICE_WASM") && error.contains("cargo xtask test"), "{error}");
        let absent = Programs { envoy: Some("/nowhere/envoy".into()), ..Programs::default() };
        assert!(absent.envoy().unwrap_err().to_string().contains("/nowhere/envoy"));
    }
}
