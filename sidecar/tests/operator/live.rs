//! `sluice top` in a terminal: what is on its screen, what its keys do, and how it leaves.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::{HOSTILE, Operated, SLUICE, support::wait_for};

const ROWS: NonZero<u16> = NonZero::new(30).expect("some");

/// A terminal with `sluice top` in it.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
    slave: OwnedFd,
    reader: JoinHandle<()>,
    read_enough: Arc<AtomicBool>,
}

impl Terminal {
    fn start(of: &Operated, words: &[&str], columns: u16) -> Self {
        let columns = NonZero::new(columns).expect("some");
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave =
            rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).expect("opened");
        let size = Winsize { ws_row: ROWS.get(), ws_col: columns.get(), ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).expect("a size");
        let own = || Stdio::from(slave.try_clone().expect("one more"));
        let mut command = Command::new(SLUICE);
        command.env_clear().args(["top", "--admin", &of.admin]).args(words);
        let child = command.stdin(own()).stdout(own()).stderr(own()).spawn().expect("it runs");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, columns, 0)));
        let mut output = File::from(master.try_clone().expect("one more"));
        let seen = Arc::clone(&screen);
        let read_enough = Arc::new(AtomicBool::new(false));
        let enough = Arc::clone(&read_enough);
        // It ends with the terminal.
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                seen.lock().expect("whole").process(&piece[..count]);
                if enough.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self { child, keyboard: File::from(master), screen, slave, reader, read_enough }
    }

    fn contents(&self) -> String {
        self.screen.lock().expect("whole").screen().contents()
    }

    /// Waits until the screen is as wanted; what is on it.
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        wait_for(what, || Some(self.contents()).filter(|contents| is(contents)))
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("pressed");
    }

    /// Closes the other side of the terminal, which only this process has, and waits until it ends.
    fn hang_up(mut self) -> ExitStatus {
        self.read_enough.store(true, Ordering::Relaxed);
        // Whatever is drawn now is the last that is read.
        self.press("d");
        self.reader.join().expect("read");
        drop(self.keyboard);
        self.child.wait().expect("it ends")
    }

    /// Waits until it has left, with 0, and the terminal is as it was.
    fn assert_left(self) {
        self.assert_left_with(0);
    }

    fn assert_left_with(mut self, code: i32) {
        assert_eq!(self.child.wait().expect("it ends").code(), Some(code));
        wait_for("the screen from before", || {
            let screen = self.screen.lock().expect("whole");
            (!screen.screen().alternate_screen() && !screen.screen().hide_cursor()).then_some(())
        });
        let modes = tcgetattr(self.slave.as_fd()).expect("modes").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
    }
}

/// The row of a key, by what is in it.
fn row<'a>(contents: &'a str, key: &str) -> Option<&'a str> {
    contents.lines().find(|line| line.contains("shop/per-client") && line.contains(key))
}

#[test]
fn keys_are_seen_chosen_and_filled_and_the_terminal_is_as_before() {
    let of = Operated::start(&[]);
    of.take(HOSTILE, 30);
    of.take("alice", 9);
    let mut top = Terminal::start(&of, &["--window", "60"], 110);
    let first = top.until("both keys", |seen| row(seen, "alice").is_some() && seen.contains("evil"));
    assert!(first.contains("$'\\033[2J") && first.contains("memory ready"), "{first}");
    assert!(row(&first, "evil").expect("a row").len() > 20, "{first}");

    top.press("\u{1b}[B\r");
    top.until("alice's bucket", |seen| seen.contains("0 of 5") && seen.contains("key       alice"));
    top.press("R");
    top.until("the question", |seen| seen.contains("Fill the bucket of alice in shop/per-client?"));
    top.press("n");
    top.until("no question", |seen| !seen.contains("Fill the bucket"));
    top.press("R");
    top.until("the question again", |seen| seen.contains("Fill the bucket of alice"));
    top.press("y");
    top.until("a full bucket", |seen| seen.contains("5 of 5") && seen.contains("full      now"));
    assert!(of.tell(&["get", "alice", "-p", "per-client"]).contains("\ntokens    5\n"));
    of.take("alice", 2);
    top.until("what was taken", |seen| seen.contains("3 of 5"));

    top.press("d");
    top.until("the order by denials", |seen| seen.contains("the most denied first"));
    of.take("bob", 50);
    top.until("somebody new", |seen| row(seen, "bob").is_some());
    top.press("q");
    top.assert_left();
}

#[test]
fn a_bucket_that_was_filled_from_the_list_is_watched() {
    let of = Operated::start(&[]);
    of.take("alice", 9);
    let mut top = Terminal::start(&of, &["--window", "60"], 110);
    top.until("alice", |seen| row(seen, "alice").is_some());
    top.press("Ry");
    top.until("a full bucket", |seen| seen.contains("5 of 5") && seen.contains("full      now"));
    of.take("alice", 3);
    top.until("what was taken", |seen| seen.contains("2 of 5"));
    top.press("q");
    top.assert_left();
}

#[test]
fn a_sidecar_that_ends_is_told_and_keeps_nobody_from_leaving() {
    let mut of = Operated::start(&["--shutdown-delay", "0s"]);
    of.take("alice", 1);
    let mut top = Terminal::start(&of, &["--by", "requests"], 80);
    top.until("alice", |seen| row(seen, "alice").is_some());
    of.sluice.terminate();
    of.sluice.wait();
    top.until("why nothing is newer", |seen| seen.contains("no sidecar answers at"));
    // Control-C, as a terminal in its raw mode sends it.
    top.press("\u{3}");
    top.assert_left();
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_as_before() {
    let of = Operated::start(&[]);
    of.take("alice", 1);
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let top = Terminal::start(&of, &[], 80);
        top.until("alice", |seen| row(seen, "alice").is_some());
        kill_process(Pid::from_child(&top.child), signal).expect("sent");
        top.assert_left_with(code);
    }
}

#[test]
fn it_ends_with_its_terminal_though_no_signal_tells_it() {
    let of = Operated::start(&[]);
    of.take("alice", 1);
    // It is in no session of this terminal, so that nothing sends it SIGHUP.
    let top = Terminal::start(&of, &[], 80);
    top.until("alice", |seen| row(seen, "alice").is_some());
    assert_eq!(top.hang_up().code(), Some(1));
}
