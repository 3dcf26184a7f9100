//! `sluice top`: the busiest keys and how the policies do, once or as it happens.

mod asker;
mod draw;
mod screen;

use std::{
    io::{self, IsTerminal, Write},
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use rustix::termios::tcgetattr;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

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
    let end = End::hear()?;
    let mut terminal = ratatui::try_init()?;
    let outcome = live(&mut terminal, &mut screen, &asker, &end);
    let restored = ratatui::try_restore();
    if restored.is_err() {
        // What it does where it is dropped panics on a terminal that has gone.
        mem::forget(terminal);
    }
    outcome?;
    Ok(restored?)
}

/// Until the person leaves, or the terminal or a signal does not let them stay.
fn live(terminal: &mut DefaultTerminal, screen: &mut Screen, asker: &Asker, end: &End) -> Result<(), Failed> {
    let events = events();
    loop {
        terminal.draw(|frame| draw::draw(frame, screen))?;
        loop {
            end.check()?;
            match events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => match screen.press(key) {
                    Then::Leave => return Ok(()),
                    Then::Ask(order) => asker.order(order),
                    Then::Draw => {}
                },
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if asker.answers(screen) => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("no keyboard").into()),
            }
            break;
        }
    }
}

/// What happens at the terminal. It is read apart, since reading from one that has gone never returns.
fn events() -> Receiver<Event> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(event) = event::read()
            && tell.send(event).is_ok()
        {}
    });
    told
}

/// What ends it besides a key: each leaves the terminal as it was.
struct End {
    /// The number of the signal that came, or none.
    signal: Arc<AtomicUsize>,
}

impl End {
    /// From now on these signals end nothing by themselves.
    fn hear() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for (number, name) in [(SIGHUP, 1), (SIGINT, 2), (SIGTERM, 15)] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), name)?;
        }
        Ok(Self { signal })
    }

    /// Fails once a signal has come or the terminal has gone, of which a process that no signal reaches hears nothing else.
    fn check(&self) -> Result<(), Failed> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(tcgetattr(io::stdin()).map(drop).map_err(io::Error::from)?),
            number => Err(Failed::Signalled(u8::try_from(number).unwrap_or(u8::MAX))),
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
