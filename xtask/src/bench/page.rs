//! docs/performance.md: its words are written by hand, its tables and charts are made from what was measured.
//!
//! What is made stands between `<!-- made: NAME -->` and `<!-- end -->`; the results that it is made from are kept
//! beside the page.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use fleet::tools;
use serde::de::DeserializeOwned;

use super::{
    charts::{self, Drawn},
    micro::Micro,
    record::Record,
    tables,
};
use crate::Failure;

const RECORD: &str = "fleet.json";
const MICRO: &str = "micro.json";
const END: &str = "<!-- end -->";

/// Keeps what was measured on a fleet, and makes the page anew.
pub fn keep_record(record: &Record) -> Result<(), Failure> {
    write(&beside(RECORD), &(serde_json::to_string_pretty(record)? + "\n"))?;
    make()
}

/// Keeps what the micro-benchmarks told, and makes the page anew.
pub fn keep_micro(micro: &Micro) -> Result<(), Failure> {
    write(&beside(MICRO), &(serde_json::to_string_pretty(micro)? + "\n"))?;
    make()
}

/// What the micro-benchmarks told last, where that is kept.
pub fn kept_micro() -> Result<Option<Micro>, Failure> {
    kept(MICRO)
}

/// The page and its charts, from what is kept.
fn make() -> Result<(), Failure> {
    let page = page();
    let text = read(&page)?.ok_or_else(|| format!("there is no {}", page.display()))?;
    let (text, charts) = made(&text, kept(RECORD)?.as_ref(), kept_micro()?.as_ref())?;
    for chart in charts {
        write(&beside(chart.file), &chart.svg)?;
    }
    write(&page, &text)?;
    eprintln!("· wrote docs/performance.md and docs/performance/");
    Ok(())
}

/// The page's text with everything in it that these results make, and the charts that it shows. What needs results
/// that are not there stays as it is.
fn made(text: &str, record: Option<&Record>, micro: Option<&Micro>) -> Result<(String, Vec<Drawn>), Failure> {
    let mut sections = Vec::new();
    let mut drawn = Vec::new();
    if let Some(micro) = micro {
        sections.push(("micro", tables::micro(micro)));
    }
    if let Some(record) = record {
        sections.push(("setting", tables::setting(record) + "\n"));
        sections.push(("aims", tables::aims(record, micro)));
        sections.push(("variants", tables::variants(record)));
        sections.push(("leases", tables::leases(record)));
        let charts = [
            ("throughput", Some(charts::throughput(record)?), tables::throughput(record)),
            ("cpu", Some(charts::cpu(record)?), tables::cpu(record)),
            ("latency", Some(charts::latency(record)?), tables::latency(record)),
            ("open-loop", charts::open_loop(record)?, tables::open_loop(record)),
        ];
        for (name, chart, table) in charts {
            let shown = chart
                .as_ref()
                .map(|chart| format!("![{}](performance/{})\n\n", chart.alternative, chart.file));
            sections.push((name, shown.unwrap_or_default() + &table));
            drawn.extend(chart);
        }
    }
    let text =
        sections.iter().try_fold(text.to_owned(), |text, (name, content)| replaced(&text, name, content))?;
    Ok((text, drawn))
}

/// The text with another content between a section's marks.
fn replaced(text: &str, name: &str, content: &str) -> Result<String, Failure> {
    let begin = format!("<!-- made: {name} -->\n");
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| format!("the page has no `{}` with an `{END}`", begin.trim_end()))?;
    Ok(format!("{before}{begin}\n{}\n\n{END}{after}", content.trim()))
}

fn page() -> PathBuf {
    tools::workspace().join("docs/performance.md")
}

fn beside(file: &str) -> PathBuf {
    tools::workspace().join("docs/performance").join(file)
}

fn kept<T: DeserializeOwned>(file: &str) -> Result<Option<T>, Failure> {
    let path = beside(file);
    let Some(text) = read(&path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("could not read {}: {error}", path.display()).into()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|error| format!("could not write {}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::Load;

    fn record() -> Record {
        serde_json::from_str(include_str!("testdata/fleet.json")).unwrap()
    }

    fn micro() -> Micro {
        serde_json::from_str(include_str!("testdata/micro.json")).unwrap()
    }

    fn shipped() -> String {
        read(&page()).unwrap().unwrap()
    }

    #[test]
    fn the_page_is_made_from_what_is_kept_beside_it() {
        let (text, charts) =
            made(&shipped(), kept(RECORD).unwrap().as_ref(), kept_micro().unwrap().as_ref()).unwrap();
        assert!(
            text == shipped(),
            "docs/performance.md differs from its figures: cargo xtask bench --from FILE --docs"
        );
        for chart in charts {
            let shipped = read(&beside(chart.file)).unwrap();
            assert!(shipped == Some(chart.svg), "docs/performance/{} differs from its figures", chart.file);
        }
    }

    #[test]
    fn every_part_of_the_page_is_made_and_making_it_again_changes_nothing() {
        let (record, micro) = (record(), micro());
        let (text, charts) = made(&shipped(), Some(&record), Some(&micro)).unwrap();
        assert_eq!(text.matches("<!-- made: ").count(), 9);
        assert!(!text.contains(&format!(" -->\n{END}")), "a part is empty");
        for chart in &charts {
            assert!(text.contains(&format!("](performance/{})", chart.file)), "{} is not shown", chart.file);
        }
        assert_eq!(charts.len(), 4);
        assert!(text.contains("| 64%, 38.7 µs, 88% leased |"), "what a small lease costs is missing");
        assert_eq!(made(&text, Some(&record), Some(&micro)).unwrap().0, text);
    }

    #[test]
    fn what_was_not_measured_leaves_the_page_as_it_is() {
        let mut record = record();
        record.rows.retain(|row| matches!(row.load, Load::Connections(_)));
        let (text, charts) = made(&shipped(), Some(&record), None).unwrap();
        assert_eq!(charts.len(), 3);
        let micro = "<!-- made: micro -->";
        assert_eq!(text.split_once(micro).unwrap().1, shipped().split_once(micro).unwrap().1);
    }

    #[test]
    fn a_part_without_its_marks_is_named() {
        let error = replaced("<!-- made: cpu -->\nno end", "cpu", "a table").unwrap_err().to_string();
        assert!(error.contains("made: cpu"), "{error}");
    }

    #[test]
    fn charts_tell_their_figures_in_words_too() {
        let record = record();
        let chart = charts::throughput(&record).unwrap();
        assert!(chart.svg.starts_with("<svg") && chart.svg.trim_end().ends_with("</svg>"));
        for variant in record.variants() {
            assert!(chart.svg.contains(variant) && chart.alternative.contains(variant), "{variant}");
        }
        let one = charts::open_loop(&record).unwrap().unwrap();
        assert!(!one.svg.contains("sluice-denied-uncached"), "it did not keep up");
    }
}
