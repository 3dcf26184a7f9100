//! What operators are told of what a sidecar decided, counted against what it answered.

mod support;

use std::{
    collections::HashMap,
    io::Write,
    net::TcpStream,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    Random, RedisServer,
    running::{Running, ask, exchange, get},
    wait_for,
};

/// What is answered to a `GET` of an operator: the status line and the body.
fn asked(sluice: &Running, path: &str) -> (String, Value) {
    let answer = get(&sluice.admin, path);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head.lines().next().unwrap_or_default().to_owned(), serde_json::from_str(body).expect("JSON"))
}

/// Sends takes, and gives back the verdicts.
fn decide(stream: &mut TcpStream, domain: &str, takes: &[Value]) -> Vec<Value> {
    let body = json!({ "domain": domain, "takes": takes }).to_string();
    let request =
        format!("POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(stream, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let answer: Value = serde_json::from_str(body).expect("JSON");
    answer["verdicts"].as_array().expect("verdicts").clone()
}

fn bucket(policy: &str, key: &str, cost: u64) -> Value {
    json!({ "policy": policy, "key": key, "tokens": 1, "period_us": 3_600_000_000_u64, "burst": 5, "cost": cost })
}

/// Takes at random, and what their answers amount to.
#[test]
fn what_is_counted_is_what_was_answered() {
    let sluice = Running::start();
    let mut stream = TcpStream::connect(&sluice.address).expect("connected");
    let mut random = Random::from_environment();
    let mut totals: HashMap<&str, u64> = HashMap::new();
    let mut policies: HashMap<(String, &str), u64> = HashMap::new();
    let mut takes_sent = 0;
    for _ in 0..60 {
        let takes: Vec<Value> = (0..1 + random.below(20))
            .map(|place| {
                let mut names = ["p0", "p1", "p2", "p3", "p4", "p5"].map(str::to_owned).to_vec();
                let buckets: Vec<Value> = (0..1 + random.below(3))
                    .map(|_| {
                        let policy = names.swap_remove(random.below(names.len() as u64) as usize);
                        bucket(
                            &policy,
                            &format!("k{}", random.below(4)),
                            [1, 1, 2, 9][random.below(4) as usize],
                        )
                    })
                    .collect();
                let kind = if random.percent(15) { "refund" } else { "take" };
                let shadow = random.percent(30);
                // Where nothing is enforced, it follows nothing.
                let follows = shadow && place > 0 && random.percent(70);
                json!({ "buckets": buckets, "kind": kind, "follows": follows, "shadow": shadow })
            })
            .collect();
        let verdicts = decide(&mut stream, "shop", &takes);
        assert_eq!(verdicts.len(), takes.len());
        takes_sent += takes.len() as u64;
        for (take, verdict) in takes.iter().zip(&verdicts) {
            if take["kind"] == "refund" {
                continue;
            }
            let shadow = take["shadow"] == true;
            let buckets = take["buckets"].as_array().expect("buckets").iter();
            let names = buckets.map(|bucket| bucket["policy"].as_str().expect("a name").to_owned());
            if let Some(stood) = verdict["denied"].as_array() {
                let outcome = if shadow { "shadow_denied" } else { "denied" };
                *totals.entry(outcome).or_default() += 1;
                for (name, _) in names.zip(stood).filter(|(_, stood)| stood["outcome"] != "allowed") {
                    *policies.entry((name, outcome)).or_default() += 1;
                }
            } else if !shadow {
                assert!(verdict["allowed"].is_array(), "{verdict}");
                *totals.entry("allowed").or_default() += 1;
                names.for_each(|name| *policies.entry((name, "allowed")).or_default() += 1);
            }
        }
    }
    let (_, stats) = asked(&sluice, "/v1/stats");
    let outcomes = ["allowed", "denied", "failed", "shadow_denied", "blocked", "repeats", "leased_tokens"];
    for outcome in outcomes {
        let expected = totals.get(outcome).copied().unwrap_or_default();
        assert_eq!(stats["totals"][outcome], expected, "{outcome} of {stats}");
        for policy in stats["policies"].as_array().expect("policies") {
            let name = policy["policy"].as_str().expect("a name").to_owned();
            let expected = policies.get(&(name.clone(), outcome)).copied().unwrap_or_default();
            assert_eq!(policy["totals"][outcome], expected, "{outcome} of {name} of {stats}");
            assert_eq!(policy["domain"], "shop");
            let limit = json!({ "tokens": 1, "period_us": 3_600_000_000_u64, "burst": 5 });
            assert_eq!(policy["limits"], json!([limit]));
        }
    }
    assert!(totals["allowed"] > 0 && totals["denied"] > 0 && totals["shadow_denied"] > 0, "{totals:?}");
    assert_eq!(stats["policies"].as_array().map(Vec::len), Some(6));
    assert_eq!(stats["batches"]["requests"], 60);
    assert_eq!(stats["batches"]["takes"], takes_sent);
    assert_eq!(stats["latency_us"]["take"]["count"], 60);
    assert_eq!(stats["sidecars"], 1);
}

#[test]
fn the_hottest_and_the_most_denied_are_told_whatever_they_are_called() {
    let sluice = Running::start();
    let mut stream = TcpStream::connect(&sluice.address).expect("connected");
    let hostile = "<img src=x onerror=alert(1)>\u{202e}\n\"\u{0}";
    let longest = "k".repeat(1024);
    let sent =
        [("per-client", hostile, 9), ("per-client", &longest, 7), ("all", "", 4), ("per-client", "quiet", 1)];
    for (policy, key, count) in sent {
        decide(&mut stream, "shop", &vec![json!({ "buckets": [bucket(policy, key, 1)] }); count]);
    }
    let key = |policy: &str, key: &str, requests: u64| {
        let denied = requests.saturating_sub(5);
        json!({ "domain": "shop", "policy": policy, "key": key, "requests": requests, "denied": denied })
    };
    let all = [
        key("per-client", hostile, 9),
        key("per-client", &longest, 7),
        key("all", "", 4),
        key("per-client", "quiet", 1),
    ];
    let keys = |query: &str| asked(&sluice, &format!("/v1/top{query}")).1["keys"].clone();
    assert_eq!(keys(""), json!(all));
    assert_eq!(keys("?by=requests&window_s=10&limit=2"), json!(all[..2]));
    assert_eq!(keys("?by=denied"), json!(all[..2]));
    assert_eq!(keys("?policy=all&domain=shop"), json!(all[2..3]));
    assert_eq!(keys("?domain=elsewhere"), json!([]));
    let (_, top) = asked(&sluice, "/v1/top?by=denied&window_s=10");
    assert_eq!((&top["by"], &top["window_s"], &top["sidecars"]), (&json!("denied"), &json!(10), &json!(1)));
    assert!(top["covers_us"].as_u64().is_some_and(|covers_us| covers_us <= 10_000_000), "{top}");
}

#[test]
fn a_question_that_is_none_is_refused_with_its_mend() {
    let sluice = Running::start();
    for (query, word) in [
        ("by=noise", "requests"),
        ("limit=0", "1 to 100"),
        ("limit=101", "1 to 100"),
        ("limit=many", "limit"),
        ("window_s=9", "10 to 60"),
        ("window_s=61", "10 to 60"),
        ("windows=10", "window_s"),
    ] {
        let (status, refusal) = asked(&sluice, &format!("/v1/top?{query}"));
        assert!(status.contains("400"), "{query}: {status}");
        assert_eq!(refusal["code"], "invalid_query", "{query}");
        let reason = refusal["reason"].as_str().expect("a reason");
        assert!(reason.contains(word), "{query}: {reason}");
    }
}

#[test]
fn policies_are_bounded_however_many_are_asked_for() {
    let sluice = Running::start();
    let mut stream = TcpStream::connect(&sluice.address).expect("connected");
    for first in [0, 500, 1_000, 1_500] {
        let take = |n| json!({ "buckets": [bucket(&format!("policy-{n}"), "a", 1)] });
        decide(&mut stream, "shop", &(first..first + 500).map(take).collect::<Vec<_>>());
    }
    let (_, stats) = asked(&sluice, "/v1/stats");
    let policies = stats["policies"].as_array().expect("policies");
    assert_eq!(policies.len(), 1_001);
    let other = policies.iter().find(|policy| policy["domain"] == "").expect("one for all others");
    assert_eq!((&other["policy"], &other["totals"]["allowed"]), (&json!("other"), &json!(1_000)));
    assert_eq!(stats["totals"]["allowed"], 2_000);
}

/// What is scraped, as Prometheus's text: each sample by its name and labels.
fn scraped(sluice: &Running) -> (String, HashMap<String, f64>) {
    let answer = get(&sluice.admin, "/metrics");
    let (head, page) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        (name.to_owned(), value.parse().expect("a number"))
    };
    (page.to_owned(), samples.map(sample).collect())
}

/// Prometheus's own judgement.
fn check(page: &str) {
    let promtool = fleet::tools::promtool().expect("promtool is there");
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool runs");
    child.stdin.take().expect("its input").write_all(page.as_bytes()).expect("read");
    let said = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.is_empty(), "promtool says: {text}");
}

#[test]
fn what_a_client_gave_up_has_failed_and_took_as_long_as_it_waited() {
    let redis = RedisServer::start();
    let options = ["--shutdown-delay", "0s", "--redis-timeout", "10s", "--redis-url", &redis.url()];
    let sluice = Running::start_with(&options);
    let mut stream = TcpStream::connect(&sluice.address).expect("connected");
    let take = json!({ "buckets": [bucket("per-client", "alice", 1)] });
    decide(&mut stream, "shop", std::slice::from_ref(&take));
    redis.freeze();
    let body = json!({ "domain": "shop", "takes": [take] }).to_string();
    let length = body.len();
    write!(stream, "POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: {length}\r\n\r\n{body}")
        .expect("sent");
    let status = |path| asked(&sluice, path).1;
    wait_for("the take to be under way", || {
        status("/v1/status")["store"]["waiting_buckets"].as_u64().filter(|&waiting| waiting > 0)
    });
    drop(stream);
    wait_for("it to be counted", || (status("/v1/stats")["totals"]["failed"] == 1).then_some(()));
    let stats = status("/v1/stats");
    assert_eq!((&stats["totals"]["allowed"], &stats["batches"]["requests"]), (&json!(1), &json!(1)));
    assert_eq!(stats["latency_us"]["take"]["count"], 2);
    assert_eq!(stats["policies"][0]["latency_us"]["count"], 2);
    let (_, samples) = scraped(&sluice);
    for outcome in ["answered", "given_up"] {
        let name = format!("sluice_requests_total{{outcome=\"{outcome}\"}}");
        assert_eq!(samples.get(&name), Some(&1.0), "{name}");
    }
}

#[test]
fn what_is_scraped_is_what_was_decided() {
    let redis = RedisServer::start();
    let sluice = Running::start_with(&["--shutdown-delay", "0s", "--redis-url", &redis.url()]);
    let mut stream = TcpStream::connect(&sluice.address).expect("connected");
    let secret_key = "the-key-of-a-client\"\n";
    let takes = vec![json!({ "buckets": [bucket("per-client", secret_key, 1)] }); 7];
    decide(&mut stream, "shop", &takes);
    let mut repeated = bucket("per-client", secret_key, 1);
    repeated["repeats"] = json!(40);
    decide(&mut stream, "shop", &[json!({ "buckets": [repeated] })]);
    let refused = exchange(&mut stream, b"GET /nothing HTTP/1.1\r\nhost: sluice\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 404"), "{refused}");
    let (page, samples) = scraped(&sluice);
    check(&page);
    assert!(!page.contains("the-key-of"), "a key is in no metric: {page}");
    let policy = "domain=\"shop\",policy=\"per-client\"";
    for (name, value) in [
        (format!("sluice_decisions_total{{{policy},outcome=\"allowed\"}}"), 5.0),
        (format!("sluice_decisions_total{{{policy},outcome=\"denied\"}}"), 3.0),
        ("sluice_takes_total{outcome=\"allowed\"}".to_owned(), 5.0),
        ("sluice_takes_total{outcome=\"denied\"}".to_owned(), 3.0),
        (format!("sluice_repeats_total{{{policy}}}"), 40.0),
        ("sluice_ready".to_owned(), 1.0),
        ("sluice_take_duration_seconds_count".to_owned(), 2.0),
        ("sluice_takes_per_request_sum".to_owned(), 8.0),
        ("sluice_requests_total{outcome=\"answered\"}".to_owned(), 2.0),
        ("sluice_requests_total{outcome=\"refused\"}".to_owned(), 1.0),
        ("sluice_connections".to_owned(), 1.0),
        ("sluice_store_ready".to_owned(), 1.0),
        ("sluice_redis_links{breaker=\"closed\"}".to_owned(), 1.0),
        // The eighth was known to be denied.
        ("sluice_redis_runs_total{outcome=\"answered\"}".to_owned(), 1.0),
        ("sluice_redis_buckets_per_run_sum".to_owned(), 7.0),
        ("sluice_redis_run_duration_seconds_count".to_owned(), 1.0),
        ("sluice_deny_cache_hits_total".to_owned(), 1.0),
        ("sluice_deny_cache_entries".to_owned(), 1.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name} of {page}");
    }
    let (_, stats) = asked(&sluice, "/v1/stats");
    assert_eq!((&stats["batches"]["runs"], &stats["batches"]["buckets_in_runs"]), (&json!(1), &json!(7)));
    assert_eq!(stats["latency_us"]["redis"]["count"], 1);
    // And what becomes of it without Redis.
    drop(redis);
    let takes = vec![json!({ "buckets": [bucket("per-client", "another", 1)] }); 2];
    support::wait_for("takes to fail", || {
        decide(&mut stream, "shop", &takes)[0].get("failed").is_some().then_some(())
    });
    let (page, samples) = scraped(&sluice);
    check(&page);
    let failed = &samples[&format!("sluice_decisions_total{{{policy},outcome=\"failed\"}}")];
    assert!(*failed >= 2.0, "{page}");
    assert_eq!(
        (samples["sluice_store_ready"], samples["sluice_redis_links{breaker=\"closed\"}"]),
        (0.0, 0.0)
    );
}

#[test]
fn metrics_of_a_store_in_memory_pass_too_and_come_as_open_metrics_to_who_accepts_that() {
    let sluice = Running::start();
    let mut stream = TcpStream::connect(&sluice.address).expect("connected");
    decide(&mut stream, "shop", &[json!({ "buckets": [bucket("per-client", "a", 1)] })]);
    let (page, samples) = scraped(&sluice);
    check(&page);
    assert_eq!(samples["sluice_buckets"], 1.0);
    assert_eq!(samples["sluice_overrides"], 0.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6, "{page}");
    assert!(!page.contains("sluice_redis"), "there is none: {page}");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    let answer = ask(&sluice.admin, &request);
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

/// They are of whoever has the token alone, like all that is told.
#[test]
fn nobody_is_told_without_the_token() {
    let token = "a-token-of-some-length-0123456789";
    let sluice = Running::start_in(&["--shutdown-delay", "0s"], &[("SLUICE_ADMIN_TOKEN", token)]);
    for path in ["/v1/stats", "/v1/top", "/metrics"] {
        let (status, refusal) = asked(&sluice, path);
        assert!(status.contains("401") && refusal["code"] == "no_token", "{path}: {status}");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: sluice\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        assert!(ask(&sluice.admin, &request).starts_with("HTTP/1.1 200"), "{path}");
    }
}

/// Takes can be decided, and what an operator has blocked would be allowed.
#[test]
fn a_sidecar_that_has_never_read_the_overrides_says_that_it_is_not_ready() {
    let run = fleet::RunDir::new().expect("a directory");
    let program = fleet::tools::redis_server().expect("redis-server is there");
    let redis = fleet::Redis::start(&program, &run, &[]).expect("Redis starts");
    redis.command(&["SET", "sluice:1:{overrides}", "no hash"]).expect("set");
    let url = format!("redis://{}", redis.addr());
    let mut sluice = Running::start_with(&["--shutdown-delay", "0s", "--redis-url", &url]);
    sluice.wait_for_line("the overrides of operators have never been read");
    let (page, samples) = scraped(&sluice);
    check(&page);
    assert_eq!((samples["sluice_store_ready"], samples["sluice_ready"]), (1.0, 0.0), "{page}");
    assert!(samples["sluice_overrides_age_seconds"] > 1.0, "{page}");
    redis.command(&["DEL", "sluice:1:{overrides}"]).expect("deleted");
    sluice.wait_for_line("the overrides of operators are known again");
    assert!(scraped(&sluice).1["sluice_ready"] > 0.0);
}
