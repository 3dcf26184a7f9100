//! `sluice top`: the busiest keys and how the policies do, once or as it happens.

mod asker;
mod draw;
mod screen;

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};

use super::{
    Format, TopArgs,
    ask::{Failed, Session, query, tell},
};
use crate::{admin_client::Ask, config::Args};
use asker::{Asker, look_at};
use screen::{Screen, Then};

/// How long a key that was pressed may wait at most while an answer is on its way.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(args: &TopArgs, serving: &Args) -> Result<(), Failed> {
    let session = Session::new(&args.asking, serving);
    let seen = io::stdout().is_terminal() && io::stdin().is_terminal();
    if args.asking.format == Format::Json {
        return session.print(&busiest(args, args.by.word()), |answer, to| tell::top(&answer.read()?, to));
    }
    let client = session.client()?;
    // What cannot be asked at all is told before the screen is taken.
    let first = look_at(&client, args, args.by)?;
    if args.once || !seen {
        let mut out = io::stdout().lock();
        tell::stats_lines(&first.stats, &mut out)?;
        writeln!(out)?;
        return tell::top(&first.top, &mut out);
    }
    let mut screen = Screen::new(client.at(), args.by);
    screen.see(Ok(first));
    let asker = Asker::start(client, args.clone());
    let mut terminal = ratatui::try_init()?;
    let outcome = live(&mut terminal, &mut screen, &asker);
    let restored = ratatui::try_restore();
    outcome?;
    Ok(restored?)
}

/// Until the person leaves.
fn live(terminal: &mut DefaultTerminal, screen: &mut Screen, asker: &Asker) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw::draw(frame, screen))?;
        loop {
            if event::poll(LOOK_EVERY)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => match screen.press(key) {
                        Then::Leave => return Ok(()),
                        Then::Ask(order) => asker.order(order),
                        Then::Draw => {}
                    },
                    _ => {}
                }
                break;
            }
            if asker.answers(screen) {
                break;
            }
        }
    }
}

/// What asks for the busiest keys.
fn busiest(args: &TopArgs, by: &str) -> Ask {
    let fields = [
        ("by", &Some(by.to_owned())),
        ("limit", &Some(args.limit.to_string())),
        ("window_s", &Some(args.window.to_string())),
        ("domain", &args.domain),
        ("policy", &args.policy),
    ];
    Ask::get(format!("/v1/top{}", query(fields)))
}
