//! What we hold ourselves to: ratios of two things that one run measured, since how many requests there are depends
//! on the machine.

use std::fmt;

use super::{
    micro::Micro,
    record::{Load, Record, Row},
};

/// A figure, and how good it is to be.
pub struct Aim {
    /// What it is of.
    pub what: &'static str,
    /// How good.
    pub bound: Bound,
    /// What its figure is counted in; nothing for a ratio.
    unit: &'static str,
    of: Of,
}

/// On which side of a number a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// That, or more.
    AtLeast(f64),
    /// That, or less.
    AtMost(f64),
}

/// Where a figure comes from.
enum Of {
    Run(fn(&Record) -> Option<f64>),
    Micro(fn(&Micro) -> Option<f64>),
}

/// All of them.
pub static ALL: &[Aim] = &[
    Aim {
        what: "requests/s at 64 connections, allowed through Redis, against Envoy alone",
        bound: Bound::AtLeast(0.60),
        unit: "",
        of: Of::Run(|record| throughput(record, "sluice-redis", "envoy", 64)),
    },
    Aim {
        what: "the same at 256 connections",
        bound: Bound::AtLeast(0.80),
        unit: "",
        of: Of::Run(|record| throughput(record, "sluice-redis", "envoy", 256)),
    },
    Aim {
        what: "processor time of everything per request at 64 connections, allowed through Redis, against Envoy alone",
        bound: Bound::AtMost(1.8),
        unit: "",
        of: Of::Run(|record| ratio(record, "sluice-redis", "envoy", 64, |row| row.median.cpu_us.sum())),
    },
    Aim {
        what: "median latency added at 1 connection, against what Envoy's own ratelimit filter adds",
        bound: Bound::AtMost(0.55),
        unit: "",
        of: Of::Run(|record| {
            let p50_us = |variant| closed(record, variant, 1).map(|row| row.median.p50_us);
            let alone = p50_us("envoy")?;
            Some((p50_us("sluice-redis")? - alone) / (p50_us("envoy-ratelimit")? - alone))
        }),
    },
    Aim {
        what: "repeats that are denied at 64 connections, requests/s against local_ratelimit where it denies",
        bound: Bound::AtLeast(0.90),
        unit: "",
        of: Of::Run(|record| throughput(record, "sluice-denied", "local_ratelimit-denied", 64)),
    },
    Aim {
        what: "hot keys with `lease: auto` at 64 connections, requests/s against Envoy alone",
        bound: Bound::AtLeast(0.85),
        unit: "",
        of: Of::Run(|record| throughput(record, "sluice-lease-auto", "envoy", 64)),
    },
    Aim {
        what: "a hundred policies in the filter at 64 connections, requests/s against one",
        bound: Bound::AtLeast(0.95),
        unit: "",
        of: Of::Run(|record| throughput(record, "sluice-policies-100", "sluice-redis", 64)),
    },
    Aim {
        what: "processor time of Redis for each decision, in full batches of 64",
        bound: Bound::AtMost(3.0),
        unit: " µs",
        of: Of::Micro(|micro| micro.script_us_per_decision(64)),
    },
];

impl Aim {
    /// The figure, where everything that it needs was measured.
    pub fn measured(&self, record: &Record, micro: Option<&Micro>) -> Option<f64> {
        let figure = match self.of {
            Of::Run(of) => of(record),
            Of::Micro(of) => micro.and_then(of),
        };
        figure.filter(|figure| figure.is_finite())
    }

    /// A figure with its unit, and as many decimals as it takes to see on which side of the bound it is.
    pub fn written(&self, figure: f64) -> String {
        let is_kept = self.bound.is_kept(figure);
        let mut texts = (2..=9).map(|decimals| format!("{figure:.decimals$}"));
        let text = texts.find(|text| text.parse().is_ok_and(|told| self.bound.is_kept(told) == is_kept));
        text.unwrap_or_else(|| figure.to_string()) + self.unit
    }
}

impl Bound {
    /// Whether a figure is on the right side, however it is written.
    pub fn is_kept(&self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= *bound,
            Self::AtMost(bound) => figure <= *bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound:.2}"),
            Self::AtMost(bound) => write!(f, "at most {bound:.2}"),
        }
    }
}

fn closed<'a>(record: &'a Record, variant: &str, connections: u32) -> Option<&'a Row> {
    record.row(variant, Load::Connections(connections))
}

fn ratio(record: &Record, of: &str, to: &str, connections: u32, figure: impl Fn(&Row) -> f64) -> Option<f64> {
    Some(figure(closed(record, of, connections)?) / figure(closed(record, to, connections)?))
}

fn throughput(record: &Record, of: &str, to: &str, connections: u32) -> Option<f64> {
    ratio(record, of, to, connections, |row| row.median.per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_computed_from_what_was_recorded() {
        let record: Record = serde_json::from_str(include_str!("testdata/fleet.json")).unwrap();
        let micro: Micro = serde_json::from_str(include_str!("testdata/micro.json")).unwrap();
        let measured: Vec<_> = ALL.iter().map(|aim| aim.measured(&record, Some(&micro))).collect();
        let measured: Vec<String> = ALL
            .iter()
            .zip(measured)
            .map(|(aim, figure)| {
                let figure = figure.unwrap();
                format!("{} {}", aim.written(figure), aim.bound.is_kept(figure))
            })
            .collect();
        // 24,000 of 40,000 requests; 25,500 of 30,000; 50.4 µs of 24; (200 − 50) of (350 − 50) µs; 36,000 of 45,000;
        // 34,000 of 40,000; 23,760 of 24,000; and as the script's figures say.
        let want = [
            "0.60 true",
            "0.85 true",
            "2.10 false",
            "0.50 true",
            "0.80 false",
            "0.85 true",
            "0.99 true",
            "2.75 µs true",
        ];
        assert_eq!(measured, want);
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let mut record: Record = serde_json::from_str(include_str!("testdata/fleet.json")).unwrap();
        record.rows.retain(|row| row.variant == "envoy");
        assert!(ALL.iter().all(|aim| aim.measured(&record, None).is_none()));
    }

    #[test]
    fn a_bound_is_not_kept_by_rounding() {
        assert!(Bound::AtLeast(0.6).is_kept(0.6) && !Bound::AtLeast(0.6).is_kept(0.5999));
        assert!(Bound::AtMost(3.0).is_kept(3.0) && !Bound::AtMost(3.0).is_kept(3.0001));
    }

    #[test]
    fn a_figure_is_written_as_finely_as_its_bound_asks() {
        let aim = Aim { what: "", bound: Bound::AtLeast(0.6), unit: " µs", of: Of::Run(|_| None) };
        for (figure, written) in
            [(0.6, "0.60 µs"), (0.594, "0.59 µs"), (0.5996, "0.5996 µs"), (0.6012, "0.60 µs")]
        {
            assert_eq!(aim.written(figure), written);
        }
    }
}
