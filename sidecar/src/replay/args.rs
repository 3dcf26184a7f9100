//! What `sluice replay` is asked for on the command line.

use std::str::FromStr;

use clap::Parser;

use crate::command::Format;

const AFTER_HELP: &str = "\
Lines are read in the default format of Envoy or of Istio, or as JSON objects, one on a line:
  the time        start_time, timestamp, time, @timestamp or ts
  the request     method, path, x_envoy_original_path, authority or host, and any header by its name
  the client      downstream_remote_address, or else the end of x_forwarded_for
  the response    response_code, bytes_sent, grpc_status
  the route       route_name, where routes say more in their metadata
A policy that needs what the log does not tell is not judged for such a request, and it is told why.

Examples:
  sluice replay --config envoy.yaml access.log access.log.1.gz
  sluice replay --config envoy.yaml --field x-api-key=api_key --top 20 access.json
  kubectl logs deploy/envoy | sluice replay --config envoy.yaml --format json -

Names of --field:
  time, client_address, route_name, :method, :path, :authority, :status
  x-api-key               a header of the request, in lower case
  response:x-cost         a header of the response
  filter_state|tenant     an attribute, by its path

Exit codes:
  0   the logs were replayed
  1   a file could not be read, something in the configuration is wrong, or no line could be read; with --strict also
      where one line could not be
  64  the command line is wrong";

/// What to replay, under which configuration.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(after_help = AFTER_HELP)]
pub struct ReplayArgs {
    /// Access logs, oldest first; - is the standard input. What is compressed by gzip is read as such
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<String>,

    /// The file with the Sluice filter: YAML, or JSON where the name ends in .json
    #[arg(long, value_name = "FILE")]
    pub config: String,

    /// Where a JSON log tells something under another name
    #[arg(long = "field", value_name = "NAME=JSON_KEY")]
    pub fields: Vec<Field>,

    /// How many keys are listed that would have been denied most
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub top: u16,

    /// For people, or for programs
    #[arg(long, default_value = "text")]
    pub format: Format,

    /// Exit with 1 where a line cannot be read
    #[arg(long)]
    pub strict: bool,
}

/// `x-api-key=api_key`: what is to be known, and the key of JSON objects that tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What is to be known.
    pub name: String,
    /// The key that tells it, exactly as it is written.
    pub key: String,
}

/// Why a `--field` is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a name and the key of the JSON objects that tells it, such as x-api-key=api_key")]
pub struct BadField;

impl FromStr for Field {
    type Err = BadField;

    fn from_str(written: &str) -> Result<Self, BadField> {
        let (name, key) = written.split_once('=').ok_or(BadField)?;
        if name.is_empty() || key.is_empty() {
            return Err(BadField);
        }
        Ok(Self { name: name.to_owned(), key: key.to_owned() })
    }
}
