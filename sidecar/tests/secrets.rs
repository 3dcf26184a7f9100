//! What no log line, error, help text, page or answer may tell, whatever fails.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use support::{
    certificates::{Authority, Directory},
    free_port,
    running::{Running, ask, get},
};

const PASSWORD: &str = "hunter2-the-password";
const TOKEN: &str = "open-sesame-the-token";

fn assert_untold(place: &str, said: &str) {
    for secret in [PASSWORD, TOKEN, "PRIVATE KEY"] {
        assert!(!said.contains(secret), "{place} tells {secret}: {said}");
    }
}

/// A Redis that is not there is connected to again and again, requests fail, and tokens are right and wrong.
#[test]
fn no_secret_is_told() {
    let files = Directory::new("secrets");
    let server = Authority::new().server("sluice");
    let redis = format!("redis://shop:{PASSWORD}@127.0.0.1:{}", free_port());
    let environment = [("REDIS_URL", redis.as_str()), ("SLUICE_ADMIN_TOKEN", TOKEN), ("SLUICE_LOG", "trace")];
    // Some receivers of spans have a token in their path. Nobody listens at this one.
    let receiver = format!("http://127.0.0.1:{}/ingest/{TOKEN}", free_port());
    let arguments = ["--shutdown-delay", "0s", "--otlp-endpoint", receiver.as_str()];
    let mut sluice = Running::start_in(&arguments, &environment);
    let mut log = sluice.take_log();
    // Unread, it would hold the sidecar up.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("UTF-8");
        text
    });
    let take = include_str!("../../contract/golden/take-request.json");
    let authorized = |token: &str, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        ask(&sluice.admin, &format!("{head}authorization: Bearer {token}\r\n\r\n"))
    };
    let traceparent =
        "\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\"buckets\": [";
    let take = take.replacen("\"buckets\": [", traceparent, 1);
    let length = take.len();
    let answers = [
        get(&sluice.address, "/readyz"),
        get(&sluice.address, "/nowhere"),
        ask(
            &sluice.address,
            &format!(
                "POST /v1/take HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{take}"
            ),
        ),
        get(&sluice.admin, "/v1/status"),
        authorized(TOKEN, "/v1/status"),
        authorized(&TOKEN[1..], "/v1/status"),
        authorized(&TOKEN[1..], "/readyz"),
        authorized(TOKEN, "/readyz"),
    ];
    assert!(answers[6].contains("503") && !answers[6].contains("Redis"), "not to everybody: {}", answers[6]);
    assert!(answers[7].contains("503") && answers[7].contains("Redis at "), "{}", answers[7]);
    assert!(answers[0].contains("503") && answers[0].contains("Redis at "), "{}", answers[0]);
    assert!(answers[2].contains("store_unavailable"), "{}", answers[2]);
    assert!(answers[3].contains("401") && answers[5].contains("401"), "{answers:?}");
    assert!(
        answers[4].contains("\"kind\":\"redis\"") && answers[4].contains("\"ready\":false"),
        "{}",
        answers[4]
    );
    answers.iter().for_each(|answer| assert_untold("an answer", answer));

    // HTTP/2, whose libraries log each frame at this level, with the token as a header: "authorization" is 23 of the
    // static table.
    let mut stream = TcpStream::connect(&sluice.admin).expect("connected");
    stream.set_read_timeout(Some(support::DEADLINE)).expect("a timeout");
    let value = format!("Bearer {TOKEN}");
    let mut headers = vec![0x82, 0x86, 0x44, 10];
    headers.extend(b"/v1/status");
    headers.extend([0x41, 1, b'a']);
    headers.extend([0x40 + 23, u8::try_from(value.len()).expect("short")]);
    headers.extend(value.as_bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, u8::try_from(headers.len()).expect("short"), 1, 5, 0, 0, 0, 1]);
    bytes.extend(&headers);
    stream.write_all(&bytes).expect("sent");
    let mut answer = Vec::new();
    support::wait_for("the status by HTTP/2", || {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "closed instead");
        answer.extend_from_slice(&piece[..count]);
        String::from_utf8_lossy(&answer).contains("\"kind\":\"redis\"").then_some(())
    });

    drop(stream);
    sluice.terminate();
    let log = sluice.logged.clone() + &reading.join().expect("no panic");
    assert!(log.contains("\"TRACE\""), "everything is logged: {log}");
    assert!(log.contains("spans are lost"), "the receiver was tried: {log}");
    assert_untold("the log", &log);

    for (arguments, environment) in [
        (vec!["--help"], &environment[..]),
        (vec!["redis://x:hunter2-the-password@h"], &[]),
        (vec!["--listen", "redis://x:hunter2-the-password@h"], &[]),
        (vec!["--redis-url", "redis://x:hunter2-the-password@h:port"], &[("SLUICE_ADMIN_TOKEN", TOKEN)]),
        (
            vec![
                "--tls-cert",
                &files.write("both.pem", &(server.key.clone() + TOKEN)),
                "--tls-key",
                &files.write("key.pem", TOKEN),
            ],
            &[],
        ),
        (vec!["--admin-token-file", &files.write("token", "open-sesame-the-token with more")], &[]),
        (vec!["--listen", "nowhere"], &environment[..]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let output =
            command.env_clear().args(&arguments).envs(environment.iter().copied()).output().expect("it runs");
        assert!(arguments == ["--help"] || !output.status.success(), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains(PASSWORD) && !said.contains(TOKEN), "{arguments:?}: {said}");
        assert!(!said.contains(server.key.lines().nth(1).expect("a key")), "{arguments:?}: {said}");
    }
}

/// A Redis that is there, and quotes what it was sent: one without HELLO, and one with another password.
#[test]
fn no_password_that_a_redis_quotes_is_told() {
    let run = fleet::RunDir::new().expect("a directory");
    let program = fleet::tools::redis_server().expect("redis-server is there");
    for (arguments, password, reason) in [
        (&["--rename-command", "HELLO", ""][..], PASSWORD, "it does not know HELLO"),
        (&[], "another", "(WRONGPASS)"),
    ] {
        let redis = fleet::Redis::start(&program, &run, arguments).expect("Redis starts");
        redis.command(&["CONFIG", "SET", "requirepass", password]).expect("set");
        let url = format!("redis://:{PASSWORD}@{}", redis.addr());
        let environment = [("REDIS_URL", url.as_str()), ("SLUICE_LOG", "trace")];
        let mut sluice = Running::start_in(&["--shutdown-delay", "0s"], &environment);
        let mut log = sluice.take_log();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).expect("UTF-8");
            text
        });
        for answer in [get(&sluice.address, "/readyz"), get(&sluice.admin, "/v1/status")] {
            assert!(answer.contains(reason), "{answer}");
            assert_untold("an answer", &answer);
        }
        sluice.terminate();
        let log = sluice.logged.clone() + &reading.join().expect("no panic");
        assert!(log.contains(reason), "{log}");
        assert_untold("the log", &log);
    }
}
