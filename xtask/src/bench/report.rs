//! The outcome, as a table for people and as JSON for programs.

use serde_json::{Value, json};

use super::{Arguments, load::Sample};

/// What it was measured on.
pub struct Machine {
    /// Processor cores.
    pub cores: usize,
    /// Envoy's version.
    pub envoy: String,
    /// Redis's, where it takes part.
    pub redis: Option<String>,
    /// The load average of the last minute before it began: what else the machine did.
    pub load: String,
}

/// The medians of one variant at one number of connections.
pub struct Row {
    /// The variant's name.
    pub variant: &'static str,
    /// How many connections.
    pub connections: u32,
    /// The medians.
    pub median: Sample,
    /// Requests per second, against Envoy alone.
    pub ratio: f64,
}

/// Prints the table.
pub fn print(machine: &Machine, arguments: &Arguments, rows: &[Row]) {
    let redis = machine.redis.as_ref().map_or_else(String::new, |version| format!(", Redis {version}"));
    println!(
        "\n{} cores shared by all, Envoy {} with one worker{redis}, 1,000 keys",
        machine.cores, machine.envoy
    );
    let (rounds, seconds) = (arguments.rounds, arguments.seconds);
    println!("medians of {rounds} rounds of {seconds} s; processor time is per request");
    println!("load average before it began: {}\n", machine.load);
    println!(
        "| connections | variant | requests/s | of Envoy alone | p50 µs | p99 µs | CPU µs | Envoy | sidecar | Redis |"
    );
    println!("|---:|:---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for Row { variant, connections, median, ratio } in rows {
        let [envoy, sidecar, redis] = median.cpu_us;
        println!(
            "| {connections:>11} | {variant:<15} | {:>10.0} | {:>13.0}% | {:>6.0} | {:>6.0} | {:>6.1} | {envoy:>5.1} | {sidecar:>7.1} | {redis:>5.1} |",
            median.per_second,
            ratio * 100.0,
            median.p50_us,
            median.p99_us,
            envoy + sidecar + redis,
        );
    }
}

/// The same as JSON.
pub fn json(machine: &Machine, arguments: &Arguments, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let [envoy, sidecar, redis] = row.median.cpu_us;
            json!({
                "variant": row.variant,
                "connections": row.connections,
                "requests_per_second": row.median.per_second,
                "ratio_to_envoy": row.ratio,
                "p50_us": row.median.p50_us,
                "p99_us": row.median.p99_us,
                "cpu_us_per_request": {"envoy": envoy, "sidecar": sidecar, "redis": redis},
            })
        })
        .collect();
    json!({
        "cores": machine.cores,
        "envoy": machine.envoy,
        "redis": machine.redis,
        "load_average_before": machine.load,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "rows": rows,
    })
}
