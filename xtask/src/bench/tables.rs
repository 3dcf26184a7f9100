//! The results as tables of Markdown, which can be read on a terminal as well.

use super::{
    aims::{self, Aim},
    micro::Micro,
    record::{Load, Record, Row},
    variants,
};

/// What it was measured on, in a paragraph.
pub fn setting(record: &Record) -> String {
    let machine = &record.machine;
    let redis = machine.redis.as_ref().map_or_else(String::new, |version| format!(", Redis {version}"));
    format!(
        "{} cores, shared by everything that takes part and by the load generator; Envoy {} with one worker{redis}. \
         Each figure is its median over {} of {} s. The load average before it began was {:.2}.",
        machine.cores,
        machine.envoy,
        count(record.rounds, "round"),
        record.seconds,
        machine.load_average_before,
    )
}

/// Everything that was measured, a line each.
pub fn whole(record: &Record) -> String {
    let mut text = head(&[
        "load",
        "variant",
        "requests/s",
        "of Envoy alone",
        "p50 µs",
        "p90 µs",
        "p99 µs",
        "p99.9 µs",
        "CPU µs",
        "Envoy",
        "sidecar",
        "Redis",
        "other",
        "unanswered",
    ]);
    for row in &record.rows {
        let (sample, cpu) = (&row.median, &row.median.cpu_us);
        line(
            &mut text,
            [
                load(row.load),
                row.variant.clone(),
                thousands(sample.per_second),
                percent(row.ratio_to_envoy),
                thousands(sample.p50_us),
                thousands(sample.p90_us),
                thousands(sample.p99_us),
                thousands(sample.p999_us),
                tenths(cpu.sum()),
                tenths(cpu.envoy),
                tenths(cpu.sidecar),
                tenths(cpu.redis),
                tenths(cpu.other),
                if sample.unanswered > 0.0 { percent(sample.unanswered) } else { String::new() },
            ],
        );
    }
    text
}

/// What each variant is.
pub fn variants(record: &Record) -> String {
    let mut text = head(&["variant", "what it is"]);
    for name in record.variants() {
        line(&mut text, [format!("`{name}`"), variants::about(name).unwrap_or_default().to_owned()]);
    }
    text
}

/// What we hold ourselves to.
pub fn aims(record: &Record, micro: Option<&Micro>) -> String {
    let mut text = head(&["", "held to", "measured", ""]);
    for aim in aims::ALL {
        let Aim { what, bound, .. } = aim;
        let measured = aim.measured(record, micro);
        line(
            &mut text,
            [
                (*what).to_owned(),
                bound.to_string(),
                measured.map_or_else(|| "not measured".to_owned(), |value| aim.written(value)),
                measured
                    .map_or("", |value| if bound.is_kept(value) { "kept" } else { "**missed**" })
                    .to_owned(),
            ],
        );
    }
    text
}

/// Answers per second by connections, and how many of those of Envoy alone that is.
pub fn throughput(record: &Record) -> String {
    by_load(record, is_closed, |row| {
        format!("{} ({})", thousands(row.median.per_second), percent(row.ratio_to_envoy))
    })
}

/// The median latency and the 99th percentile by connections.
pub fn latency(record: &Record) -> String {
    by_load(record, is_closed, |row| {
        format!("{} / {}", thousands(row.median.p50_us), thousands(row.median.p99_us))
    })
}

/// The processor time of each process by connections.
pub fn cpu(record: &Record) -> String {
    by_load(record, is_closed, |row| {
        let cpu = &row.median.cpu_us;
        let parts =
            [("Envoy", cpu.envoy), ("sidecar", cpu.sidecar), ("Redis", cpu.redis), ("service", cpu.other)];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, us)| *us >= 0.05)
            .map(|(name, us)| format!("{name} {}", tenths(*us)))
            .collect();
        if parts.len() > 1 {
            format!("{}: {}", tenths(cpu.sum()), parts.join(", "))
        } else {
            tenths(cpu.sum())
        }
    })
}

/// What leases save, beside asking for each request: throughput, processor time, and how many they paid for.
pub fn leases(record: &Record) -> String {
    let mut of_leases = record.clone();
    of_leases.rows.retain(|row| row.variant.starts_with("sluice-lease") || row.variant == "sluice-redis");
    by_load(&of_leases, is_closed, |row| {
        let cpu_us = tenths(row.median.cpu_us.sum());
        format!("{}, {cpu_us} µs, {} leased", percent(row.ratio_to_envoy), percent(row.median.leased))
    })
}

/// The latencies of the open loop.
pub fn open_loop(record: &Record) -> String {
    let mut text = head(&["due", "variant", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "unanswered"]);
    for row in record.rows.iter().filter(|row| !is_closed(row.load)) {
        let sample = &row.median;
        line(
            &mut text,
            [
                load(row.load),
                row.variant.clone(),
                thousands(sample.p50_us),
                thousands(sample.p90_us),
                thousands(sample.p99_us),
                thousands(sample.p999_us),
                if sample.unanswered > 0.0 { percent(sample.unanswered) } else { "none".to_owned() },
            ],
        );
    }
    text
}

/// The micro-benchmarks.
pub fn micro(micro: &Micro) -> String {
    let mut text = String::new();
    for subject in micro.subjects() {
        text.push_str(&format!("\n**{subject}**\n\n"));
        text.push_str(&head(&["", ""]));
        for figure in micro.of(subject) {
            line(&mut text, [figure.case.clone(), figure.written()]);
        }
    }
    text
}

/// Whether the next request waits for the answer to the last.
pub fn is_closed(load: Load) -> bool {
    matches!(load, Load::Connections(_))
}

/// A load in words.
pub fn load(load: Load) -> String {
    match load {
        Load::Connections(connections) => count(connections, "connection"),
        Load::RatePerSecond(rate) => format!("{} requests/s", thousands(rate.into())),
    }
}

/// A number without a fraction, with commas.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = if number <= -0.5 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in hundredths.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

fn count(number: u32, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

/// A line for each variant, with a column for each load.
fn by_load(record: &Record, of_kind: fn(Load) -> bool, cell: impl Fn(&Row) -> String) -> String {
    let loads = record.loads(of_kind);
    let heads: Vec<String> = loads.iter().map(|one| load(*one)).collect();
    let heads: Vec<&str> = [""].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut text = head(&heads);
    for variant in record.variants() {
        let cells = loads.iter().map(|load| record.row(variant, *load).map(&cell).unwrap_or_default());
        line(&mut text, [format!("`{variant}`")].into_iter().chain(cells));
    }
    text
}

/// The first two lines of a table: what is not the first column is a number and stands on the right.
fn head(names: &[&str]) -> String {
    let mut text = String::new();
    line(&mut text, names.iter().map(|name| (*name).to_owned()));
    let sides = names.iter().enumerate().map(|(place, _)| if place == 0 { "---" } else { "---:" });
    line(&mut text, sides.map(str::to_owned));
    text
}

fn line(into: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        into.push_str("| ");
        into.push_str(&cell);
        into.push(' ');
    }
    into.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        for (number, written) in
            [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567"), (-1500.0, "-1,500")]
        {
            assert_eq!(thousands(number), written);
        }
    }
}
