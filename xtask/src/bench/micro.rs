//! `cargo xtask bench --micro`: the micro-benchmarks of `benches/micro/`, and what they told.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use fleet::{Redis, artifacts, tools};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{load_average, tables::thousands};
use crate::Failure;

const PACKAGE: &str = "sluice-micro";

/// The subject of the script's figures; `benches/micro/benches/stores.rs` names it.
const SCRIPT: &str = "the script: processor time of Redis for each decision";

/// What the micro-benchmarks told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Micro {
    /// Redis's version.
    pub redis: String,
    /// The load average of the last minute before they began.
    pub load_average_before: f64,
    /// In the order in which they are told.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub subject: String,
    /// On what.
    pub case: String,
    /// How much.
    pub value: f64,
    /// Of what: `ns`, `µs` or `bytes`.
    pub unit: String,
}

/// Runs them, and gathers what they tell; a smoke test where `quick`.
pub fn run(quick: bool) -> Result<Micro, Failure> {
    let redis_server = tools::redis_server()?;
    let redis = Redis::version(&redis_server)?;
    let load_average_before = load_average()?;
    let home = tools::state_dir().join("criterion");
    // Results of benchmarks that are no more would be told as well.
    if home.is_dir() {
        fs::remove_dir_all(&home)?;
    }
    let bench = |name: &str, rest: &[&str]| -> Result<String, Failure> {
        let mut command = Command::new(artifacts::cargo());
        command.args(["bench", "--package", PACKAGE, "--bench", name, "--"]).args(rest);
        command.env("CRITERION_HOME", &home).env("REDIS_SERVER", &redis_server);
        command.current_dir(tools::workspace()).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            return Err(format!("cargo bench of {name} failed with {}: {said}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    let quickly = if quick { &["--quick"][..] } else { &[] };
    bench("parts", &[&["--noplot"], quickly].concat())?;
    let mut figures = of_criterion(&home)?;
    for line in bench("stores", quickly)?.lines().filter(|line| line.starts_with('{')) {
        figures.push(serde_json::from_str(line)?);
    }
    Ok(Micro { redis, load_average_before, figures })
}

impl Micro {
    /// What was measured, each once, in order.
    pub fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for figure in &self.figures {
            if !subjects.contains(&figure.subject.as_str()) {
                subjects.push(&figure.subject);
            }
        }
        subjects
    }

    /// The figures of one subject.
    pub fn of<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.subject == subject)
    }

    /// Processor time of Redis for each decision, in microseconds, in batches of this many.
    pub fn script_us_per_decision(&self, batch: usize) -> Option<f64> {
        let case = format!("batch of {batch}");
        self.of(SCRIPT).find(|figure| figure.case == case).map(|figure| figure.value)
    }
}

impl Figure {
    /// The figure with its unit.
    pub fn written(&self) -> String {
        let Self { value, unit, .. } = self;
        match unit.as_str() {
            "ns" if *value >= 1e6 => format!("{:.2} ms", value / 1e6),
            "ns" if *value >= 1e3 => format!("{:.2} µs", value / 1e3),
            "µs" => format!("{value:.2} µs"),
            _ if *value < 100.0 => format!("{value:.1} {unit}"),
            _ => format!("{} {unit}", thousands(*value)),
        }
    }
}

/// The means that criterion has kept, in the order in which it measured them.
fn of_criterion(home: &Path) -> Result<Vec<Figure>, Failure> {
    let mut figures = Vec::new();
    for group in directories(home)? {
        for case in directories(&group)? {
            let (named, estimates) = (case.join("new/benchmark.json"), case.join("new/estimates.json"));
            // A report has a directory, too, without any.
            if !estimates.is_file() {
                continue;
            }
            let measured_at = fs::metadata(&estimates)?.modified()?;
            let named: Value = serde_json::from_slice(&fs::read(named)?)?;
            let estimates: Value = serde_json::from_slice(&fs::read(estimates)?)?;
            let text = |name: &str| named[name].as_str().unwrap_or_default().to_owned();
            let value = estimates["mean"]["point_estimate"].as_f64().ok_or("criterion told no mean")?;
            let (subject, case, unit) = (text("group_id"), text("function_id"), "ns".to_owned());
            figures.push((measured_at, Figure { subject, case, value, unit }));
        }
    }
    if figures.is_empty() {
        return Err("criterion kept no results".into());
    }
    figures.sort_by_key(|(measured_at, _)| *measured_at);
    Ok(figures.into_iter().map(|(_, figure)| figure).collect())
}

fn directories(of: &Path) -> Result<Vec<std::path::PathBuf>, Failure> {
    let entries = fs::read_dir(of)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_criterion_kept_is_read_in_the_order_of_measuring() {
        let home = fleet::RunDir::new().unwrap();
        let start = std::time::SystemTime::now();
        for (later, (group, case, ns)) in
            [("z", "batch of 1", 12.5), ("a", "batch of 16", 99.0)].into_iter().enumerate()
        {
            let new = home.path().join(group).join(case).join("new");
            fs::create_dir_all(&new).unwrap();
            let named = serde_json::json!({"group_id": group, "function_id": case});
            fs::write(new.join("benchmark.json"), named.to_string()).unwrap();
            let estimates = serde_json::json!({"mean": {"point_estimate": ns}});
            fs::write(new.join("estimates.json"), estimates.to_string()).unwrap();
            let file = fs::File::options().append(true).open(new.join("estimates.json")).unwrap();
            file.set_modified(start + std::time::Duration::from_secs(later as u64)).unwrap();
        }
        let figures = of_criterion(home.path()).unwrap();
        let told: Vec<_> =
            figures.iter().map(|one| format!("{} {} {}", one.subject, one.case, one.written())).collect();
        assert_eq!(told, ["z batch of 1 12.5 ns", "a batch of 16 99.0 ns"]);
    }

    #[test]
    fn figures_are_written_with_a_fitting_unit() {
        let figure = |value, unit: &str| {
            Figure { subject: String::new(), case: String::new(), value, unit: unit.to_owned() }.written()
        };
        assert_eq!(figure(12.34, "ns"), "12.3 ns");
        assert_eq!(figure(123.4, "ns"), "123 ns");
        assert_eq!(figure(12_340.0, "ns"), "12.34 µs");
        assert_eq!(figure(2.754, "µs"), "2.75 µs");
        assert_eq!(figure(1234.0, "bytes"), "1,234 bytes");
    }
}
