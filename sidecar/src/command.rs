//! What the binary does besides serving, as written on the command line.

use clap::{Parser, Subcommand, ValueEnum};

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

/// What the binary does besides serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Ask the sidecar that runs with the same --listen whether it is ready; exits with 0 or 1
    Health,
    /// Tell what is wrong with the limits in envoy.yaml, and what is hardly meant
    ///
    /// Checks every Sluice filter in the files, wherever it stands, by the filter's own code and as Envoy reads YAML:
    /// in Envoy's configuration (listeners, discovery files, ConfigMaps), in Istio's WasmPlugin, in Envoy Gateway's
    /// EnvoyExtensionPolicy, or as policies in a file of their own. Warns of what Envoy accepts and hardly anybody
    /// means.
    Check(CheckArgs),
    /// Tell which policies govern a request, from whose buckets it takes, and how much
    ///
    /// Nothing is asked and nothing is counted: the policies of every Sluice filter in the file are applied to the
    /// request by the filter's own code. What is chosen at random is told as a share.
    Explain(ExplainArgs),
    /// Print the JSON Schema of the filter's configuration, for editors
    Schema,
}

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

/// How something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}
