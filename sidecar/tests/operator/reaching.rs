//! Ways to a sidecar: its own environment, a URL, a Unix socket, TLS, a token; and nobody there.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use super::{
    done, refused, sluice,
    support::{
        certificates::{Authority, Directory},
        running::Running,
    },
};

const TOKEN: &str = "a-token-of-some-length";

#[test]
fn it_is_found_by_the_flags_and_the_environment_that_it_runs_with() {
    let running = Running::start();
    for (words, environment) in [
        (vec!["--admin-listen", &running.admin, "stats"], vec![]),
        (vec!["stats"], vec![("SLUICE_ADMIN_LISTEN", running.admin.as_str())]),
        (vec!["stats"], vec![("SLUICE_ADMIN_LISTEN", running.admin.as_str()), ("SLUICE_ADMIN", "")]),
        (
            vec!["stats", "--admin", &format!("http://{}/", running.admin)],
            vec![("SLUICE_ADMIN", "unix:/nowhere")],
        ),
    ] {
        assert!(done(&sluice(&words, &environment)).contains("store        memory ready\n"), "{words:?}");
    }
}

#[test]
fn it_is_asked_over_a_unix_socket() {
    let files = Directory::new("operator-unix");
    let socket = files.write("admin.sock", "").replace("admin.sock", "a.sock");
    let address = format!("unix:{socket}");
    let _running = Running::start_with(&["--admin-listen", &address]);
    done(&sluice(&["stats"], &[("SLUICE_ADMIN", &address)]));
    done(&sluice(&["--admin-listen", &address, "stats"], &[]));
}

#[test]
fn a_token_is_sent_and_never_told() {
    let files = Directory::new("operator-token");
    let file = files.write("token", &format!("{TOKEN}\n"));
    let running = Running::start_with(&["--admin-token-file", &file]);
    let at = ["--admin-listen", running.admin.as_str()];
    let stats = |before: &[&str], after: &[&str], token: Option<&str>| {
        let environment: Vec<_> = token.map(|token| ("SLUICE_ADMIN_TOKEN", token)).into_iter().collect();
        sluice(&[&at[..], before, &["stats"], after].concat(), &environment)
    };
    done(&stats(&["--admin-token-file", &file], &[], None));
    done(&stats(&[], &["--admin-token-file", &file], None));
    done(&stats(&[], &[], Some(TOKEN)));
    let another = files.write("another", "another-token-of-some-length\n");
    // What is written beats the environment, and the token itself a file there.
    for (before, after, variable, value) in [
        (
            ["--admin-token-file", file.as_str()].as_slice(),
            [].as_slice(),
            "SLUICE_ADMIN_TOKEN_FILE",
            another.as_str(),
        ),
        (&[], &["--admin-token-file", file.as_str()], "SLUICE_ADMIN_TOKEN_FILE", &another),
        (&["--admin-token-file", file.as_str()], &[], "SLUICE_ADMIN_TOKEN", "another-token-of-some-length"),
        (
            &["--admin-token-file", another.as_str()],
            &["--admin-token-file", file.as_str()],
            "SLUICE_ADMIN_CA",
            "",
        ),
        (&[], &[], "SLUICE_ADMIN_TOKEN_FILE", &file),
    ] {
        done(&sluice(&[&at[..], before, &["stats"], after].concat(), &[(variable, value)]));
    }
    done(&sluice(
        &[&at[..], &["stats"]].concat(),
        &[("SLUICE_ADMIN_TOKEN", TOKEN), ("SLUICE_ADMIN_TOKEN_FILE", &another)],
    ));
    let none = refused(&stats(&[], &[], None), 1);
    assert!(
        none.contains("wants a token, and none was given; give the sidecar's by --admin-token-file"),
        "{none}"
    );
    let wrong = refused(&stats(&[], &[], Some("another-token-of-some-length")), 1);
    assert!(wrong.contains("wants a token, and this one is not it") && !wrong.contains("another"), "{wrong}");
}

#[test]
fn tls_is_trusted_by_the_authority_or_where_the_certificate_is_its_own() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Directory::new("operator-tls");
    let identity = authority.server("sluice");
    let (certificate, key) =
        (files.write("s.pem", &identity.certificate), files.write("s.key", &identity.key));
    let (ca, other_ca) = (files.write("ca.pem", &authority.pem()), files.write("other.pem", &other.pem()));
    let (token, tls) = (files.write("token", TOKEN), ["--tls-cert", &certificate, "--tls-key", &key]);
    let listen = ["--admin-listen", "0.0.0.0:0", "--admin-token-file", &token];
    let running = Running::start_with(&[&listen[..], &tls].concat());
    let port = running.admin.rsplit(':').next().expect("a port");

    let url = format!("https://127.0.0.1:{port}");
    let ask = |words: &[&str]| sluice(&[&["stats", "--admin-token-file", &token], words].concat(), &[]);
    done(&ask(&["--admin", &url, "--admin-ca", &ca]));
    let unknown = refused(&ask(&["--admin", &url, "--admin-ca", &other_ca]), 1);
    assert!(unknown.contains("is not trusted") && unknown.contains("--admin-ca"), "{unknown}");
    let system = refused(&ask(&["--admin", &url]), 1);
    assert!(system.contains("is not trusted"), "{system}");
    let plain = refused(&ask(&["--admin", &format!("http://127.0.0.1:{port}")]), 1);
    assert!(plain.contains("speaks TLS") || plain.contains("no sidecar answers"), "{plain}");
    let file = refused(&ask(&["--admin", &url, "--admin-ca", "/nowhere"]), 1);
    assert!(file.contains("--admin-ca /nowhere cannot be read"), "{file}");

    let own = format!("0.0.0.0:{port}");
    let itself = |tls: &[&str]| {
        sluice(&[&["--admin-listen", &own, "--admin-token-file", &token], tls, &["stats"]].concat(), &[])
    };
    done(&itself(&tls));
    let impostor = other.server("sluice");
    let others = files.write("other-server.pem", &impostor.certificate);
    let said = refused(&itself(&["--tls-cert", &others, "--tls-key", &key]), 1);
    assert!(said.contains("is not trusted") && said.contains("--tls-cert"), "{said}");
}

#[test]
fn where_nobody_listens_it_says_where_and_what_would_be_right() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for at in [format!("http://{free}"), "unix:/nowhere/a.sock".to_owned()] {
        for words in [&["stats"][..], &["top"], &["overrides"], &["get", "alice", "-p", "x"]] {
            let said = refused(&sluice(&[words, &["--admin", &at]].concat(), &[]), 1);
            let named = at.strip_prefix("http://").unwrap_or(&at);
            assert!(
                said.contains(&format!("no sidecar answers at {named} (")) && said.contains("SLUICE_ADMIN"),
                "{said}"
            );
        }
    }
}

#[test]
fn what_is_no_sidecar_is_not_believed() {
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "220 mail.example.com ESMTP\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = format!("http://{}", listener.local_addr().expect("an address"));
        let other = thread::spawn(move || listener.accept().expect("asked").0.write_all(answer.as_bytes()));
        let said = refused(&sluice(&["stats", "--admin", &at], &[]), 1);
        other.join().expect("it answered").expect("written");
        assert!(said.contains("is no sluice") || said.contains("no sidecar answers"), "{said}");
    }
}

#[test]
fn no_answer_steers_the_terminal() {
    let hostile = "\\u001b[2J\u{9b}31m\u{202e}";
    for (status, body, words, code, said) in [
        (
            "400 Bad Request",
            format!(r#"{{"code":"x{hostile}","reason":"{hostile}owned"}}"#),
            &[][..],
            1,
            "owned",
        ),
        ("200 OK", "\u{1b}[2J no json".to_owned(), &["--format", "json"], 1, "is not understood"),
        (
            "200 OK",
            format!(r#"{{"a":"{hostile}"}}"#),
            &["--format", "json"],
            0,
            r#"{"a":"\u001b[2J\u009b31m\u202e"}"#,
        ),
        ("503 Service Unavailable", format!("{hostile}owned"), &["--format", "json"], 1, "is not understood"),
    ] {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nx-sluice-contract: 1\r\ncontent-length: {length}\r\n\r\n{body}");
        let (at, other) = answering(answer);
        let output = sluice(&[&["overrides", "--admin", &at], words].concat(), &[]);
        other.join().expect("it answered");
        let told = if code == 0 { done(&output) } else { refused(&output, code) };
        assert!(told.contains(said), "{told}");
    }
}

/// What answers so whatever it is asked, once.
fn answering(answer: String) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = format!("http://{}", listener.local_addr().expect("an address"));
    let other = thread::spawn(move || {
        let mut stream = listener.accept().expect("asked").0;
        // What is not read is a reset, which may come before the answer.
        let _ = stream.read(&mut [0; 4096]).expect("a request");
        stream.write_all(answer.as_bytes()).expect("written");
    });
    (at, other)
}

#[test]
fn the_listener_of_envoys_is_told_from_that_of_operators() {
    let running = Running::start();
    let said = refused(&sluice(&["stats", "--admin", &format!("http://{}", running.address)], &[]), 1);
    assert!(said.contains("is it its admin listener"), "{said}");
}
