//! The program as an operator meets it: its exit codes and what it says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

fn sluice(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear().args(arguments).envs(environment.iter().copied());
    command.output().expect("the program runs")
}

/// It exits with `code` and says all of `words`; what it said.
fn assert_exit(output: &Output, code: i32, words: &[&str]) -> String {
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    said
}

#[test]
fn help_and_version_are_no_errors() {
    let words = ["--listen", "SLUICE_LISTEN", "REDIS_URL", "Exit codes", "64", "/readyz", "40ms"];
    let secret = [("REDIS_URL", "redis://:hunter2@redis.internal")];
    let said = assert_exit(&sluice(&["--help"], &secret), 0, &words);
    assert!(!said.contains("hunter2"), "the help shows a password");
    assert_exit(&sluice(&["--version"], &[]), 0, &["sluice 0."]);
}

#[test]
fn a_wrong_configuration_ends_with_64_and_says_what_would_be_right() {
    let wrong: &[(&[&str], &[&str])] = &[
        (&["--lisen", "127.0.0.1:0"], &["--lisen", "--listen"]),
        (&["--listen", "localhost"], &["--listen", "\"localhost\"", "127.0.0.1:9090"]),
        (&["--listen", "127.0.0.1:0,unix:"], &["\"unix:\""]),
        (&["--redis-timeout", "50"], &["--redis-timeout", "\"50\"", "50ms"]),
        (&["--shutdown-grace", "0s"], &["--shutdown-grace", "above zero"]),
        (&["--memory-max-buckets", "0"], &["--memory-max-buckets", "above zero"]),
        (&["--max-body-bytes", "many"], &["--max-body-bytes", "many"]),
        (&["--log", "sluice=loud"], &["--log", "sluice=loud", "info"]),
        (&["--log-format", "xml"], &["--log-format", "text", "json"]),
        (&["--redis-url", "http://redis"], &["--redis-url", "\"http\"", "redis://"]),
        (&["--redis-url", "rediss://redis"], &["--redis-url", "TLS"]),
    ];
    for (arguments, words) in wrong {
        assert_exit(&sluice(arguments, &[]), 64, words);
    }
}

#[test]
fn nobody_to_tell_is_no_reason_to_crash() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let full =
        || std::fs::File::options().write(true).open("/dev/full").expect("a device that is always full");
    command.env_clear().args(["--listen", "nonsense"]).stderr(full());
    assert_eq!(command.status().expect("it runs").code(), Some(64));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear().arg("schema").stdout(full()).stderr(full());
    assert_eq!(command.status().expect("it runs").code(), Some(1));
}

#[test]
fn an_empty_redis_url_is_not_taken_for_none() {
    assert_exit(&sluice(&[], &[("REDIS_URL", "")]), 64, &["REDIS_URL", "it is empty"]);
}

#[test]
fn a_wrong_redis_url_does_not_leak_its_password() {
    for url in
        ["redis://shop:hunter2@redis:port", "http://shop:hunter2@redis", "redis://shop:hunter2@redis/base"]
    {
        let said = assert_exit(&sluice(&[], &[("REDIS_URL", url)]), 64, &["REDIS_URL", "redis://[user"]);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_port_in_use_ends_with_1_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    assert_exit(&sluice(&["--listen", &address], &[]), 1, &[&address, "another process listens there"]);
}

/// A sidecar that runs, and its log.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Running {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .env_clear()
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut running = Self { child, log, address: String::new() };
        let line: serde_json::Value =
            serde_json::from_str(&running.wait_for_line("listening")).expect("JSON");
        running.address = line["address"].as_str().expect("the address is logged").to_owned();
        running
    }

    /// Reads the log up to a line that holds `words`.
    fn wait_for_line(&mut self, words: &str) -> String {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.log.read_line(&mut line).expect("a line") > 0, "it ended before {words:?}");
        }
        line
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sigterm_ends_it_with_0() {
    let mut sluice = Running::start();
    sluice.terminate();
    sluice.wait_for_line("every request that was under way was answered");
    assert_eq!(sluice.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut sluice = Running::start();
    let mut client = TcpStream::connect(&sluice.address).expect("connected");
    let head = b"POST /v1/take HTTP/1.1\r\nhost: sluice\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    client.write_all(head).expect("sent");
    client.read_exact(&mut [0; 25]).expect("asked for the body, so the request is under way");
    sluice.terminate();
    sluice.wait_for_line("stopping");
    sluice.terminate();
    sluice.wait_for_line("second signal");
    assert_eq!(sluice.child.wait().expect("it ends").code(), Some(1));
}

#[test]
fn health_tells_whether_a_sidecar_is_ready() {
    let running = Running::start();
    assert_exit(&sluice(&["--listen", &running.address, "health"], &[]), 0, &[]);
    let address = running.address.clone();
    drop(running);
    assert_exit(&sluice(&["--listen", &address, "health"], &[]), 1, &["no answer"]);
}
