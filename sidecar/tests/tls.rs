//! TLS between Envoy and the sidecar, on the program itself: who is let in, new certificates without a restart, and what
//! is said of wrong ones.

mod support;

use std::{io::Write, net::TcpStream, process::Command, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use support::{
    DEADLINE,
    certificates::{Authority, Directory, Identity},
    running::{Running, exchange, get},
};

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: sluice\r\n\r\n";

/// A sidecar with a certificate of `authority`, in files of a directory.
struct Encrypted {
    sluice: Running,
    files: Directory,
    arguments: Vec<String>,
}

/// Starts one; with mutual TLS where clients have an authority.
fn start(name: &str, authority: &Authority, clients: Option<&Authority>) -> Encrypted {
    let files = Directory::new(name);
    let server = authority.server("sluice");
    let mut arguments = vec![
        "--tls-cert".to_owned(),
        files.write("server.pem", &server.certificate),
        "--tls-key".to_owned(),
        files.write("server.key", &server.key),
    ];
    if let Some(clients) = clients {
        arguments.extend(["--tls-client-ca".to_owned(), files.write("clients.pem", &clients.pem())]);
    }
    let sluice = Running::start_with(&borrowed(&arguments));
    Encrypted { sluice, files, arguments }
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn health(address: &str, admin: &str, arguments: &[String]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear().args(["--listen", address, "--admin-listen", admin]).args(arguments).arg("health");
    command.output().expect("it runs")
}

/// A connection by TLS from a client that trusts `authority`, and is `identity` or nobody.
fn connect(
    address: &str,
    authority: &Authority,
    identity: Option<&Identity>,
    alpn: &str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM"))
        .expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let name = "sluice".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), stream)
}

/// Why a client is not answered; nothing where it is.
fn refusal(address: &str, authority: &Authority, identity: Option<&Identity>) -> Option<String> {
    use std::io::Read;
    let mut stream = connect(address, authority, identity, "http/1.1");
    let outcome = stream.write_all(HEALTHZ).and_then(|()| {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).map(|()| assert_eq!(&answer, b"HTTP/1.1 200"))
    });
    outcome.err().map(|error| error.to_string())
}

#[test]
fn envoys_are_answered_by_tls_over_http_1_and_2() {
    let authority = Authority::new();
    let encrypted = start("tls", &authority, None);
    let address = &encrypted.sluice.address;
    let mut stream = connect(address, &authority, None, "http/1.1");
    assert!(exchange(&mut stream, HEALTHZ).starts_with("HTTP/1.1 200"));
    assert!(exchange(&mut stream, HEALTHZ).starts_with("HTTP/1.1 200"), "over the same connection");
    let mut stream = connect(address, &authority, None, "h2");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut head = [0; 9];
    std::io::Read::read_exact(&mut stream, &mut head).expect("a frame");
    assert_eq!((stream.conn.alpn_protocol(), head[3]), (Some(&b"h2"[..]), 4), "SETTINGS");
    assert!(
        refusal(address, &Authority::new(), None).expect("untrusted").contains("invalid peer certificate")
    );

    // What asks in the clear hears nothing that it could take for an answer.
    let mut clear = TcpStream::connect(address).expect("connected");
    clear.write_all(HEALTHZ).expect("sent");
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut clear, &mut said);
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");

    let healthy = health(address, "off", &encrypted.arguments);
    assert_eq!(healthy.status.code(), Some(0), "{}", String::from_utf8_lossy(&healthy.stderr));
}

#[test]
fn only_clients_of_the_authority_are_let_in() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let encrypted = start("mtls", &authority, Some(&clients));
    let address = &encrypted.sluice.address;
    assert_eq!(refusal(address, &authority, Some(&clients.client("envoy"))), None);
    let nobody = refusal(address, &authority, None).expect("refused");
    assert!(nobody.contains("CertificateRequired"), "{nobody}");
    let foreign = Authority::new().client("envoy");
    assert!(refusal(address, &authority, Some(&foreign)).is_some(), "another authority's");
    assert!(refusal(address, &authority, Some(&clients.server("envoy"))).is_some(), "not for clients");

    let healthy = health(address, &encrypted.sluice.admin, &encrypted.arguments);
    assert_eq!(healthy.status.code(), Some(0), "{}", String::from_utf8_lossy(&healthy.stderr));
    let nobody = health(address, "off", &encrypted.arguments);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("--admin-listen"));
}

/// What is wrong in a file is no reason to restart a sidecar that works, and that could not start again.
#[test]
fn health_asks_whether_the_sidecar_works_and_not_whether_its_files_do() {
    let authority = Authority::new();
    let mut encrypted = start("health", &authority, None);
    let is_healthy = |encrypted: &Encrypted| {
        let asked = health(&encrypted.sluice.address, "off", &encrypted.arguments);
        assert_eq!(asked.status.code(), Some(0), "{}", String::from_utf8_lossy(&asked.stderr));
    };
    encrypted.files.write("server.pem", "no certificate\n");
    encrypted.sluice.wait_for_line("those from before stay");
    is_healthy(&encrypted);
    encrypted.files.write("server.pem", &authority.server("sluice").certificate);
    encrypted.sluice.wait_for_line("those from before stay");
    is_healthy(&encrypted);
    encrypted
        .arguments
        .extend(["--admin-token-file", "/nowhere", "--redis-url", "redis://nowhere"].map(str::to_owned));
    encrypted.arguments.extend(["--redis-password-file", "/nowhere"].map(str::to_owned));
    is_healthy(&encrypted);
}

#[test]
fn health_asks_at_a_unix_socket_where_others_want_a_certificate() {
    let (authority, files) = (Authority::new(), Directory::new("health-unix"));
    let server = authority.server("sluice");
    let socket = format!("unix:{}", files.write("sluice", "").replace("/sluice", "/socket"));
    let arguments = [
        "--admin-listen",
        "off",
        "--listen",
        &socket,
        "--tls-cert",
        &files.write("server.pem", &server.certificate),
        "--tls-key",
        &files.write("server.key", &server.key),
        "--tls-client-ca",
        &files.write("clients.pem", &authority.pem()),
    ];
    let mut sluice = Running::start_with(&arguments);
    sluice.wait_for_line("unix:");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear().args(["--listen", &sluice.address]).args(arguments).arg("health");
    let asked = command.output().expect("it runs");
    assert_eq!(asked.status.code(), Some(0), "{}", String::from_utf8_lossy(&asked.stderr));
}

#[test]
fn new_certificates_hold_without_a_restart_and_wrong_ones_never() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut encrypted = start("rotation", &old, None);
    let address = encrypted.sluice.address.clone();
    let mut kept = connect(&address, &old, None, "http/1.1");
    assert!(exchange(&mut kept, HEALTHZ).starts_with("HTTP/1.1 200"));

    // A certificate whose key is still to come, as a rotation by two files looks halfway.
    let server = new.server("sluice");
    encrypted.files.write("server.pem", &server.certificate);
    let said = encrypted.sluice.wait_for_line("those from before stay");
    assert!(said.contains("server.key"), "{said}");
    assert_eq!(refusal(&address, &old, None), None, "the old one is still shown");

    encrypted.files.write("server.key", &server.key);
    encrypted.sluice.wait_for_line("read anew");
    assert_eq!(refusal(&address, &new, None), None);
    assert!(refusal(&address, &old, None).is_some());
    assert!(exchange(&mut kept, HEALTHZ).starts_with("HTTP/1.1 200"), "who is connected stays so");

    // The same mistake is told again where it was put right in between.
    for _ in 0..2 {
        encrypted.files.write("server.pem", "no certificate\n");
        encrypted.sluice.wait_for_line("those from before stay");
        assert_eq!(refusal(&address, &new, None), None);
        encrypted.files.write("server.pem", &server.certificate);
        encrypted.sluice.wait_for_line("right again");
    }
}

#[test]
fn a_client_authority_that_changes_holds_for_new_connections() {
    let (authority, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let mut encrypted = start("authority", &authority, Some(&old));
    let address = encrypted.sluice.address.clone();
    let (before, after) = (old.client("envoy"), new.client("envoy"));
    assert_eq!(refusal(&address, &authority, Some(&before)), None);
    encrypted.files.write("clients.pem", &new.pem());
    encrypted.sluice.wait_for_line("read anew");
    assert_eq!(refusal(&address, &authority, Some(&after)), None);
    assert!(refusal(&address, &authority, Some(&before)).is_some());
}

#[test]
fn wrong_files_end_it_with_1_and_are_named() {
    let files = Directory::new("wrong");
    let (server, other) = (Authority::new().server("sluice"), Authority::new().server("sluice"));
    let [certificate, key] =
        [files.write("cert.pem", &server.certificate), files.write("key.pem", &server.key)];
    let foreign = files.write("other.key", &other.key);
    let wrong: [(&[&str], &[&str]); 5] = [
        (&["--tls-cert", "/nowhere.pem", "--tls-key", &key], &["--tls-cert /nowhere.pem", "readable"]),
        (&["--tls-cert", &key, "--tls-key", &key], &["--tls-cert", "key.pem", "BEGIN CERTIFICATE"]),
        (&["--tls-cert", &certificate, "--tls-key", &certificate], &["--tls-key", "BEGIN PRIVATE KEY"]),
        (&["--tls-cert", &certificate, "--tls-key", &foreign], &["cert.pem", "other.key", "made for"]),
        (
            &["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &key],
            &["--tls-client-ca", "BEGIN CERTIFICATE"],
        ),
    ];
    for (arguments, words) in wrong {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "off"];
        let output = command.env_clear().args(listen).args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
        assert!(!said.contains("PRIVATE KEY-----\nM"), "a key is shown: {said}");
    }
}

#[test]
fn an_admin_listener_for_others_is_encrypted_and_wants_the_token() {
    let authority = Authority::new();
    let files = Directory::new("admin");
    let server = authority.server("sluice");
    let arguments = [
        "--admin-listen",
        "0.0.0.0:0",
        "--admin-token-file",
        &files.write("token", "0123456789abcdef\n"),
        "--tls-cert",
        &files.write("server.pem", &server.certificate),
        "--tls-key",
        &files.write("server.key", &server.key),
        "--tls-client-ca",
        &files.write("clients.pem", &authority.pem()),
    ];
    let sluice = Running::start_with(&arguments);
    let address = sluice.admin.replace("0.0.0.0", "127.0.0.1");
    let ask = |token: &str| {
        let mut stream = connect(&address, &authority, None, "http/1.1");
        let head = format!("GET /v1/status HTTP/1.1\r\nhost: sluice.internal\r\n{token}\r\n");
        exchange(&mut stream, head.as_bytes())
    };
    assert!(ask("authorization: Bearer 0123456789abcdef\r\n").contains("\"kind\":\"memory\""));
    assert!(ask("authorization: Bearer 0123456789abcdeF\r\n").starts_with("HTTP/1.1 401"));
    assert!(ask("").contains("\"code\":\"no_token\""));

    // By the loopback it is in the clear, for this machine.
    let local = Running::start();
    assert!(get(&local.admin, "/v1/status").contains("\"ready\":true"));
}
