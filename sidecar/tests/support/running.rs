//! The program itself, and what it answers to a client that speaks plain HTTP/1.1.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Stdio},
};

use super::DEADLINE;

/// A sidecar that runs, and its log. It is ended when this is dropped.
pub struct Running {
    pub child: Child,
    log: Option<BufReader<ChildStderr>>,
    /// What was logged so far, until the log was given away.
    pub logged: String,
    pub address: String,
    /// Where operators ask.
    pub admin: String,
}

impl Running {
    /// Starts one on free ports, which ends without a delay.
    pub fn start() -> Self {
        Self::start_with(&["--shutdown-delay", "0s"])
    }

    /// Starts one on free ports with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[])
    }

    /// The same in an environment.
    pub fn start_in(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_sluice")), arguments, environment)
    }

    /// The same after what a shell does first, such as to lower its limits.
    pub fn start_after(shell: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{shell} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sluice")]);
        Self::spawn(command, arguments, &[])
    }

    fn spawn(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command
            .env_clear()
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(if arguments.contains(&"--admin-listen") {
                &[][..]
            } else {
                &["--admin-listen", "127.0.0.1:0"]
            })
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let log = child.stderr.take().map(BufReader::new);
        let mut running =
            Self { child, log, logged: String::new(), address: String::new(), admin: String::new() };
        if !arguments.windows(2).any(|pair| pair == ["--admin-listen", "off"]) {
            running.admin = running.wait_for_address("operators may ask");
        }
        running.address = running.wait_for_address("listening");
        running
    }

    fn wait_for_address(&mut self, words: &str) -> String {
        let line: serde_json::Value = serde_json::from_str(&self.wait_for_line(words)).expect("JSON");
        line["address"].as_str().expect("the address is logged").to_owned()
    }

    /// Reads the log up to a line that holds `words`.
    pub fn wait_for_line(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            let log = self.log.as_mut().expect("the log was not given away");
            assert!(log.read_line(&mut line).expect("a line") > 0, "it ended before {words:?}");
            self.logged.push_str(&line);
        }
        line
    }

    /// What is logged from here on, for a thread that reads it.
    pub fn take_log(&mut self) -> BufReader<ChildStderr> {
        self.log.take().expect("the log was not given away")
    }

    /// Its exit code, once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// The most memory that it had so far, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs").success());
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

/// What is answered to a `GET`, whole.
pub fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
}

/// What is answered to a request that ends the connection, up to its end.
pub fn ask(address: &str, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and the end");
    answer
}

/// Sends a request over a connection that stays open, and reads its answer, which has a declared length.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> String {
    stream.write_all(request).expect("sent");
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "it ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() >= length.parse().expect("a number") {
            return text.into_owned();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
