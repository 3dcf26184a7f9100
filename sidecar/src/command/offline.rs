//! What is asked of files, without any sidecar: the arguments of `sluice check`, `explain`, `openapi`, `completions` and `man`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::Format;
use crate::explain::{Attribute, ClientAddress, Header, RequestLine};

const AFTER_CHECK_HELP: &str = "\
Examples:
  sluice check envoy.yaml
  sluice check --deny-warnings envoy/*.yaml
  kubectl get wasmplugin limits -o yaml | sluice check -

Exit codes:
  0   nothing is wrong
  1   something is wrong, or could not be read; with --deny-warnings also where there is a warning
  64  the command line is wrong";

const AFTER_EXPLAIN_HELP: &str = "\
Examples:
  sluice explain envoy.yaml --request 'GET /api/x' -H 'x-api-key: a' --from 192.0.2.1
  sluice explain envoy.yaml --request 'POST https://shop.example.com/pay?step=2'
  sluice explain envoy.yaml --request 'GET /' --route checkout --format json
  sluice explain envoy.yaml --request 'GET /' --attribute 'filter_state|tenant=shop'

Attributes of keys and conditions, besides what --from and --route tell; each value is taken as text:
  metadata|filter_metadata|NAMESPACE|NAME               dynamic_metadata, with all names of its path
  metadata|filter_metadata|envoy.filters.http.jwt_authn|PAYLOAD|CLAIM
                                                        jwt_claim
  xds|listener_metadata|filter_metadata|NAMESPACE|NAME  listener_metadata
  xds|route_metadata|filter_metadata|NAMESPACE|NAME     route_metadata, where the file has no routes
  filter_state|NAME                                     filter_state
  connection|uri_san_peer_certificate                   client_certificate; or dns_san_peer_certificate,
                                                        sha256_peer_certificate_digest, subject_peer_certificate

Exit codes:
  0   the policies were told
  1   the file could not be read, or something in it is wrong: sluice check tells it, too
  64  the command line is wrong";

const AFTER_COMPLETIONS_HELP: &str = "\
Examples:
  source <(sluice completions bash)
  sluice completions zsh > ~/.zfunc/_sluice
  sluice completions fish > ~/.config/fish/completions/sluice.fish";

const AFTER_MAN_HELP: &str = "\
Examples:
  sluice man | man -l -
  sluice man --dir /usr/local/share/man/man1";

/// What to check.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_CHECK_HELP)]
pub struct CheckArgs {
    /// YAML, or JSON where the name ends in .json; - is the standard input. One of several needs no Sluice filter
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,

    /// Exit with 1 for warnings, too
    #[arg(long)]
    pub deny_warnings: bool,
}

/// What to explain, and for which request.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_EXPLAIN_HELP)]
pub struct ExplainArgs {
    /// YAML, or JSON where the name ends in .json; - is the standard input
    #[arg(value_name = "FILE")]
    pub file: String,

    /// The method and the path with its query, such as 'GET /api/x?page=2'; instead of the path also a whole URL,
    /// and for a CONNECT the host and the port
    #[arg(long, value_name = "METHOD PATH")]
    pub request: RequestLine,

    /// A request header; of several of one name the first counts
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,

    /// The client's address, with or without a port
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<ClientAddress>,

    /// The name of the route that the request takes, which may say more in its metadata
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,

    /// Whatever else Envoy knows about the request: an attribute by its path, such as 'filter_state|tenant=shop'
    #[arg(long = "attribute", value_name = "PATH=VALUE")]
    pub attributes: Vec<Attribute>,

    /// For people, or for programs
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// For which shell.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_COMPLETIONS_HELP)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Where the manual goes.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_MAN_HELP)]
pub struct ManArgs {
    /// Write sluice.1 and a page for each command into this directory, instead of printing sluice.1
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// How the admin API is told.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
pub struct OpenapiArgs {
    /// For programs, or the reference of docs/api.md
    #[arg(long, default_value = "json")]
    pub format: DocumentFormat,
}

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DocumentFormat {
    /// OpenAPI 3.1.
    Json,
    /// Tables of all paths, fields and codes.
    Markdown,
}
