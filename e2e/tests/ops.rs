//! What `ops/` and `docs/operating.md` tell of metrics, alerts, log lines and commands is what there is: on a real fleet, by
//! Prometheus's own tools, and on a Prometheus that scrapes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{PATIENCE, PATIENT, ask, by_api_key, strict};
use fleet::{
    Fleet, Process, Programs, RunDir, Sidecar, SpanReceiver, Store, eventually, free_port, http, tools,
};
use promql_parser::{
    parser::{Expr, parse},
    util::{ExprVisitor, walk_expr},
};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/operating.md");
const DASHBOARD: &str = include_str!("../../ops/grafana/sluice.json");
const ALERTS: &str = include_str!("../../ops/prometheus/alerts.yml");
const SCRAPE: &str = include_str!("../../ops/prometheus/scrape.yml");

/// What Prometheus itself tells of a target.
const OF_PROMETHEUS: [&str; 1] = ["up"];

/// A fleet with Redis, one sidecar more that has none, and a receiver of spans.
struct Watched {
    fleet: Fleet,
    alone: Sidecar,
    _receiver: SpanReceiver,
}

fn watched() -> Watched {
    let receiver = SpanReceiver::start().expect("it listens");
    let url = receiver.url();
    let arguments = [&PATIENT[..], &["--otlp-endpoint", &url]].concat();
    let fleet = Fleet::builder()
        .filter_configuration(strict(&json!([by_api_key("per-client", "1 per day", 2)])))
        .store(Store::Redis)
        .sidecar_args(arguments)
        .start()
        .expect("a fleet");
    let programs = Programs::from_env();
    let program = programs.sluice().expect("the sidecar");
    let alone = Sidecar::builder().start(program, fleet.run_dir()).expect("a sidecar");
    for client in ["alice", "bob"] {
        for _ in 0..4 {
            let _ = ask(&fleet, http::get("/").header("x-api-key", client));
        }
    }
    Watched { fleet, alone, _receiver: receiver }
}

/// The names of samples on a page of Prometheus's text.
fn samples(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The names of families: of a histogram without the ends of its samples.
fn families(samples: &BTreeSet<String>) -> BTreeSet<String> {
    let is_histogram = |name: &str| samples.contains(&format!("{name}_bucket"));
    let family = |sample: &String| {
        let ends = ["_bucket", "_sum", "_count"].iter().filter_map(|end| sample.strip_suffix(end));
        { ends }.find(|name| is_histogram(name)).unwrap_or(sample).to_owned()
    };
    samples.iter().map(family).collect()
}

impl Watched {
    fn of_sidecars(&self) -> BTreeSet<String> {
        let page =
            |sidecar: &Sidecar| http::get("/metrics").send(sidecar.admin_addr()).expect("metrics").text();
        let both = [self.fleet.sidecar(0), &self.alone].map(page);
        samples(&both.join("\n"))
    }

    /// Those of the filter, without those of each policy.
    fn of_filter(&self) -> BTreeSet<String> {
        let page = self.fleet.envoy(0).admin("/stats/prometheus").expect("stats").text();
        let ours = |name: &String| name.starts_with("sluice_") && !name.starts_with("sluice_policy_");
        samples(&page).into_iter().filter(ours).collect()
    }
}

/// The metrics that a query reads.
struct Read(BTreeSet<String>);

impl ExprVisitor for Read {
    type Error = ();

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
        let selector = match expr {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        self.0.extend(selector.and_then(|selector| selector.name.clone()));
        Ok(true)
    }
}

fn read_by(query: &str) -> BTreeSet<String> {
    let mut read = Read(BTreeSet::new());
    let parsed = parse(query).unwrap_or_else(|error| panic!("{error} in {query}"));
    walk_expr(&mut read, &parsed).expect("walked");
    assert!(!read.0.is_empty(), "{query} reads nothing");
    read.0
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).expect("JSON")
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

/// The queries of the dashboard by their panels, with its variables filled in as for all.
fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let of_panel = |panel: &Value| -> Vec<(String, String)> {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let query = |target: &Value| {
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m");
            (
                title.clone(),
                ["$instance", "$domain", "$policy"]
                    .iter()
                    .fold(query, |query, name| query.replace(name, ".*")),
            )
        };
        list(&panel["targets"]).iter().map(query).collect()
    };
    list(&dashboard["panels"]).iter().flat_map(of_panel).collect()
}

fn alerts() -> BTreeMap<String, String> {
    let alerts = fleet::Config::from_yaml(ALERTS).expect("YAML").tree().clone();
    let rules = list(&alerts["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec());
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

#[test]
fn every_metric_that_is_watched_and_told_of_is_there() {
    let watched = watched();
    let (sidecars, filter) = (watched.of_sidecars(), watched.of_filter());
    let there: BTreeSet<&String> = sidecars.union(&filter).collect();
    for (what, query) in queries().into_iter().chain(alerts()) {
        for name in read_by(&query) {
            let known = there.contains(&name) || OF_PROMETHEUS.contains(&name.as_str());
            assert!(known, "{what} reads {name}, which nobody tells");
        }
    }
    for (title, names) in
        [("### Metrics of a sidecar", families(&sidecars)), ("### Metrics of the filter", families(&filter))]
    {
        assert_eq!(first_cells(title), names, "{title}");
    }
    let told = first_cells("### Alerts");
    assert_eq!(told, alerts().into_keys().collect(), "### Alerts");
}

/// What is in the first column of the table below a title, in backquotes; two of them are one within.
fn first_cells(title: &str) -> BTreeSet<String> {
    let section = PAGE.split(&format!("{title}\n")).nth(1).unwrap_or_else(|| panic!("there is no {title}"));
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |row: &str| row.split(" | ").next().unwrap_or_default().trim_start_matches("| ").to_owned();
    let names = |cell: String| {
        let quoted = cell.replace("``", "\u{0}");
        let names = quoted.split("`, `").map(|name| name.trim_matches('`').replace('\u{0}', "`"));
        names.collect::<Vec<_>>()
    };
    rows.flat_map(|row| names(cell(row))).collect()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

/// The message of a macro's call, from behind its parenthesis: the last text in it.
fn message(call: &str) -> String {
    let (mut depth, mut last, mut rest) = (1, String::new(), call.chars());
    while depth > 0 {
        match rest.next().expect("the call ends") {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                last.clear();
                while let Some(of_text) = rest.next().filter(|of_text| *of_text != '"') {
                    match of_text {
                        // At the end of a line it leaves out what the next begins with.
                        '\\' => match rest.next() {
                            Some('\n') => rest = rest.as_str().trim_start().chars(),
                            escaped => last.extend(escaped),
                        },
                        plain => last.push(plain),
                    }
                }
            }
            _ => {}
        }
    }
    last
}

#[test]
fn every_line_of_the_log_is_told_of() {
    let mut files = Vec::new();
    sources(&tools::workspace().join("sidecar/src"), &mut files);
    let mut logged = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for name in ["info!(", "warn!(", "error!("] {
            logged.extend(text.split(name).skip(1).map(message));
        }
    }
    assert!(logged.len() > 30 && logged.contains("listening"), "{logged:?}");
    assert_eq!(first_cells("## The log"), logged);
}

fn promtool(arguments: &[&str]) {
    let mut command = Command::new(tools::promtool().expect("promtool"));
    let output = command
        .args(arguments)
        .current_dir(tools::workspace().join("ops/prometheus"))
        .output()
        .expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn the_rules_load_and_fire_where_they_should() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "scrape.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
    let tests = include_str!("../../ops/prometheus/alerts_test.yml");
    for alert in alerts().into_keys() {
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")),
            "{alert} is never seen to fire"
        );
    }
}

/// What Grafana needs of a dashboard, as far as can be told without one.
#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
    assert!(dashboard["uid"].is_string() && dashboard["title"].is_string() && dashboard.get("id").is_none());
    let variables: BTreeSet<&str> = list(&dashboard["templating"]["list"])
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    assert_eq!(variables, BTreeSet::from(["datasource", "domain", "instance", "policy"]));
    let (mut ids, mut places, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        assert!(titles.insert(panel["title"].as_str().expect("a title")), "{panel}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{panel}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(place), "{} lies over another", panel["title"]);
        }
        if panel["type"] == "row" {
            continue;
        }
        let mut refs = BTreeSet::new();
        assert!(!list(&panel["targets"]).is_empty() && panel["description"].is_string(), "{panel}");
        for asked in list(&panel["targets"]).iter().chain([panel]) {
            assert_eq!(asked["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}));
            if let Some(name) = asked["refId"].as_str() {
                assert!(refs.insert(name), "{panel}");
            }
        }
    }
    let written = DASHBOARD.split('$').skip(1).map(|after| after.trim_start_matches('{'));
    for used in written
        .map(|after| after.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default())
    {
        assert!(
            variables.contains(used) || ["__rate_interval", "__all"].contains(&used),
            "${used} is no variable"
        );
    }
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A Prometheus scrapes the fleet as the example says, and every query of the dashboard has an answer.
#[test]
fn a_prometheus_finds_what_the_dashboard_shows() {
    let watched = watched();
    let run = RunDir::new().expect("a directory");
    let sidecars = [watched.fleet.sidecar(0).admin_addr(), watched.alone.admin_addr()];
    let alerts = tools::workspace().join("ops/prometheus/alerts.yml");
    let scrape = SCRAPE
        .replace("\"127.0.0.1:9091\"", &format!("\"{}\", \"{}\"", sidecars[0], sidecars[1]))
        .replace("127.0.0.1:9901", &watched.fleet.envoy(0).admin_addr().to_string())
        .replace("alerts.yml", &alerts.display().to_string())
        .replace("10s", "1s");
    let file = run.path().join("scrape.yml");
    fs::write(&file, scrape).expect("written");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
    let mut command = Command::new(tools::prometheus().expect("Prometheus"));
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", run.path().join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let prometheus = Process::start("prometheus", command, run.path()).expect("it starts");
    let get = |path: &str| http::get(path).send(address).ok().and_then(|answer| answer.json().ok());
    for (panel, query) in queries() {
        let path = format!("/api/v1/query?query={}", encoded(&query));
        let mut last = Value::Null;
        // A rate wants two scrapes.
        let found = eventually(PATIENCE, "an answer with data", || {
            let _ = ask(&watched.fleet, http::get("/").header("x-api-key", "alice"));
            last = get(&path).unwrap_or_default();
            (!list(&last["data"]["result"]).is_empty()).then_some(())
        });
        assert!(found.is_ok(), "{panel}: {query}\n{last}\n{}", prometheus.stderr());
    }
    let unwell = |rules: &Value| {
        let rules = list(&rules["data"]["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec());
        let health: Vec<Value> = rules.map(|rule| rule["health"].clone()).collect();
        health.is_empty() || health.iter().any(|health| *health != "ok")
    };
    eventually(PATIENCE, "every rule is evaluated", || get("/api/v1/rules").filter(|rules| !unwell(rules)))
        .expect("evaluated without an error");
}

/// The commands of the page, in its order, on a fleet.
#[test]
fn the_commands_of_the_page_do_what_they_say() {
    let watched = watched();
    let programs = Programs::from_env();
    let program = programs.sluice().expect("the sidecar");
    let admin = format!("http://{}", watched.fleet.sidecar(0).admin_addr());
    let lines =
        PAGE.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).flat_map(str::lines);
    let mut ran = 0;
    for line in lines {
        let rest = line.strip_prefix("sluice ").unwrap_or_else(|| panic!("{line} is no command of ours"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("\"$0\" {rest}")]).arg(program).env("SLUICE_ADMIN", &admin);
        let output = command.output().expect("it runs");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        assert!(!output.stdout.is_empty(), "{line} says nothing");
        ran += 1;
    }
    assert!(ran >= 10, "{ran} commands");
}
