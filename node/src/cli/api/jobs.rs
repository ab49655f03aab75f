//! `atoll jobs`.

use std::io;
use std::time::Duration;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Api, Asking, part, text, with};
use crate::cli::shown::safe_json;

const JOBS: &str = "/api/atoll/v1/jobs";
const SCHEDULES: &str = "/api/atoll/v1/schedules";
/// The time between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `jobs`.
#[derive(clap::Args)]
pub(in crate::cli) struct JobsCommand {
    #[command(subcommand)]
    verb: JobsVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum JobsVerb {
    /// List jobs, the newest first.
    List {
        /// Only those of this project.
        #[arg(long)]
        project: Option<String>,
        /// Only those of this kind: preheat or repair.
        #[arg(long)]
        kind: Option<String>,
        /// Only those that are waiting, running, done, failed or stopped.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show a job.
    Show {
        /// Its number.
        id: String,
    },
    /// Print the log of a job's last run.
    Log {
        /// Its number.
        id: String,
        /// Go on until the job is over.
        #[arg(long, short)]
        follow: bool,
    },
    /// Stop a job: at once if it waits, else as soon as its owner can.
    Stop {
        /// Its number.
        id: String,
    },
    /// Begin a job anew that failed or was stopped.
    Retry {
        /// Its number.
        id: String,
    },
    /// List what makes jobs at times.
    Schedules,
    /// Remove a schedule. Jobs that it made stay.
    Unschedule {
        /// Its project.
        project: String,
        /// Its name.
        name: String,
    },
}

/// Arguments of `repair`.
#[derive(clap::Args)]
pub(in crate::cli) struct RepairCommand {
    /// The projects.
    #[arg(required_unless_present = "all", value_name = "PROJECT")]
    projects: Vec<String>,
    /// All projects, but those that cache a registry.
    #[arg(long, conflicts_with = "projects")]
    all: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Does what `atoll repair` says.
pub(in crate::cli) fn repair(command: &RepairCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let mut projects = command.projects.clone();
        if command.all {
            let all = api.all("/api/v2.0/projects").await?;
            let own =
                all.iter().filter(|project| project["registry_id"].as_u64().unwrap_or(0) == 0);
            projects.extend(own.filter_map(|project| Some(project["name"].as_str()?.to_owned())));
        }
        let mut asked = Vec::new();
        for project in projects {
            let body = json!({"kind": "repair", "project": project});
            asked.push(api.send(Method::POST, JOBS, Some(&body)).await?.body);
        }
        api.print(&asked, &[("PROJECT", "/project"), ("JOB", "/id")]);
        Ok(())
    })
}

/// Does what `atoll jobs` says.
pub(in crate::cli) fn jobs(command: &JobsCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            JobsVerb::List { project, kind, state } => {
                let filters = [("project", project), ("kind", kind), ("state", state)];
                let filters: Vec<String> = filters
                    .into_iter()
                    .filter_map(|(name, value)| value.as_ref().map(|v| (name, v)))
                    .map(|(name, value)| format!("{name}={}", part(value)))
                    .collect();
                let list = api.all(&format!("{JOBS}?{}", filters.join("&"))).await?;
                let columns = [
                    ("ID", "/id"),
                    ("KIND", "/kind"),
                    ("STATE", "/state"),
                    ("PROJECT", "/project"),
                    ("SUBJECT", "/subject"),
                    ("OWNER", "/owner"),
                    ("RUNS", "/runs"),
                    ("CREATED", "/creation_time"),
                    ("RESULT", "/result"),
                ];
                api.print(&list, &columns);
                Ok(())
            }
            JobsVerb::Show { id } => {
                let job = api.get(&format!("{JOBS}/{}", part(id))).await?;
                api.print_one(&job);
                Ok(())
            }
            JobsVerb::Log { id, follow } => log(&api, id, *follow).await,
            JobsVerb::Stop { id } => change(&api, id, "stop").await,
            JobsVerb::Retry { id } => change(&api, id, "retry").await,
            JobsVerb::Schedules => {
                let list = api.get(SCHEDULES).await?;
                let columns = [
                    ("PROJECT", "/project"),
                    ("NAME", "/name"),
                    ("KIND", "/kind"),
                    ("SUBJECT", "/subject"),
                    ("CRON (UTC)", "/cron"),
                    ("NEXT", "/next_time"),
                    ("LAST JOB", "/last_job"),
                ];
                api.print(list.as_array().map_or(&[], Vec::as_slice), &columns);
                Ok(())
            }
            JobsVerb::Unschedule { project, name } => {
                let path = format!("{SCHEDULES}/{}/{}", part(project), part(name));
                api.send(Method::DELETE, &path, None).await?;
                api.say(&format!("schedule {name} of project {project} is removed"));
                Ok(())
            }
        }
    })
}

async fn change(api: &Api, id: &str, verb: &str) -> io::Result<()> {
    let path = format!("{JOBS}/{}/{verb}", part(id));
    let sent = api.send(Method::POST, &path, None).await?;
    api.print_one(&sent.body);
    Ok(())
}

async fn log(api: &Api, id: &str, follow: bool) -> io::Result<()> {
    let mut printed: Vec<Value> = Vec::new();
    loop {
        let job = api.get(&format!("{JOBS}/{}", part(id))).await?;
        let waits = job["runs"] == 0;
        if !(follow && waits) {
            let log = api.get(&format!("{JOBS}/{}/log", part(id))).await?;
            let log = log.as_array().cloned().unwrap_or_default();
            // another run, perhaps at another node, has a log of its own
            let known = if log.starts_with(&printed) { printed.len() } else { 0 };
            if api.is_json() && !follow {
                println!("{}", safe_json(&Value::Array(log)));
                return Ok(());
            }
            for line in &log[known..] {
                match api.is_json() {
                    true => println!("{line}"),
                    false => println!("{}  {}", text(&line["time"]), text(&line["line"])),
                }
            }
            printed = log;
        }
        let over = matches!(job["state"].as_str(), Some("done" | "failed" | "stopped"));
        if !follow || over {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
