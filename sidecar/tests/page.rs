//! The page and its events, over the wire: who gets them, how many may, and that they keep nothing from ending.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Instant,
};

use support::{
    DEADLINE,
    running::{Running, ask, get},
};

/// A stream of events, read up to its first.
fn watch(running: &Running, query: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&running.admin).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET /v1/events{query} HTTP/1.1\r\nhost: {}\r\n\r\n", running.admin).expect("sent");
    let mut stream = BufReader::new(stream);
    wait_for_line(&mut stream, "event: ");
    stream
}

/// The next line that begins so.
fn wait_for_line(stream: &mut BufReader<TcpStream>, begins: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).expect("a line") > 0, "it ended before {begins:?}");
        if line.starts_with(begins) {
            return line;
        }
    }
}

#[test]
fn the_page_is_for_everybody_and_what_it_shows_for_those_with_the_token() {
    let file = std::env::temp_dir().join(format!("sluice-page-token-{}", std::process::id()));
    fs::write(&file, "a-token-of-sixteen-and-more").expect("written");
    let path = file.to_str().expect("a path");
    let running = Running::start_with(&["--shutdown-delay", "0s", "--admin-token-file", path]);
    let page = get(&running.admin, "/");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    for said in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "etag: \"",
        "cache-control: no-cache",
    ] {
        assert!(page.contains(said), "{said:?} is missing in: {page}");
    }
    assert!(get(&running.admin, "/page/page.js").contains("content-type: text/javascript"));
    assert!(get(&running.admin, "/page/../Cargo.toml").starts_with("HTTP/1.1 404 "));
    for data in ["/v1/events", "/v1/stats", "/v1/top", "/v1/overrides"] {
        assert!(get(&running.admin, data).contains("no_token"), "{data}");
    }
    let asked = "GET /v1/status HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\nauthorization: Bearer a-token-of-sixteen-and-more\r\n\r\n";
    assert!(ask(&running.admin, asked).starts_with("HTTP/1.1 200 "));
    fs::remove_file(&file).expect("removed");
}

#[test]
fn only_the_page_itself_may_change_anything_from_within_a_browser() {
    let running = Running::start();
    let admin = &running.admin;
    let reset = |host: &str, headers: &str| {
        let path = "/v1/buckets/per-client/key/reset?domain=shop&limit=10%20per%20minute";
        ask(
            admin,
            &format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 2\r\nconnection: close\r\n{headers}\r\n{{}}"
            ),
        )
    };
    let json = "content-type: application/json\r\n";
    let ours = format!("{json}origin: http://{admin}\r\nsec-fetch-site: same-origin\r\n");
    assert!(reset(admin, &ours).starts_with("HTTP/1.1 200 "), "{}", reset(admin, &ours));
    assert!(reset(admin, json).starts_with("HTTP/1.1 200 "), "what is no browser sends no origin");
    for (host, headers, code) in [
        (
            admin.as_str(),
            format!("{json}origin: http://evil.example\r\nsec-fetch-site: cross-site\r\n"),
            "foreign_origin",
        ),
        (admin, format!("{json}origin: http://{admin}\r\nsec-fetch-site: cross-site\r\n"), "foreign_origin"),
        (admin, format!("{json}origin: http://{admin}\r\n"), "foreign_origin"),
        (admin, format!("{json}origin: null\r\nsec-fetch-site: same-origin\r\n"), "foreign_origin"),
        (
            "evil.example",
            format!("{json}origin: http://evil.example\r\nsec-fetch-site: same-origin\r\n"),
            "foreign_host",
        ),
        (admin, "content-type: application/x-www-form-urlencoded\r\n".to_owned(), "not_json_content"),
        (admin, "content-type: text/plain\r\n".to_owned(), "not_json_content"),
        (admin, String::new(), "not_json_content"),
    ] {
        let answer = reset(host, &headers);
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{headers}: {answer}");
    }
}

#[test]
fn streams_are_few_and_make_room_when_they_are_left() {
    let running = Running::start();
    let mut streams: Vec<_> = (0..16).map(|_| watch(&running, "")).collect();
    let refused = get(&running.admin, "/v1/events");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too_many_streams"), "{refused}");
    assert!(get(&running.admin, "/v1/status").starts_with("HTTP/1.1 200 "), "all else is answered");
    streams.truncate(15);
    // That somebody has hung up is noticed when the next event is written.
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        let mut stream = TcpStream::connect(&running.admin).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        write!(stream, "GET /v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", running.admin).expect("sent");
        let line = wait_for_line(&mut BufReader::new(stream), "HTTP/1.1 ");
        if line.starts_with("HTTP/1.1 200 ") {
            return;
        }
    }
    panic!("no room after {DEADLINE:?}");
}

#[test]
fn a_watched_bucket_is_told_of_and_so_is_why_one_is_not() {
    let running = Running::start();
    let mut stream = watch(&running, "?bucket=per-client&key=a%2Fb&domain=shop");
    let refused = wait_for_line(&mut stream, "data: {\"code\"");
    assert!(refused.contains("unknown_policy"), "{refused}");
    // As soon as somebody asks for it, it is known.
    let body = r#"{"domain":"shop","takes":[{"buckets":[{"policy":"per-client","key":"a/b","tokens":10,"period_us":86400000000,"burst":10,"cost":3}]}]}"#;
    let take = format!(
        "POST /v1/take HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(ask(&running.address, &take).contains("allowed"));
    let told = wait_for_line(&mut stream, "data: {\"domain\"");
    assert!(told.contains("\"key\":\"a/b\"") && told.contains("\"tokens\":7"), "{told}");
    assert!(wait_for_line(&mut stream, "data: {\"version\"").contains("\"policy\":\"per-client\""));
    assert!(wait_for_line(&mut stream, "data: {\"window_s\"").contains("\"key\":\"a/b\""));
    assert!(get(&running.admin, "/v1/events?buckets=x").contains("invalid_query"));
}

#[test]
fn a_stream_ends_as_soon_as_the_sidecar_does() {
    let mut running = Running::start_with(&["--shutdown-delay", "0s", "--shutdown-grace", "60s"]);
    let mut stream = watch(&running, "");
    let begun = Instant::now();
    running.terminate();
    let mut line = String::new();
    // The last chunk of the body is there: it was ended, and not broken off.
    while stream.read_line(&mut line).expect("an end") > 0 {}
    assert!(line.ends_with("\r\n0\r\n\r\n"), "{line}");
    assert_eq!(running.wait(), Some(0));
    assert!(begun.elapsed() < DEADLINE, "it waited for its grace");
}
