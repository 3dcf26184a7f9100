//! The program as an operator meets it: its exit codes and what it says.

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    time::Duration,
};

use support::running::{Running, exchange, get};

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
        (&["--max-connections", "0"], &["--max-connections", "above zero"]),
        (&["--admin-listen", "nowhere"], &["--admin-listen", "\"nowhere\"", "127.0.0.1:9090"]),
        (&["--admin-listen", "0.0.0.0:0"], &["--admin-token-file", "SLUICE_ADMIN_TOKEN", "there is none"]),
        (&["--admin-token-file", "/nowhere"], &["--admin-token-file", "/nowhere cannot be read"]),
        (&["--admin-token-file", "/dev/null"], &["--admin-token-file", "shorter than 16", "openssl"]),
        (&["--socket-mode", "0666"], &["--socket-mode", "every user", "660"]),
        (&["--socket-mode", "440"], &["--socket-mode", "owner"]),
        (&["--socket-mode", "rw-"], &["--socket-mode", "octal"]),
        (&["--tls-cert", "cert.pem"], &["--tls-key", "no key"]),
        (&["--tls-client-ca", "ca.pem"], &["--tls-cert", "together"]),
        (&["--shutdown-delay", "3"], &["--shutdown-delay", "\"3\"", "0s"]),
        (&["--shutdown-grace", "0s"], &["--shutdown-grace", "above zero"]),
        (&["--memory-max-buckets", "0"], &["--memory-max-buckets", "above zero"]),
        (&["--max-body-bytes", "many"], &["--max-body-bytes", "many"]),
        (&["--log", "sluice=loud"], &["--log", "sluice=loud", "info"]),
        (&["--log-format", "xml"], &["--log-format", "text", "json"]),
        (&["--redis-url", "http://redis"], &["--redis-url", "\"http\"", "redis://"]),
        (&["--redis-url", "rediss://redis#insecure"], &["--redis-url", "--redis-ca"]),
        (
            &["--redis-url", "rediss://redis", "--redis-ca", "/nowhere"],
            &["--redis-ca", "/nowhere cannot be read"],
        ),
        (&["--redis-url", "redis://redis", "--redis-ca", "/nowhere"], &["--redis-url", "Write rediss://"]),
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
    let said =
        assert_exit(&sluice(&["--listen", &address], &[]), 1, &[&address, "another process listens there"]);
    assert!(said.contains("--listen") && !said.contains("--admin-listen"), "{said}");
    let arguments = ["--listen", "127.0.0.1:0", "--admin-listen", &address];
    let words = [&address, "another process listens there", "--admin-listen off"];
    assert_exit(&sluice(&arguments, &[]), 1, &words);
}

#[test]
fn sigterm_ends_it_with_0() {
    let mut sluice = Running::start();
    sluice.terminate();
    sluice.wait_for_line("every request that was under way was answered");
    assert_eq!(sluice.wait(), Some(0));
}

#[test]
fn sigterm_makes_it_leave_first() {
    let mut sluice = Running::start_with(&["--shutdown-delay", "2s"]);
    let mut kept = TcpStream::connect(&sluice.address).expect("connected");
    let healthz = "GET /healthz HTTP/1.1\r\nhost: sluice\r\n\r\n";
    let before = exchange(&mut kept, healthz.as_bytes());
    assert!(before.starts_with("HTTP/1.1 200") && !before.contains("connection: close"), "{before}");
    sluice.terminate();
    sluice.wait_for_line("leaving");
    let unready = get(&sluice.address, "/readyz");
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("\"code\":\"stopping\""), "{unready}");
    let take = include_str!("../../contract/golden/take-request.json");
    let head =
        format!("POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: {}\r\n\r\n{take}", take.len());
    let decided = exchange(&mut kept, head.as_bytes());
    assert!(decided.starts_with("HTTP/1.1 200") && decided.contains("\"remaining\":59"), "{decided}");
    assert!(decided.contains("connection: close"), "the next request goes elsewhere: {decided}");
    assert!(get(&sluice.address, "/healthz").starts_with("HTTP/1.1 200"), "others may still come");
    assert!(get(&sluice.admin, "/v1/status").contains("\"stopping\":true"));
    sluice.wait_for_line("every request that was under way was answered");
    assert_eq!(sluice.wait(), Some(0));
}

#[test]
fn sigint_does_not_wait_for_that() {
    let mut sluice = Running::start_with(&["--shutdown-delay", "1h"]);
    sluice.signal("INT");
    sluice.wait_for_line("every request that was under way was answered");
    assert_eq!(sluice.wait(), Some(0));
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
    assert_eq!(sluice.wait(), Some(1));
}

/// As many connections as are answered while all before them stay open, of so many.
fn answered(sluice: &Running, of: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(&sluice.address).ok()?;
        stream.set_read_timeout(Some(support::DEADLINE)).expect("a timeout");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: sluice\r\n\r\n").ok()?;
        stream.read_exact(&mut [0; 12]).ok().map(|()| stream)
    };
    (0..of).map_while(open).collect()
}

#[test]
fn more_connections_fit_in_than_files_may_usually_be_open() {
    let sluice = Running::start_after("ulimit -S -n 64", &["--max-connections", "150"]);
    assert_eq!(answered(&sluice, 150).len(), 150);
}

#[test]
fn where_too_few_files_may_be_open_connections_are_refused_and_not_all_else() {
    let mut sluice = Running::start_after("ulimit -n 256", &["--max-connections", "300"]);
    let held = answered(&sluice, 60);
    assert_eq!(held.len(), 56);
    assert!(get(&sluice.admin, "/v1/status").contains("\"max\":56"), "an operator is let in");
    drop(held);
    sluice.terminate();
    let mut log = String::new();
    sluice.take_log().read_to_string(&mut log).expect("UTF-8");
    assert!(!log.contains("cannot accept connections"), "{log}");

    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 100 && exec \"$0\"", env!("CARGO_BIN_EXE_sluice")]).env_clear();
    let words = ["100 files", "1200 for 1,000 connections", "LimitNOFILE"];
    assert_exit(&command.output().expect("it runs"), 1, &words);
}

#[test]
fn an_empty_token_is_none() {
    let sluice = Running::start_in(&[], &[("SLUICE_ADMIN_TOKEN", "")]);
    assert!(get(&sluice.admin, "/v1/status").starts_with("HTTP/1.1 200"), "from this machine");
    let words = ["--admin-token-file", "there is none"];
    let elsewhere = ["--admin-listen", "0.0.0.0:0"];
    assert_exit(&self::sluice(&elsewhere, &[("SLUICE_ADMIN_TOKEN", "")]), 64, &words);
}

#[test]
fn health_tells_whether_a_sidecar_is_ready() {
    let running = Running::start();
    assert_exit(&sluice(&["--listen", &running.address, "health"], &[]), 0, &[]);
    let address = running.address.clone();
    drop(running);
    assert_exit(&sluice(&["--listen", &address, "health"], &[]), 1, &["no answer"]);
}

#[test]
fn health_waits_for_no_answer_that_comes_byte_by_byte() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let slow = std::thread::spawn(move || {
        let mut stream = listener.accept().expect("asked").0;
        let answer = "HTTP/1.1 200 OK\r\nx-sluice-contract: 1\r\nconnection: close\r\n\r\n{}";
        // A whole one, were it waited for; until the other side is gone.
        for byte in answer.bytes() {
            std::thread::sleep(Duration::from_millis(100));
            if std::io::Write::write_all(&mut stream, &[byte]).is_err() {
                return;
            }
        }
    });
    assert_exit(&sluice(&["--listen", &address, "health"], &[]), 1, &["no answer: not within 2s"]);
    slow.join().expect("it answered");
}

fn redis(arguments: &[&str]) -> (fleet::Redis, fleet::RunDir) {
    let run = fleet::RunDir::new().expect("a directory");
    let program = fleet::tools::redis_server().expect("redis-server is there");
    (fleet::Redis::start(&program, &run, arguments).expect("Redis starts"), run)
}

#[test]
fn a_redis_that_hesitates_is_told_from_one_that_is_lost_and_its_evictions_once() {
    let (redis, _run) = redis(&["--maxmemory-policy", "allkeys-lru"]);
    let url = redis.url();
    let arguments = ["--shutdown-delay", "0s", "--redis-timeout", "1s", "--redis-url", &url];
    let mut sluice = Running::start_with(&arguments);
    assert!(sluice.logged.contains("connected to Redis"), "{}", sluice.logged);
    // Longer than its timeout, and shorter than a silence: a probe is sent each second.
    redis.command(&["CLIENT", "PAUSE", "2500"]).expect("paused");
    let late = sluice.wait_for_line("\"WARN\"");
    assert!(late.contains("Redis is late; takes fail until it answers a probe in time"), "{late}");
    sluice.wait_for_line("Redis can be used again, over the same connection");
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).expect("killed");
    sluice.wait_for_line("Redis cannot be used");
    sluice.wait_for_line("connected to Redis");
    assert_eq!(sluice.logged.matches("Redis may evict buckets").count(), 1, "{}", sluice.logged);
}

/// Compose passes on an empty variable where one is not set.
#[test]
fn an_empty_password_is_none() {
    let (redis, _run) = redis(&[]);
    redis.command(&["CONFIG", "SET", "requirepass", "s3cret"]).expect("set");
    let url = format!("redis://:s3cret@{}", redis.addr());
    let environment =
        [("REDIS_URL", url.as_str()), ("SLUICE_REDIS_PASSWORD", ""), ("SLUICE_REDIS_SENTINEL_AUTH", "")];
    let sluice = Running::start_in(&["--shutdown-delay", "0s"], &environment);
    let answer = get(&sluice.address, "/readyz");
    assert!(answer.contains("200 OK"), "{answer}");
}

#[test]
fn what_operators_may_ask_is_told_as_openapi() {
    let sluice = Running::start();
    let answer = get(&sluice.admin, "/v1/openapi.json");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(document["openapi"].as_str().and_then(|version| version.split('.').next()), Some("3"));
    assert!(document["paths"]["/v1/status"]["get"]["responses"]["200"].is_object(), "{document}");
}
