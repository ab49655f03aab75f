//! `atoll scan`, `atoll vulnerabilities`, `atoll allowlist` and `atoll scanner`.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use http::Method;
use rules::policies::vulnerabilities::Severity;
use rules::words::moment::{self, Timestamp};
use serde_json::{Value, json};

use super::database::{DatabaseVerb, import};
use super::projects::{by_name, path};
use super::scanners::list;
use super::stored::artifact_path;
use super::{Api, Asking, with};
use crate::cli::shown::safe;

/// The time between two looks at a scan.
const LOOK: Duration = Duration::from_millis(500);
/// How findings are shown.
const COLUMNS: [(&str, &str); 7] = [
    ("ID", "/id"),
    ("SEVERITY", "/severity"),
    ("PACKAGE", "/package"),
    ("INSTALLED", "/version"),
    ("FIXED", "/fix_version"),
    ("STATUS", "/status"),
    ("ALLOWED", "/allowed"),
];
/// How long a scan may wait before it is said what it may wait for.
const PATIENCE: u32 = 20;
/// The mesh's allowlist.
const SYSTEM: &str = "/api/v2.0/system/CVEAllowlist";
/// The media type of reports.
const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

/// Arguments of `scan`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct ScanCommand {
    #[command(subcommand)]
    verb: Option<ScanVerb>,
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST.
    #[arg(required = true)]
    image: Option<String>,
    /// Only ask for the scan, and do not wait for its end.
    #[arg(long, conflicts_with = "stop")]
    no_wait: bool,
    /// Stop the scan that waits or runs.
    #[arg(long)]
    stop: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum ScanVerb {
    /// The database of vulnerabilities.
    Db {
        #[command(subcommand)]
        verb: DatabaseVerb,
        #[command(flatten)]
        asking: Asking,
    },
}

/// Arguments of `vulnerabilities`.
#[derive(clap::Args)]
pub(in crate::cli) struct VulnerabilitiesCommand {
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST.
    image: String,
    /// Only those of this severity or a higher one: negligible, low, medium, high, critical.
    #[arg(long, value_parser = severity)]
    severity: Option<Severity>,
    /// Only those that have a fix.
    #[arg(long)]
    fixable: bool,
    /// Fail if there is one of this severity or a higher one among those that the allowlist does not
    /// let pass, or if too little is known of the image.
    #[arg(long, value_parser = severity)]
    fail_on: Option<Severity>,
    /// Print SARIF 2.1.0, for CI.
    #[arg(long)]
    sarif: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Arguments of `sbom`.
#[derive(clap::Args)]
pub(in crate::cli) struct SbomCommand {
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST. It was scanned before.
    image: String,
    /// The form of the document.
    #[arg(long, value_enum, default_value = "spdx")]
    format: SbomFormat,
    /// Keep both documents beside the image, as referrers, and print nothing.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SbomFormat {
    /// SPDX 2.3.
    Spdx,
    /// CycloneDX 1.6.
    Cyclonedx,
}

/// Arguments of `allowlist`.
#[derive(clap::Args)]
pub(in crate::cli) struct AllowlistCommand {
    #[command(subcommand)]
    verb: AllowlistVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum AllowlistVerb {
    /// Show which vulnerabilities do not count.
    Show {
        /// Those of this project; those of the mesh if it is left out.
        #[arg(long)]
        project: Option<String>,
    },
    /// Say which vulnerabilities do not count, instead of those before. A project uses its own list
    /// if reuse_sys_cve_allowlist=false, and else the mesh's.
    Set {
        /// For this project; for the mesh if it is left out.
        #[arg(long)]
        project: Option<String>,
        /// When the list ends: 2027-01-31 (as that day begins, in UTC), 2027-01-31T12:00:00Z, or seconds since 1970; never if it
        /// is left out.
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<u64>,
        /// The ids, for instance CVE-2024-5535.
        #[arg(value_delimiter = ',')]
        ids: Vec<String>,
    },
    /// Add ids to those that do not count. The list ends when it did before.
    Add {
        /// For this project; for the mesh if it is left out.
        #[arg(long)]
        project: Option<String>,
        /// The ids, for instance CVE-2024-5535.
        #[arg(required = true, value_delimiter = ',')]
        ids: Vec<String>,
    },
    /// Take ids off the list: they count again.
    Remove {
        /// For this project; for the mesh if it is left out.
        #[arg(long)]
        project: Option<String>,
        /// The ids, for instance CVE-2024-5535.
        #[arg(required = true, value_delimiter = ',')]
        ids: Vec<String>,
    },
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::named(text).ok_or_else(|| "write negligible, low, medium, high or critical".into())
}

/// A time in seconds since 1970.
pub(super) fn time(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().or_else(|| Some(moment::read(text)?.0 / 1000));
    seconds.ok_or_else(|| {
        "write 2027-01-31 or 2027-01-31T12:00:00Z (UTC), or seconds since 1970".into()
    })
}

fn seconds_now() -> u64 {
    ground::clock::timestamp().0 / 1000
}

/// Runs `scan`.
pub(in crate::cli) fn scan(command: &ScanCommand) -> io::Result<()> {
    let image = match (&command.verb, &command.image) {
        (Some(ScanVerb::Db { verb, asking }), _) => {
            return with(asking, |api| async move {
                match verb {
                    DatabaseVerb::Status => list(&api).await,
                    DatabaseVerb::Import { file } => import(&api, file).await,
                }
            });
        }
        (None, Some(image)) => image,
        (None, None) => return Err(io::Error::other("which image? REPOSITORY:TAG")),
    };
    with(&command.asking, |api| async move {
        let path = artifact_path(image)?;
        if command.stop {
            api.send(Method::POST, &format!("{path}/scan/stop"), None).await?;
            api.say(&format!("the scan of {image} is stopped"));
            return Ok(());
        }
        let before = overview(&api, &path).await?;
        api.send(Method::POST, &format!("{path}/scan"), None).await?;
        if command.no_wait {
            api.say(&format!("a scan of {image} is asked for"));
            return Ok(());
        }
        let (mut found, mut looked) = (overview(&api, &path).await?, 0);
        // until it is written, what is shown is of the scan before
        while matches!(found["scan_status"].as_str(), Some("Pending" | "Running") | None)
            || found == before
        {
            looked += 1;
            if looked == PATIENCE {
                let project = image.split('/').next().unwrap_or_default();
                let primary = by_name(&api, project).await?["primary"].clone();
                eprintln!(
                    "{image} waits: node {} scans it, one image after the other, if it has the database (`atoll scanner --url` of that node)",
                    safe(primary.as_str().unwrap_or("?"))
                );
            }
            tokio::time::sleep(LOOK).await;
            found = overview(&api, &path).await?;
        }
        if api.is_json() {
            api.print_one(&found);
        }
        match found["scan_status"].as_str() {
            Some("Success") if api.is_json() => Ok(()),
            Some("Success") => {
                println!("{image}: {}", summary(&found));
                Ok(())
            }
            _ => Err(io::Error::other(format!("{image}: {}", summary(&found)))),
        }
    })
}

async fn overview(api: &Api, path: &str) -> io::Result<Value> {
    let artifact = api.get(&format!("{path}?with_scan_overview=true")).await?;
    Ok(artifact["scan_overview"][REPORT].clone())
}

fn summary(found: &Value) -> String {
    let status = found["scan_status"].as_str().unwrap_or("Not Scanned");
    if status != "Success" {
        return format!("{status}: {}", safe(found["error"].as_str().unwrap_or("no report")));
    }
    let counts = Severity::ALL.iter().rev().filter_map(|severity| {
        let count = found["summary"]["summary"][severity.word()].as_u64()?;
        Some(format!("{count} {}", severity.word()))
    });
    let counts: Vec<String> = counts.collect();
    let mut text = match counts.is_empty() {
        true => "no known vulnerabilities".to_owned(),
        false => format!("{}; {} have a fix", counts.join(", "), found["summary"]["fixable"]),
    };
    if let Some(why) = found["insufficient"].as_str() {
        text += &format!("; this is not all: {}", safe(why));
    }
    text
}

/// Runs `vulnerabilities`.
pub(in crate::cli) fn vulnerabilities(command: &VulnerabilitiesCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let path = artifact_path(&command.image)?;
        let answer = api.get(&format!("{path}/additions/vulnerabilities")).await?;
        let report = &answer[REPORT];
        let of = |one: &Value| Severity::named(one["severity"].as_str().unwrap_or_default());
        let mut found: Vec<Value> =
            report["vulnerabilities"].as_array().cloned().unwrap_or_default();
        found.retain(|one| {
            of(one).unwrap_or_default() >= command.severity.unwrap_or_default()
                && (!command.fixable || one["fix_version"] != "")
        });
        found.sort_by_key(|one| std::cmp::Reverse(of(one)));
        let allowed = allowed(&api, &command.image).await?;
        for one in &mut found {
            let id = one["id"].as_str().unwrap_or_default();
            one["allowed"] = allowed.iter().any(|other| other == id).into();
        }
        if command.sarif {
            let sarif = sarif(&command.image, &found, report["insufficient"].as_str());
            println!("{}", crate::cli::shown::safe_json(&sarif));
        } else {
            if api.is_json() {
                let mut shown = report.clone();
                shown["vulnerabilities"] = found.clone().into();
                api.print_one(&shown);
            } else {
                api.print(&found, &COLUMNS);
            }
            if let (Some(why), false) = (report["insufficient"].as_str(), api.is_json()) {
                eprintln!("this is not all: {}", safe(why));
            }
        }
        let Some(worst) = command.fail_on else { return Ok(()) };
        // what the allowlist lets pass is served
        let counts = |one: &&Value| of(one).unwrap_or_default() >= worst && one["allowed"] != true;
        match found.iter().filter(counts).count() {
            0 => match report["insufficient"].as_str() {
                None => Ok(()),
                // CI would be green for what is refused later
                Some(why) => Err(io::Error::other(format!(
                    "{}: too little is known of it: {}",
                    command.image,
                    safe(why)
                ))),
            },
            count => Err(io::Error::other(format!(
                "{}: {count} vulnerabilities of severity {} or higher",
                command.image,
                worst.word()
            ))),
        }
    })
}

/// The ids that do not count for an image's project now. Who may not read the mesh's list sees none
/// of it.
async fn allowed(api: &Api, image: &str) -> io::Result<Vec<String>> {
    let project = by_name(api, image.split('/').next().unwrap_or_default()).await?;
    let list = match project["metadata"]["reuse_sys_cve_allowlist"] == "false" {
        true => project["cve_allowlist"].clone(),
        false => match api.get(SYSTEM).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Value::Null,
            list => list?,
        },
    };
    if list["expires_at"].as_u64().is_some_and(|end| end <= seconds_now()) {
        return Ok(Vec::new());
    }
    let ids = list["items"].as_array().into_iter().flatten();
    Ok(ids.filter_map(|one| Some(one["cve_id"].as_str()?.to_owned())).collect())
}

/// The findings as SARIF 2.1.0 (OASIS), with one rule for each id.
fn sarif(image: &str, found: &[Value], insufficient: Option<&str>) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    let results: Vec<Value> = found
        .iter()
        .map(|one| {
            if !rules.iter().any(|rule| rule["id"] == one["id"]) {
                rules.push(json!({
                    "id": one["id"],
                    "shortDescription": {"text": one["vendor_attributes"]["title"]},
                    "fullDescription": {"text": one["description"]},
                    "helpUri": one["links"].get(0),
                }));
            }
            let level = match one["severity"].as_str() {
                Some("Critical" | "High") => "error",
                Some("Medium") => "warning",
                _ => "note",
            };
            let text = format!(
                "{} {} has {}",
                one["package"].as_str().unwrap_or_default(),
                one["version"].as_str().unwrap_or_default(),
                one["id"].as_str().unwrap_or_default()
            );
            let place = json!({"physicalLocation": {"artifactLocation": {"uri": image}}});
            let mut result = json!({
                "ruleId": one["id"],
                "level": level,
                "message": {"text": text},
                "locations": [place],
            });
            if one["allowed"] == true {
                let why = "the allowlist of the project lets it pass";
                result["suppressions"] = json!([{"kind": "external", "justification": why}]);
            }
            result
        })
        .collect();
    let driver = json!({"name": "Atoll", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": driver},
            "results": results,
            "invocations": [{
                "executionSuccessful": insufficient.is_none(),
                "toolExecutionNotifications": insufficient
                    .map(|why| json!([{"level": "error", "message": {"text": why}}]))
                    .unwrap_or_else(|| json!([])),
            }],
        }],
    })
}

/// Runs `sbom`.
pub(in crate::cli) fn sbom(command: &SbomCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let path = artifact_path(&command.image)?;
        if command.keep {
            let kind = json!({"scan_type": "sbom"});
            api.send(Method::POST, &format!("{path}/scan"), Some(&kind)).await?;
            api.say(&format!("the SBOMs of {} are beside it, as referrers", command.image));
            return Ok(());
        }
        let format = match command.format {
            SbomFormat::Spdx => "spdx",
            SbomFormat::Cyclonedx => "cyclonedx",
        };
        let document = api.get(&format!("{path}/additions/sbom?format={format}")).await?;
        println!("{}", crate::cli::shown::safe_json(&document));
        Ok(())
    })
}

/// Runs `allowlist`.
pub(in crate::cli) fn allowlist(command: &AllowlistCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            AllowlistVerb::Show { project } => {
                let list = allowlist_of(&api, project.as_deref()).await?;
                if api.is_json() {
                    api.print_one(&list);
                } else {
                    let items = list["items"].as_array().cloned().unwrap_or_default();
                    api.print(&items, &[("ID", "/cve_id")]);
                    if let Some(end) = list["expires_at"].as_u64() {
                        let word = if end <= seconds_now() { "has ended" } else { "ends" };
                        println!("the list {word} at {}", Timestamp(end.saturating_mul(1000)));
                    }
                }
            }
            AllowlistVerb::Set { project, until, ids } => {
                allow(&api, project.as_deref(), ids.iter().cloned().collect(), *until).await?;
            }
            AllowlistVerb::Add { project, ids } => {
                let (mut known, until) = known(&api, project.as_deref()).await?;
                known.extend(ids.iter().cloned());
                allow(&api, project.as_deref(), known, until).await?;
            }
            AllowlistVerb::Remove { project, ids } => {
                let (mut known, until) = known(&api, project.as_deref()).await?;
                if let Some(other) = ids.iter().find(|id| !known.remove(*id)) {
                    return Err(io::Error::other(format!("{other} is not in the list")));
                }
                allow(&api, project.as_deref(), known, until).await?;
            }
        }
        Ok(())
    })
}

/// The list of a project, or of the mesh.
async fn allowlist_of(api: &Api, project: Option<&str>) -> io::Result<Value> {
    match project {
        None => api.get(SYSTEM).await,
        Some(name) => Ok(by_name(api, name).await?["cve_allowlist"].clone()),
    }
}

/// The ids in a list, and when it ends.
async fn known(api: &Api, project: Option<&str>) -> io::Result<(BTreeSet<String>, Option<u64>)> {
    let list = allowlist_of(api, project).await?;
    let items = list["items"].as_array().into_iter().flatten();
    let ids = items.filter_map(|item| item["cve_id"].as_str().map(str::to_owned));
    Ok((ids.collect(), list["expires_at"].as_u64()))
}

/// Writes a list, and says what it has now and whether it counts.
async fn allow(
    api: &Api,
    project: Option<&str>,
    ids: BTreeSet<String>,
    until: Option<u64>,
) -> io::Result<()> {
    let items: Vec<Value> = ids.iter().map(|id| json!({"cve_id": id})).collect();
    let list = json!({"items": items, "expires_at": until});
    match project {
        None => drop(api.send(Method::PUT, SYSTEM, Some(&list)).await?),
        Some(name) => {
            by_name(api, name).await?;
            let body = json!({"cve_allowlist": list});
            api.send(Method::PUT, &path(name), Some(&body)).await?;
        }
    }
    let ended = until.is_some_and(|end| end <= seconds_now());
    let ended = if ended { ", and has ended already" } else { "" };
    let whose = project.map_or("the mesh".to_owned(), |name| format!("project {name}"));
    api.say(&format!("the list of {whose} has {} ids now{ended}", ids.len()));
    if let Some(name) = project {
        let metadata = by_name(api, name).await?["metadata"].clone();
        if metadata["reuse_sys_cve_allowlist"] != "false" {
            eprintln!(
                "but {name} uses the list of the mesh: `atoll project set {name} reuse_sys_cve_allowlist=false`"
            );
        }
    }
    Ok(())
}
