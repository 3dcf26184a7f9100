//! Which sidecar an operator's command asks, and how they know each other.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use clap::builder::{OsStringValueParser, TypedValueParser};
use hyper::Uri;

use super::{Args, InvalidConfig, ListenAddress, Secret, edge};

/// Where a sidecar is asked, as written; what is not is that of the sidecar on this machine, by the flags of serving.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct AdminArgs {
    /// The admin listener of the sidecar: http://HOST:PORT, https://HOST:PORT or unix:/PATH; by default the one that
    /// --admin-listen gives a sidecar on this machine
    #[arg(long, env = "SLUICE_ADMIN", value_name = "URL", hide_env_values = true)]
    pub admin: Option<String>,

    // The environment is read by the flag of serving, which is given before the command.
    /// The file of its token; by default that of SLUICE_ADMIN_TOKEN_FILE, or give the token itself in the environment as
    /// SLUICE_ADMIN_TOKEN, which comes first
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// The authorities that may have signed its certificate, in PEM, instead of those of the system
    #[arg(long, env = "SLUICE_ADMIN_CA", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub admin_ca: Option<PathBuf>,
}

/// Where a sidecar is asked, and what is shown and believed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTarget {
    /// Where.
    pub place: Place,
    /// What is believed of who answers there; in the clear nothing is asked.
    pub trust: Option<Trust>,
    /// The value of `authorization`, where there is a token.
    pub authorization: Option<Secret>,
}

/// Where a sidecar is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Who is taken for the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever has the key of the certificate in this file: the sidecar on this machine, which is asked by an address that its
    /// certificate need not name.
    Itself(PathBuf),
    /// Whoever has a certificate for the name that is asked, by one of these authorities, or of those of the system.
    Authorities(Option<PathBuf>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl AdminTarget {
    /// That of a command, and otherwise that of the sidecar which these flags of serving belong to.
    ///
    /// # Errors
    /// [`InvalidConfig`] where it is none, or its token cannot be read.
    pub fn new(admin: &AdminArgs, serving: &Args) -> Result<Self, InvalidConfig> {
        let (place, trust) = match admin.admin.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => written(url, admin.admin_ca.clone().filter(|path| !path.as_os_str().is_empty()))?,
            None => own(serving)?,
        };
        let file = admin.admin_token_file.as_deref().or(serving.admin_token_file.as_deref());
        let token = file.map(edge::token_file).transpose()?.or_else(|| serving.admin_token.clone());
        let authorization = token.map(|token| edge::is_token(&token).map(|()| bearer(&token))).transpose()?;
        Ok(Self { place, trust, authorization })
    }
}

fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

fn invalid(found: String, mend: &'static str) -> InvalidConfig {
    InvalidConfig { flag: "--admin", variable: "SLUICE_ADMIN", found, mend }
}

fn written(url: &str, ca: Option<PathBuf>) -> Result<(Place, Option<Trust>), InvalidConfig> {
    let mend = "Write http://HOST:PORT, https://HOST:PORT or unix:/PATH";
    if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok((Place::Unix(path.into()), None));
    }
    let parsed = url.parse::<Uri>().ok();
    let uri =
        parsed.filter(|uri| matches!(uri.path_and_query().map(|rest| rest.as_str()), None | Some("" | "/")));
    let Some((uri, host)) = uri.as_ref().and_then(|uri| Some((uri, uri.host()?))) else {
        return Err(invalid(format!("{url:?} is not the address of a sidecar"), mend));
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        let mend =
            "Leave out user and password: the token is given by --admin-token-file or SLUICE_ADMIN_TOKEN";
        return Err(invalid("a sidecar knows no users".to_owned(), mend));
    }
    // A port that is none is none to the parser, too, and somebody else listens at that of HTTP.
    let port =
        uri.authority().and_then(|authority| authority.as_str().strip_prefix(host)).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match (uri.scheme_str(), uri.port_u16().filter(|port| *port != 0)) {
        (Some("http"), Some(port)) => Ok((Place::Tcp(host, port), None)),
        (Some("https"), Some(port)) => Ok((Place::Tcp(host, port), Some(Trust::Authorities(ca)))),
        (Some("https"), None) if port.is_empty() => Ok((Place::Tcp(host, 443), Some(Trust::Authorities(ca)))),
        (Some("http" | "https"), None) => {
            Err(invalid(format!("{url:?} names no port from 1 to 65535"), mend))
        }
        _ => Err(invalid(format!("{url:?} is not the address of a sidecar"), mend)),
    }
}

/// That of the sidecar on this machine. The wildcard address is reached by the loopback.
fn own(serving: &Args) -> Result<(Place, Option<Trust>), InvalidConfig> {
    match edge::admin_address(&serving.admin_listen)? {
        None => Err(invalid(
            "--admin-listen is off, so the sidecar on this machine answers no operator".to_owned(),
            "Name another one, or give it an admin listener",
        )),
        Some(ListenAddress::Unix(path)) => Ok((Place::Unix(path), None)),
        Some(address @ ListenAddress::Tcp(tcp)) => {
            let itself = serving.tls_cert.clone().filter(|_| !address.is_local());
            let tcp = reachable(tcp);
            Ok((Place::Tcp(tcp.ip().to_string(), tcp.port()), itself.map(Trust::Itself)))
        }
    }
}

/// The address by which a listener is reached on its own machine.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn target(admin: Option<&str>, serving: &[&str]) -> Result<(String, Option<Trust>), String> {
        let admin = AdminArgs {
            admin: admin.map(str::to_owned),
            admin_token_file: None,
            admin_ca: Some("ca.pem".into()),
        };
        let serving = Args::parse_from([&["sluice"], serving].concat());
        let target = AdminTarget::new(&admin, &serving).map_err(|error| error.to_string())?;
        Ok((target.place.to_string(), target.trust))
    }

    #[test]
    fn the_sidecar_on_this_machine_is_asked_where_it_listens() {
        let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
        let at = |listen| target(None, &[&["--admin-listen", listen], &tls[..]].concat());
        assert_eq!(target(None, &[]), Ok(("127.0.0.1:9091".to_owned(), None)));
        assert_eq!(target(Some(""), &[]), Ok(("127.0.0.1:9091".to_owned(), None)), "as Compose sets it");
        assert_eq!(at("127.0.0.1:1"), Ok(("127.0.0.1:1".to_owned(), None)), "nothing is encrypted there");
        assert_eq!(at("unix:/run/a.sock"), Ok(("unix:/run/a.sock".to_owned(), None)));
        let itself = Some(Trust::Itself("cert.pem".into()));
        assert_eq!(at("0.0.0.0:1"), Ok(("127.0.0.1:1".to_owned(), itself.clone())));
        assert_eq!(at("[::]:1"), Ok(("[::1]:1".to_owned(), itself)));
        assert!(at("off").is_err_and(|said| said.contains("--admin") && said.contains("off")));
    }

    #[test]
    fn another_is_asked_by_its_url() {
        let at = |url| target(Some(url), &["--admin-listen", "off"]);
        let ca = Some(Trust::Authorities(Some("ca.pem".into())));
        assert_eq!(at("http://10.0.0.7:9091/"), Ok(("10.0.0.7:9091".to_owned(), None)));
        assert_eq!(at("http://[::1]:9091"), Ok(("[::1]:9091".to_owned(), None)));
        assert_eq!(at("https://sluice.internal"), Ok(("sluice.internal:443".to_owned(), ca)));
        assert_eq!(at("unix:/run/a.sock"), Ok(("unix:/run/a.sock".to_owned(), None)));
        for wrong in ["10.0.0.7:9091", "ftp://a:1", "http://", "http://a:1/b", "http://a:1?b", "unix:", "a b"]
        {
            let said = at(wrong).expect_err(wrong);
            assert!(said.contains("--admin (or SLUICE_ADMIN)") && said.contains("Write http://"), "{said}");
        }
        for port in
            ["http://a", "http://a:", "http://a:0", "http://a:90911", "https://a:", "https://[::1]:99999"]
        {
            let said = at(port).expect_err(port);
            assert!(said.contains("no port from 1 to 65535. Write http://"), "{said}");
        }
        let said = at("http://root:hunter2@a:1").expect_err("users");
        assert!(said.contains("SLUICE_ADMIN_TOKEN") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_token_that_is_none_is_told_before_anything_is_sent() {
        let mut serving = Args::parse_from(["sluice"]);
        let admin = AdminArgs { admin: None, admin_token_file: None, admin_ca: None };
        serving.admin_token = Some(Secret::new("a token\nof two lines".to_owned()));
        let said = AdminTarget::new(&admin, &serving).expect_err("no header").to_string();
        assert!(said.contains("SLUICE_ADMIN_TOKEN") && said.contains("printable ASCII"), "{said}");
        assert!(!said.contains("two lines"), "{said}");
        serving.admin_token = Some(Secret::new("a-token-of-some-length".to_owned()));
        let target = AdminTarget::new(&admin, &serving).expect("right");
        assert_eq!(target.authorization, Some(Secret::new("Bearer a-token-of-some-length".to_owned())));
    }
}
