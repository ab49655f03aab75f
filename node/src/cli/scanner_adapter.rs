//! `atoll scanner-adapter`: offers the built-in scanner to other registries.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::TlsFiles;
use ground::supervise::Tasks;
use rules::scanners::requests::RequestTerms;
use rules::words::names::Tag;
use scan::Limits;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use upstream::{
    AddressRule, Credentials, Endpoint, Password, Trust, Upstream, UpstreamSettings, UpstreamTerms,
};

use crate::adapter::api::{self, Adapter};
use crate::adapter::authorization::Authorization;
use crate::adapter::database::{Databases, Origin};
use crate::adapter::pulling::{Pulling, PullingTerms};
use crate::adapter::work::{Work, WorkTerms};
use crate::start::lock::FolderLock;
use crate::start::{observe, private};

/// How long a predecessor that has the folder may take to end.
const PREDECESSOR: Duration = Duration::from_secs(10);
/// How long open requests may take after a signal.
const DRAIN: Duration = Duration::from_secs(5);
/// How many bytes of reports are kept, and for how long.
const KEPT: usize = 128 << 20;
const KEEP_FOR: Duration = Duration::from_secs(30 * 60);
/// The maximum size of a manifest in bytes.
const MANIFEST: u64 = 4 << 20;

/// Arguments of `scanner-adapter`.
#[derive(clap::Args)]
pub(super) struct ScannerAdapter {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A folder of this process's own: the database is unpacked there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The database of vulnerabilities: trivy's db.tar.gz. It is opened anew when the file changes.
    #[arg(long, value_name = "FILE", required_unless_present = "database_from")]
    database: Option<PathBuf>,
    /// The same from a registry: [http://]REGISTRY/REPOSITORY:TAG. It is looked at now and then.
    #[arg(long, value_name = "IMAGE", conflicts_with = "database")]
    database_from: Option<String>,
    /// A file with NAME:PASSWORD for that registry.
    #[arg(long, value_name = "FILE", requires = "database_from")]
    database_login: Option<PathBuf>,
    /// How many seconds pass between two looks at that registry.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    database_every: u64,
    /// A file with the secrets of those who may ask, one a line: `basic NAME:PASSWORD`,
    /// `bearer TOKEN` or `api-key KEY`.
    #[arg(long, value_name = "FILE", conflicts_with = "open")]
    authorization: Option<PathBuf>,
    /// Everybody who reaches it may ask. Without this and --authorization it listens on loopback only.
    #[arg(long)]
    open: bool,
    /// Pull from this registry only; may be given several times. Without it, from each that is named.
    #[arg(long = "registry", value_name = "URL")]
    registries: Vec<String>,
    /// Pull from private addresses, too.
    #[arg(long)]
    allow_private: bool,
    /// Pull from this machine, too.
    #[arg(long)]
    allow_loopback: bool,
    /// A file with certificates of authorities that are trusted besides the public ones (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to serve HTTPS with (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// The maximum number of images that are scanned at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// The maximum number of scans that wait.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    queue: u16,
    /// How many seconds the scan of one image may take.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    timeout: u64,
}

/// Runs it until a signal.
pub(super) fn run(command: ScannerAdapter) -> io::Result<()> {
    private::from_now_on();
    observe::start_logging(&config::Log::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(command))
}

/// An error with the argument that it is about.
fn about(argument: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{argument}: {error}"))
}

fn read(argument: &str, file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file);
    text.map_err(|error| about(argument, format!("{}: {error}", file.display())))
}

impl ScannerAdapter {
    fn authorization(&self) -> io::Result<Authorization> {
        match (&self.authorization, self.open || self.listen.ip().is_loopback()) {
            (Some(file), _) => {
                let text = read("--authorization", file)?;
                Authorization::read(&text).map_err(|why| about("--authorization", why))
            }
            (None, true) => Ok(Authorization::Open),
            (None, false) => Err(io::Error::other(format!(
                "{} is reached by others: say who may ask (--authorization FILE), or that everybody may (--open)",
                self.listen
            ))),
        }
    }

    fn pulling(&self, trust: Trust) -> io::Result<PullingTerms> {
        let registries = self.registries.iter().map(|url| {
            url.parse::<Endpoint>().map_err(|error| about("--registry", format!("{url}: {error}")))
        });
        Ok(PullingTerms {
            registries: registries.collect::<io::Result<_>>()?,
            rule: self.rule(),
            trust,
            each: each(),
            limits: Limits::default(),
        })
    }

    fn rule(&self) -> AddressRule {
        AddressRule { allow_private: self.allow_private, allow_loopback: self.allow_loopback }
    }

    fn origin(&self, trust: Trust, tasks: &Tasks) -> io::Result<Origin> {
        let Some(image) = &self.database_from else {
            return match &self.database {
                Some(file) => Ok(Origin::File(file.clone())),
                None => Err(io::Error::other("--database or --database-from is needed")),
            };
        };
        let wrong = |error: &dyn std::fmt::Display| about("--database-from", error);
        let (scheme, rest) = image.split_once("://").unwrap_or(("https", image));
        let form = "it is written [http://]REGISTRY/REPOSITORY:TAG";
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong(&form))?;
        let (repository, tag) = rest.rsplit_once(':').ok_or_else(|| wrong(&form))?;
        tag.parse::<Tag>().map_err(|e| wrong(&e))?;
        let endpoint = format!("{scheme}://{host}").parse::<Endpoint>().map_err(|e| wrong(&e))?;
        let repository = endpoint.repository(repository).map_err(|e| wrong(&e))?;
        let login = self.database_login.as_ref().map(|file| {
            let text = read("--database-login", file)?;
            let pair = text.trim().split_once(':');
            let (user, password) =
                pair.ok_or_else(|| about("--database-login", "the file has NAME:PASSWORD"))?;
            let (user, password) = (user.to_owned(), password.into());
            Ok::<_, io::Error>(Credentials::Password(Password { user, password }))
        });
        let settings = UpstreamSettings {
            endpoint,
            credentials: login.transpose()?,
            trust,
            // the operator has named it
            rule: AddressRule { allow_private: true, allow_loopback: true },
            terms: each(),
            on_limit: Arc::new(|_, _| {}),
        };
        let registry = Box::new(Upstream::new(settings, tasks.clone()));
        let (tag, every) = (tag.to_owned(), Duration::from_secs(self.database_every.max(1)));
        Ok(Origin::Registry { registry, repository, tag, every })
    }
}

/// Limits for each registry.
fn each() -> UpstreamTerms {
    UpstreamTerms {
        first_byte: Duration::from_secs(20),
        stall: Duration::from_secs(30),
        question: Duration::from_secs(60),
        max_manifest: MANIFEST,
    }
}

async fn serve(command: ScannerAdapter) -> io::Result<()> {
    let authorization = command.authorization()?;
    let pem = command.ca.as_deref().map(|file| read("--ca", file)).transpose()?;
    let trust = Trust::with_authorities(pem.unwrap_or_default().as_bytes());
    let trust = trust.map_err(|error| about("--ca", error))?;
    let pulling = command.pulling(trust.clone())?;
    let (tasks, clients) = (Tasks::new(), Tasks::new());
    let origin = command.origin(trust, &tasks)?;
    private::folder(&command.data_dir)?;
    let _lock = FolderLock::take(&command.data_dir, PREDECESSOR).await?;
    // what a process before has left
    let folder = command.data_dir.join("vulnerabilities");
    let _ = fs::remove_dir_all(&folder);
    private::folder(&folder)?;
    let databases = Arc::new(Databases::new(origin, folder));
    let requests = RequestTerms {
        at_a_time: usize::from(command.workers),
        waiting: usize::from(command.queue),
        kept: KEPT,
        keep_for: KEEP_FOR,
    };
    let terms = WorkTerms { requests, timeout: Duration::from_secs(command.timeout) };
    let pulling = Arc::new(Pulling::new(pulling, tasks.clone()));
    let work = Work::new(databases.clone(), pulling, terms, tasks.clone());
    let tls = command.tls_certificate.clone().zip(command.tls_key.clone());
    let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
    let following = databases.clone();
    tasks.spawn("database", async move { following.follow().await });
    tasks.spawn("work", work.clone().run());
    let adapter = Arc::new(Adapter { authorization, databases, work });
    let address = api::serve(adapter, command.listen, tls.as_ref(), &tasks, &clients).await?;
    info!(%address, "the scanner adapter answers");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
    }
    clients.stop(DRAIN).await;
    tasks.stop(DRAIN).await;
    Ok(())
}
