//! What `sluice top` shows, and what each key on the keyboard does: without a terminal and without a sidecar.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::asker::{Order, Seen};
use crate::{
    admin_client::{
        AskError,
        answers::{Bucket, Stats, Top, TopKey},
    },
    command::By,
};

/// All that is seen.
#[derive(Debug)]
pub(super) struct Screen {
    /// Where the sidecar is asked.
    pub(super) at: String,
    pub(super) by: By,
    pub(super) stats: Option<Stats>,
    pub(super) top: Option<Top>,
    /// Why there is nothing newer.
    pub(super) problem: Option<String>,
    /// The key that is chosen: it stays chosen where it moves in the list.
    chosen: Option<TopKey>,
    pub(super) panel: Option<Panel>,
    /// Whose bucket is filled if the person says yes.
    pub(super) confirming: Option<TopKey>,
}

/// A bucket that is watched.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) of: TopKey,
    pub(super) bucket: Option<Bucket>,
    pub(super) problem: Option<String>,
    /// Why it was not filled, until the next key.
    pub(super) unfilled: Option<String>,
}

/// What follows a key that was pressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    Leave,
    Ask(Order),
    Draw,
}

impl Screen {
    pub(super) fn new(at: String, by: By) -> Self {
        let (stats, top, problem, chosen, panel, confirming) = (None, None, None, None, None, None);
        Self { at, by, stats, top, problem, chosen, panel, confirming }
    }

    /// What was told; what was asked for before the person wanted another order is too late.
    pub(super) fn see(&mut self, seen: Result<Seen, AskError>) {
        match seen {
            Ok(seen) if seen.by != self.by => {}
            Ok(seen) => {
                (self.stats, self.top, self.problem) = (Some(seen.stats), Some(seen.top), None);
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    pub(super) fn see_bucket(&mut self, told: Result<Bucket, AskError>) {
        let Some(panel) = &mut self.panel else { return };
        match told {
            Ok(bucket) if is_of(&bucket, &panel.of) => (panel.bucket, panel.problem) = (Some(bucket), None),
            // That of a panel before this one.
            Ok(_) => {}
            Err(error) => panel.problem = Some(error.to_string()),
        }
    }

    pub(super) fn see_reset(&mut self, told: Result<Bucket, AskError>) {
        match (told, &mut self.panel) {
            (Err(error), Some(panel)) => panel.unfilled = Some(error.to_string()),
            (told, _) => self.see_bucket(told),
        }
    }

    pub(super) fn keys(&self) -> &[TopKey] {
        self.top.as_ref().map_or(&[], |top| &top.keys)
    }

    /// The place of the chosen key; the first where none was chosen, or where it is gone.
    pub(super) fn chosen_row(&self) -> Option<usize> {
        let is_chosen = |key: &TopKey| self.chosen.as_ref().is_some_and(|chosen| is_same(chosen, key));
        self.keys().iter().position(is_chosen).or_else(|| (!self.keys().is_empty()).then_some(0))
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Then {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Then::Leave;
        }
        if let Some(panel) = &mut self.panel {
            panel.unfilled = None;
        }
        if let Some(of) = self.confirming.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => {
                    // What comes of it is seen there.
                    self.open(of.clone());
                    Then::Ask(Order::Reset(of))
                }
                _ => Then::Draw,
            };
        }
        match key.code {
            KeyCode::Char('q') => Then::Leave,
            KeyCode::Esc if self.panel.is_none() => Then::Leave,
            KeyCode::Esc => {
                self.panel = None;
                Then::Ask(Order::Unwatch)
            }
            KeyCode::Tab => self.order_by(if self.by == By::Denied { By::Requests } else { By::Denied }),
            KeyCode::Char('r') => self.order_by(By::Requests),
            KeyCode::Char('d') => self.order_by(By::Denied),
            KeyCode::Up | KeyCode::Char('k') => self.choose(|row| row.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(|row| row + 1),
            KeyCode::Home => self.choose(|_| 0),
            KeyCode::End => self.choose(|_| usize::MAX),
            KeyCode::Enter => match self.under_hand() {
                Some(of) => {
                    self.open(of.clone());
                    Then::Ask(Order::Watch(of))
                }
                None => Then::Draw,
            },
            KeyCode::Char('R') => {
                self.confirming =
                    self.panel.as_ref().map(|panel| panel.of.clone()).or_else(|| self.under_hand());
                Then::Draw
            }
            _ => Then::Draw,
        }
    }

    fn open(&mut self, of: TopKey) {
        if !self.panel.as_ref().is_some_and(|panel| is_same(&panel.of, &of)) {
            self.panel = Some(Panel { of, bucket: None, problem: None, unfilled: None });
        }
    }

    fn order_by(&mut self, by: By) -> Then {
        if by == self.by {
            return Then::Draw;
        }
        self.by = by;
        // Until the others are there.
        self.top = None;
        Then::Ask(Order::By(by))
    }

    fn choose(&mut self, other: impl Fn(usize) -> usize) -> Then {
        if let Some(row) = self.chosen_row() {
            self.chosen = self.keys().get(other(row).min(self.keys().len() - 1)).cloned();
        }
        Then::Draw
    }

    fn under_hand(&self) -> Option<TopKey> {
        self.chosen_row().and_then(|row| self.keys().get(row)).cloned()
    }
}

fn is_same(one: &TopKey, other: &TopKey) -> bool {
    (&one.domain, &one.policy, &one.key) == (&other.domain, &other.policy, &other.key)
}

fn is_of(bucket: &Bucket, key: &TopKey) -> bool {
    (&bucket.domain, &bucket.policy, &bucket.key) == (&key.domain, &key.policy, &key.key)
}
