//! How metrics are written: in OpenMetrics, or for whoever does not speak it in Prometheus's own text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a line begins that tells what a metric means, and one that tells its kind.
const HELP: &str = "# HELP ";
const TYPE: &str = "# TYPE ";

/// The name of a metric, without the suffix that its kind has, and what it means.
pub(super) type Named = (&'static str, &'static str);

/// Whatever writes metrics.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    pub(super) fn counter(&mut self, of: Named, value: u64) -> fmt::Result {
        self.one(of, &ConstCounter::new(value))
    }

    pub(super) fn seconds_counted(&mut self, of: Named, value: f64) -> fmt::Result {
        self.one(of, &ConstCounter::new(value))
    }

    pub(super) fn gauge(&mut self, of: Named, value: u64) -> fmt::Result {
        self.one(of, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    pub(super) fn seconds(&mut self, of: Named, value: f64) -> fmt::Result {
        self.one(of, &ConstGauge::new(value))
    }

    pub(super) fn histogram(&mut self, of: Named, value: &Histogram) -> fmt::Result {
        self.one(of, value)
    }

    /// One counter for each set of labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        of: Named,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(of, MetricType::Counter, values)
    }

    /// One gauge for each set of labels.
    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        of: Named,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let gauge = |value| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let values = values.into_iter().map(|(labels, value)| (labels, gauge(value)));
        self.family(of, MetricType::Gauge, values)
    }

    fn one(&mut self, (name, help): Named, value: &impl EncodeMetric) -> fmt::Result {
        value.encode(self.0.encode_descriptor(name, help, None, value.metric_type())?)
    }

    fn family<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        (name, help): Named,
        of: MetricType,
        values: impl Iterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, of)?;
        for (labels, value) in values {
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What `collector` tells, in OpenMetrics.
pub(super) fn open_metrics(collector: impl Collector) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut page = String::with_capacity(16 << 10);
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// The same in Prometheus's text, in which the type and the meaning of a counter are those of its name with `_total`, and an
/// end needs no mark.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len() + 1024);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().copied().unwrap_or_default();
        let told = line.strip_prefix(HELP).or_else(|| line.strip_prefix(TYPE));
        // A line of help may end in any word, so it is the line of the type that says it.
        let typed = if line.starts_with(HELP) { next } else { line };
        let is_counter = typed.starts_with(TYPE) && typed.ends_with(" counter");
        match told.and_then(|told| told.split_once(' ')) {
            _ if line == "# EOF" => continue,
            Some((name, rest)) if is_counter => {
                page.extend([&line[..HELP.len()], name, "_total ", rest]);
            }
            _ => page.push_str(line),
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Both;

    impl Collector for Both {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut page = Page::new(encoder);
            page.counters(("a", "What is counted"), [([("of", "x\"\\\ny")], 7), ([("of", "z")], 0)])?;
            page.gauge(("b", "A counter"), 3)?;
            page.seconds_counted(("c_seconds", "Time"), 0.5)
        }
    }

    #[test]
    fn a_counter_is_told_in_both_formats() {
        let told = open_metrics(Both).expect("a text");
        let expected = "# HELP a What is counted\n# TYPE a counter\na_total{of=\"x\\\"\\\\\\ny\"} 7\na_total{of=\"z\"} 0\n\
                        # HELP b A counter\n# TYPE b gauge\nb 3\n\
                        # HELP c_seconds Time\n# TYPE c_seconds counter\nc_seconds_total 0.5\n# EOF\n";
        assert_eq!(told, expected);
        let expected = "# HELP a_total What is counted\n# TYPE a_total counter\na_total{of=\"x\\\"\\\\\\ny\"} 7\n\
                        a_total{of=\"z\"} 0\n# HELP b A counter\n# TYPE b gauge\nb 3\n\
                        # HELP c_seconds_total Time\n# TYPE c_seconds_total counter\nc_seconds_total 0.5\n";
        assert_eq!(prometheus(&told), expected);
    }
}
