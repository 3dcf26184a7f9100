//! The screen of `sluice top`, drawn.

use ratatui::{
    Frame,
    layout::{Constraint, Flex, Layout, Rect},
    style::{Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Clear, Gauge, Paragraph, Row, Table, TableState, Wrap},
};

use super::screen::{Panel, Screen};
use crate::{
    admin_client::answers::{Counts, Stats},
    check::finding::Shown,
    command::{
        By,
        ask::{
            tell::{POLICY_COLUMNS, bucket_lines, key_name, policy_cells, policy_name, store},
            words::{about, grouped, per_second},
        },
    },
};

/// The most policies that are shown beside the keys.
const MAX_POLICIES: usize = 8;
/// Room for any rate.
const CELL: Constraint = Constraint::Length(10);

pub(super) fn draw(frame: &mut Frame, screen: &Screen) {
    let policies = screen.stats.as_ref().map_or(0, |stats| stats.policies.len().min(MAX_POLICIES));
    let policies = u16::try_from(policies).unwrap_or(0) + 2;
    let heights =
        [Constraint::Length(2), Constraint::Length(policies), Constraint::Min(3), Constraint::Length(1)];
    let [head, middle, keys, foot] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(screen)), head);
    if let Some(stats) = &screen.stats {
        frame.render_widget(policies_table(stats), middle);
    }
    let mut state = TableState::new().with_selected(screen.chosen_row());
    frame.render_stateful_widget(keys_table(screen), keys, &mut state);
    frame.render_widget(foot_line(screen), foot);
    if let Some(panel) = &screen.panel {
        draw_panel(frame, panel, keys);
    }
}

fn head_lines(screen: &Screen) -> Vec<Line<'static>> {
    let Some(stats) = &screen.stats else { return vec![Line::from(screen.at.clone())] };
    let state = Span::from(store(stats));
    let state = if stats.store.ready { state.green() } else { state.red().bold() };
    let p99 = match stats.latency_us.take.count {
        0 => "no takes in the last minute".to_owned(),
        _ => format!("takes: 99% within {}", about(stats.latency_us.take.p99)),
    };
    let redis = stats.latency_us.redis.filter(|redis| redis.count > 0);
    let redis = redis.map(|redis| format!("   Redis: 99% within {}", about(redis.p99))).unwrap_or_default();
    let numbers = format!(
        "{p99}{redis}   {} of {} connections   overrides: {}",
        grouped(stats.connections.open),
        grouped(stats.connections.max),
        grouped(stats.overrides.count),
    );
    let up = about(stats.uptime_s.saturating_mul(1_000_000));
    let name = format!("sluice {} at {}, up {up}   ", Shown(&stats.version), Shown(&screen.at));
    vec![Line::from(vec![Span::from(name).bold(), state]), Line::from(numbers)]
}

fn policies_table(stats: &Stats) -> Table<'static> {
    let mut busiest: Vec<_> = stats.policies.iter().collect();
    busiest.sort_by_key(|of| {
        let Counts { allowed, denied, blocked, repeats, failed, .. } = of.last_10s;
        let counts = [allowed, denied, blocked, repeats, failed];
        std::cmp::Reverse(counts.into_iter().fold(0, u64::saturating_add))
    });
    let more = busiest.len().saturating_sub(MAX_POLICIES);
    let rows: Vec<Row> = busiest
        .into_iter()
        .take(MAX_POLICIES)
        .map(|of| row(policy_name(&of.domain, &of.policy), policy_cells(of, stats.covers_us).to_vec()))
        .collect();
    let title =
        if more > 0 { format!("domain/policy (and {more} more)") } else { "domain/policy".to_owned() };
    let header = row(title, POLICY_COLUMNS.map(str::to_owned).to_vec());
    let widths = [Constraint::Min(16)].into_iter().chain([CELL; POLICY_COLUMNS.len()]);
    Table::new(rows, widths).header(header.style(Style::new().bold().underlined()))
}

fn row(name: String, cells: Vec<String>) -> Row<'static> {
    let cells = cells.into_iter().map(|cell| Line::from(cell).right_aligned());
    Row::new([Line::from(name)].into_iter().chain(cells))
}

fn keys_table(screen: &Screen) -> Table<'static> {
    let over_us = screen.top.as_ref().map_or(0, |top| top.covers_us);
    let rows: Vec<Row> = screen
        .keys()
        .iter()
        .map(|key| {
            let [asked, denied] = [key.requests, key.denied].map(|count| per_second(count, over_us));
            let denied = Line::from(denied).right_aligned();
            Row::new([
                Line::from(asked).right_aligned(),
                if key.denied > 0 { denied.red() } else { denied },
                Line::from(policy_name(&key.domain, &key.policy)),
                Line::from(key_name(&key.key)),
            ])
        })
        .collect();
    let widths = [CELL, CELL, Constraint::Percentage(30), Constraint::Fill(1)];
    let what = match screen.by {
        By::Requests => "key: the hottest first",
        By::Denied => "key: the most denied first",
    };
    let header = Row::new([
        Line::from("asked/s").right_aligned(),
        Line::from("denied/s").right_aligned(),
        Line::from("domain/policy"),
        Line::from(what),
    ]);
    Table::new(rows, widths)
        .header(header.style(Style::new().bold().underlined()))
        .row_highlight_style(Style::new().reversed())
}

fn foot_line(screen: &Screen) -> Line<'static> {
    if let Some(of) = &screen.confirming {
        let name = policy_name(&of.domain, &of.policy);
        return Line::from(format!(
            "Fill the bucket of {} in {name}? y fills it, any other key does not",
            key_name(&of.key)
        ))
        .yellow()
        .bold();
    }
    if let Some(problem) = &screen.problem {
        return Line::from(Shown(problem).to_string()).red();
    }
    Line::from("q leave   r by requests   d by denials   ↑↓ choose   Enter its bucket   R fill it").dim()
}

fn draw_panel(frame: &mut Frame, panel: &Panel, within: Rect) {
    let [area] = Layout::horizontal([Constraint::Max(76)]).flex(Flex::Center).areas(within);
    let [area] = Layout::vertical([Constraint::Max(11)]).flex(Flex::Center).areas(area);
    let block = Block::bordered().title(" bucket ").title_bottom(" Esc closes, R fills ");
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    let [gauge, lines] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let text = match (panel.unfilled.as_ref().or(panel.problem.as_ref()), &panel.bucket) {
        (Some(problem), _) => vec![Line::from(Shown(problem).to_string()).red()],
        (None, None) => vec![Line::from(format!("{} …", key_name(&panel.of.key)))],
        (None, Some(bucket)) => {
            let held_to = bucket.r#override.as_ref().and_then(|of| of.limit).unwrap_or(bucket.limit);
            let percent = bucket.tokens.min(held_to.burst).saturating_mul(100) / held_to.burst.max(1);
            let label = format!("{} of {}", grouped(bucket.tokens), grouped(held_to.burst));
            let bar = Gauge::default().percent(u16::try_from(percent).unwrap_or(100)).label(label);
            frame.render_widget(bar, gauge);
            let line =
                |(name, value)| Line::from(vec![Span::from(format!("{name:<9} ")).dim(), Span::from(value)]);
            bucket_lines(bucket).into_iter().map(line).collect()
        }
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), lines);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode};
    use serde_json::json;

    use super::*;
    use crate::command::top::asker::Seen;

    fn screen() -> Screen {
        let counts =
            json!({"allowed": 900, "denied": 25, "failed": 0, "shadow_denied": 3, "repeats": 1_000_000});
        let latency = json!({"count": 9, "p50": 90, "p90": 200, "p99": 1_400, "max": 2_000});
        let limit = json!({"tokens": 60, "period_us": 60_000_000, "burst": 60});
        let policy = |number: usize| {
            json!({
                "domain": "shop", "policy": format!("policy-{number}"), "limits": [limit], "totals": counts,
                "last_10s": counts, "latency_us": latency,
            })
        };
        let stats = json!({
            "version": "0.1.0", "uptime_s": 100, "now_us": 1, "store": {"kind": "redis", "ready": false,
            "reason": "it is \u{1b}[2J gone"}, "connections": {"open": 3, "max": 1000}, "totals": counts,
            "last_10s": counts, "covers_us": 10_000_000, "latency_us": {"take": latency, "redis": latency}, "overrides": {"count": 2},
            "policies": (0..12).map(policy).collect::<Vec<_>>(),
        });
        let key = |key: &str, denied| json!({"domain": "shop", "policy": "a", "key": key, "requests": 70, "denied": denied});
        let top = json!({"covers_us": 7_000_000, "keys": [key("alice", 5), key("\u{202e}\u{1b}]0;x\u{7}", 0), key("", 1)]});
        let mut screen = Screen::new("127.0.0.1:9091".to_owned(), By::Requests);
        let (stats, top) = (serde_json::from_value(stats).unwrap(), serde_json::from_value(top).unwrap());
        screen.see(Ok(Seen { stats, top, by: By::Requests }));
        screen
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn all_of_it_is_seen_at_a_usual_size() {
        let seen = drawn(&screen(), 110, 30);
        for part in [
            "sluice 0.1.0 at 127.0.0.1:9091, up 1m 40s   redis NOT READY: it is \\u{1b}[2J gone",
            "takes: 99% within 2ms   Redis: 99% within 2ms   3 of 1,000 connections   overrides: 2",
            "domain/policy (and 4 more)",
            "shop/policy-7",
            "100,000",
            "        10        0.8 shop/a",
            "alice",
            "$'\\342\\200\\256\\033]0;x\\007'",
            "'' (one for all)",
        ] {
            assert!(seen.contains(part), "{part:?} in:\n{seen}");
        }
    }

    #[test]
    fn no_size_is_too_small() {
        let mut screen = screen();
        for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::Char('R')]] {
            for key in keys {
                screen.press((*key).into());
            }
            for (width, height) in [(1, 1), (1, 30), (110, 1), (20, 5), (3, 3), (300, 100)] {
                drawn(&screen, width, height);
            }
        }
    }
}
