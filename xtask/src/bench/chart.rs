//! Horizontal bars as SVG: a line for each thing that is measured, with its name on the left.
//!
//! The page that shows a chart may be light or dark, and an image cannot know which: there is no background, and every
//! colour stands out from both.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::Failure;

/// Bars in groups, or one bar of several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A bar for each figure, one below the other.
    Grouped,
    /// One bar, its parts end to end, with their sum behind it.
    Stacked,
}

/// What a chart shows.
pub struct Chart<'a> {
    /// Above it.
    pub title: &'a str,
    /// How the figures of one line are laid out.
    pub layout: Layout,
    /// What each figure of a line is of.
    pub legend: Vec<String>,
    /// Each with its name and its figures, as many as the legend has.
    pub lines: Vec<(String, Vec<f64>)>,
    /// How a figure is written behind its bar.
    pub written: fn(f64) -> String,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: i32 = 900;
const LEFT: i32 = 200;
const RIGHT: i32 = 90;
const TOP: i32 = 72;
const BAR: i32 = 12;
const STACKED_BAR: i32 = 18;
const GAP: i32 = 9;

const TEXT: RGBColor = RGBColor(0x7d, 0x83, 0x8c);
/// Apart for those who see few colours, and with a contrast of at least 3 to white and to black.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x2f, 0x81, 0xc4),
    RGBColor(0xd0, 0x6a, 0x1c),
    RGBColor(0x1d, 0x96, 0x70),
    RGBColor(0xb8, 0x5c, 0x9e),
];

impl Chart<'_> {
    /// The chart as the text of an SVG file.
    pub fn svg(&self) -> Result<String, Failure> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|error| format!("could not draw {}: {error}", self.title))?;
        Ok(text + "\n")
    }

    fn draw(&self, into: &mut String) -> Result<(), Failure> {
        let (bars, bar) = match self.layout {
            Layout::Grouped => (i32::try_from(self.legend.len())?, BAR),
            Layout::Stacked => (1, STACKED_BAR),
        };
        let pitch = bars * bar + GAP;
        let height = TOP + pitch * i32::try_from(self.lines.len())? + GAP;
        let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
        let area = SVGBackend::with_string(into, size).into_drawing_area();

        words(&area, self.title, (GAP, 20), 20, HPos::Left)?;
        let mut right = GAP;
        for (name, colour) in self.legend.iter().zip(COLOURS) {
            area.draw(&Rectangle::new([(right, 43), (right + 12, 55)], colour.filled()))?;
            words(&area, name, (right + 18, 49), 15, HPos::Left)?;
            right += 44 + 8 * i32::try_from(name.chars().count())?;
        }

        let longest =
            self.lines.iter().map(|(_, figures)| self.length(figures)).fold(f64::MIN_POSITIVE, f64::max);
        let pixels = |figure: f64| (figure / longest * f64::from(WIDTH - LEFT - RIGHT)).round() as i32;
        for ((name, figures), number) in self.lines.iter().zip(0..) {
            let top = TOP + number * pitch;
            words(&area, name, (LEFT - 8, top + bars * bar / 2), 15, HPos::Right)?;
            let mut before = 0.0;
            for ((figure, colour), place) in figures.iter().zip(COLOURS).zip(0..) {
                let (y, from) = match self.layout {
                    Layout::Grouped => (top + place * bar, 0.0),
                    Layout::Stacked => (top, before),
                };
                let corners = [(LEFT + pixels(from), y), (LEFT + pixels(from + figure), y + bar - 1)];
                area.draw(&Rectangle::new(corners, colour.filled()))?;
                before += figure;
                if self.layout == Layout::Grouped {
                    let end = LEFT + pixels(*figure) + 5;
                    words(&area, &(self.written)(*figure), (end, y + bar / 2), 13, HPos::Left)?;
                }
            }
            if self.layout == Layout::Stacked {
                let end = LEFT + pixels(before) + 6;
                words(&area, &(self.written)(before), (end, top + bar / 2), 15, HPos::Left)?;
            }
        }
        area.present()?;
        Ok(())
    }

    fn length(&self, figures: &[f64]) -> f64 {
        match self.layout {
            Layout::Grouped => figures.iter().copied().fold(0.0, f64::max),
            Layout::Stacked => figures.iter().sum(),
        }
    }
}

fn words(area: &Area<'_>, text: &str, at: (i32, i32), size: u32, side: HPos) -> Result<(), Failure> {
    let style = ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}
