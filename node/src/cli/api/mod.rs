//! The verbs for what Harbor's API has: projects, their members, users, robots, and what is stored.

mod apply;
mod audit;
mod collection;
mod database;
mod dr;
mod drill;
mod explain;
mod jobs;
mod labels;
mod people;
mod places;
mod policies;
mod projects;
mod quotas;
mod robots;
mod scanners;
mod scanning;
mod scrub;
mod sign;
mod signers;
mod stored;
mod trash;
mod trusts;

use std::io;

use bytes::Bytes;
use clap::ValueEnum;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Call, Client, refusal};
use super::node::Node;
use super::shown::{safe, safe_json, table};

pub(super) use apply::{ApplyCommand, run as apply};
pub(super) use audit::{AuditCommand, audit};
pub(super) use collection::{CollectionCommand, collection};
pub(super) use dr::{DrCommand, run as dr};
pub(super) use explain::{ExplainCommand, run as explain};
pub(super) use jobs::{JobsCommand, RepairCommand, jobs, repair};
pub(super) use labels::{LabelCommand, run as labels};
pub(super) use people::{MemberCommand, UserCommand, members, users};
pub(super) use policies::{ImmutableCommand, RetentionCommand, immutable, retention};
pub(super) use projects::{ProjectCommand, run as projects};
pub(super) use quotas::{QuotaCommand, run as quotas};
pub(super) use robots::{RobotCommand, run as robots};
pub(super) use scanners::{ScannerCommand, run as scanners};
pub(super) use scanning::{
    AllowlistCommand, SbomCommand, ScanCommand, VulnerabilitiesCommand, allowlist, sbom, scan,
    vulnerabilities,
};
pub(super) use scrub::{ScrubCommand, run as scrub};
pub(super) use sign::{SignCommand, run as sign};
pub(super) use signers::{
    ExemptCommand, SignaturesCommand, SignerCommand, exempt, run as signers, signatures,
};
pub(super) use stored::{
    ArtifactCommand, RepositoryCommand, TagCommand, artifacts, repositories, tags,
};
pub(super) use trash::{TrashCommand, run as trash};
pub(super) use trusts::{TrustCommand, run as trusts};

/// The largest page that the API gives.
const PAGE: usize = 100;

/// How the answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// As the API has it.
    Json,
}

/// The node to ask, and how to print its answer.
#[derive(clap::Args)]
pub(super) struct Asking {
    /// How to print the answer.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Output,
    #[command(flatten)]
    node: Node,
}

/// The API of a node.
struct Api {
    client: Client,
    output: Output,
}

/// Runs a verb with the API of the node that was named.
fn with<F>(asking: &Asking, verb: impl FnOnce(Api) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let api = Api { client: asking.node.client()?, output: asking.output };
    super::small_runtime()?.block_on(verb(api))
}

impl Api {
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> io::Result<Sent> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer =
            self.client.send(Call { method, body, names: true, ..Call::get(path) }).await?;
        let (status, total) = (answer.status, answer.header("x-total-count").map(str::to_owned));
        let location = answer.header("location").map(str::to_owned);
        let bytes = answer.whole().await?;
        if !status.is_success() {
            let kind = match status {
                StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
                StatusCode::FORBIDDEN => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            return Err(io::Error::new(kind, refusal(status, &bytes)));
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let total = total.and_then(|text| text.parse().ok());
        Ok(Sent { body, total, location })
    }

    /// An answer that is plain text.
    async fn plain(&self, path: &str) -> io::Result<String> {
        let answer = self.client.send(Call { names: true, ..Call::get(path) }).await?;
        let status = answer.status;
        let bytes = answer.whole().await?;
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            false => Err(io::Error::other(format!("the node answered {status}"))),
        }
    }

    async fn get(&self, path: &str) -> io::Result<Value> {
        Ok(self.send(Method::GET, path, None).await?.body)
    }

    /// All pages of a list.
    async fn all(&self, path: &str) -> io::Result<Vec<Value>> {
        let (mut all, mut page) = (Vec::new(), 1);
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{mark}page={page}&page_size={PAGE}");
            let sent = self.send(Method::GET, &path, None).await?;
            let list = sent.body.as_array().cloned().unwrap_or_default();
            let last = list.len() < PAGE;
            all.extend(list);
            if last || sent.total.is_some_and(|total: usize| all.len() >= total) {
                return Ok(all);
            }
            page += 1;
        }
    }

    /// Prints a list: these fields of each entry in columns, or all of it as JSON.
    fn print(&self, list: &[Value], columns: &[(&str, &str)]) {
        if self.output == Output::Json {
            println!("{}", safe_json(&json!(list)));
            return;
        }
        let head: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
        let rows = list.iter().map(|one| {
            columns
                .iter()
                .map(|(_, place)| text(one.pointer(place).unwrap_or(&Value::Null)))
                .collect()
        });
        print!("{}", table(&head, rows.collect()));
    }

    /// Says what was done, in a sentence. As JSON it is the field `done`.
    fn say(&self, done: &str) {
        match self.output {
            Output::Json => println!("{}", safe_json(&json!({ "done": done }))),
            Output::Table => println!("{}", safe(done)),
        }
    }

    fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Prints one thing, field by field, or all of it as JSON.
    fn print_one(&self, one: &Value) {
        if self.output == Output::Json {
            println!("{}", safe_json(one));
            return;
        }
        let fields = one.as_object().into_iter().flatten();
        let rows = fields.map(|(name, value)| vec![name.clone(), text(value)]).collect();
        print!("{}", table(&["FIELD", "VALUE"], rows));
    }
}

/// The answer to a request.
struct Sent {
    body: Value,
    total: Option<usize>,
    location: Option<String>,
}

/// A value for people.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => safe(text),
        other => safe(&other.to_string()),
    }
}

/// A part of a path or a query, encoded.
fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
