//! TLS to a real Redis: own authority, client certificates, files that are replaced, and what is wrong told with the mend.

use std::{fs, path::PathBuf, time::Duration};

use fleet::{Redis, RunDir, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use sluice::store::redis::{RedisStore, Timeouts, TlsFiles};

use super::{TIMEOUTS, address, program, remaining, until_ready, until_said};

/// Short where a connection is not to come about.
const QUICK: Timeouts = Timeouts { connect: Duration::from_secs(2), ..TIMEOUTS };

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    path: PathBuf,
}

impl Authority {
    fn new(name: &str, run: &RunDir) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let path = run.write(&format!("{name}.pem"), &issuer.pem()).expect("written");
        Self { issuer, path }
    }

    /// The paths of a certificate for `host` and of its key.
    fn sign(&self, file: &str, host: &str, expired: bool, run: &RunDir) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        let certificate = run.write(&format!("{file}.pem"), &signed.pem()).expect("written");
        (certificate, run.write(&format!("{file}.key"), &key.serialize_pem()).expect("written"))
    }
}

/// A Redis with TLS, and the URL of that.
fn start(
    run: &RunDir,
    identity: &(PathBuf, PathBuf),
    clients: &Authority,
    wants_certificate: bool,
) -> (Redis, String) {
    let port = free_port().expect("a port").to_string();
    let path = |path: &PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
    let (certificate, key, ca) = (path(&identity.0), path(&identity.1), path(&clients.path));
    let auth = if wants_certificate { "yes" } else { "no" };
    let args = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        auth,
    ];
    (
        Redis::start(&program(), run, &args).expect("Redis starts, built with TLS"),
        format!("rediss://localhost:{port}"),
    )
}

async fn store(
    url: &str,
    ca: &Authority,
    identity: Option<&(PathBuf, PathBuf)>,
    timeouts: Timeouts,
) -> RedisStore {
    let files = TlsFiles { ca: Some(ca.path.clone()), identity: identity.cloned() };
    RedisStore::start(address(url).with_tls(files).expect("files"), timeouts).await
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own_and_a_client_certificate() {
    let run = RunDir::new().expect("a directory");
    let ours = Authority::new("ours", &run);
    let server = ours.sign("server", "localhost", false, &run);
    let client = ours.sign("client", "sidecar", false, &run);
    let (_redis, url) = start(&run, &server, &ours, true);
    let known = store(&url, &ours, Some(&client), TIMEOUTS).await;
    assert_eq!(known.ready(), Ok(()));
    assert_eq!(remaining(&known, "a").await, Some(999_999));

    let unknown = store(&url, &ours, None, QUICK).await;
    until_said(&unknown, "--redis-cert and --redis-key").await;

    let theirs = Authority::new("theirs", &run);
    let stranger = theirs.sign("stranger", "sidecar", false, &run);
    let stranger = store(&url, &ours, Some(&stranger), QUICK).await;
    until_said(&stranger, "does not accept our certificate").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_with_the_mend() {
    let run = RunDir::new().expect("a directory");
    let (ours, theirs) = (Authority::new("ours", &run), Authority::new("theirs", &run));
    let server = ours.sign("server", "localhost", false, &run);
    let (redis, url) = start(&run, &server, &ours, false);
    let untrusted = store(&url, &theirs, None, QUICK).await;
    until_said(&untrusted, "not trusted; name that authority's certificate by --redis-ca").await;
    let misnamed = store(&url.replace("localhost", "127.0.0.1"), &ours, None, QUICK).await;
    until_said(&misnamed, "not for \"127.0.0.1\"").await;
    let plain = store(&redis.url().replace("redis://", "rediss://"), &ours, None, QUICK).await;
    until_said(&plain, "perhaps it does not speak TLS at this port").await;

    let old = ours.sign("old", "localhost", true, &run);
    let (_redis, url) = start(&run, &old, &ours, false);
    until_said(&store(&url, &ours, None, QUICK).await, "has expired").await;
}

#[tokio::test]
async fn files_are_read_anew_at_each_connection() {
    let run = RunDir::new().expect("a directory");
    let (ours, theirs) = (Authority::new("ours", &run), Authority::new("theirs", &run));
    let server = ours.sign("server", "localhost", false, &run);
    let (_redis, url) = start(&run, &server, &ours, false);
    let trusted = ours.path.clone();
    let right = fs::read(&trusted).expect("read");
    fs::write(&trusted, fs::read(&theirs.path).expect("read")).expect("written");
    let store = store(&url, &ours, None, QUICK).await;
    until_said(&store, "not trusted").await;
    fs::write(&trusted, "no PEM").expect("written");
    until_said(&store, "holds no certificate in PEM").await;
    fs::remove_file(&trusted).expect("removed");
    until_said(&store, "cannot be read").await;
    fs::write(&trusted, right).expect("written");
    until_ready(&store).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_start() {
    let run = RunDir::new().expect("a directory");
    let ours = Authority::new("ours", &run);
    let (one, other) = (ours.sign("one", "a", false, &run), ours.sign("other", "b", false, &run));
    let refused = |files: TlsFiles| {
        let error = address("rediss://localhost").with_tls(files).expect_err("refused");
        error.to_string()
    };
    let identity = |certificate: &PathBuf, key: &PathBuf| TlsFiles {
        ca: Some(ours.path.clone()),
        identity: Some((certificate.clone(), key.clone())),
    };
    assert!(refused(identity(&one.0, &other.1)).contains("is not the key of"));
    assert!(refused(identity(&one.1, &one.1)).contains("holds no certificate in PEM"));
    assert!(refused(identity(&one.0, &one.0)).contains("holds no private key in PEM"));
    let missing = TlsFiles { ca: Some("/nowhere.pem".into()), identity: None };
    let said = refused(missing);
    assert!(said.contains("--redis-ca /nowhere.pem cannot be read"), "{said}");
}
