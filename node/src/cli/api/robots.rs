//! `atoll robot`.

use std::io;

use clap::Subcommand;
use http::Method;
use rules::words::moment::Timestamp;
use serde_json::{Value, json};

use super::people::number_of;
use super::projects::by_name;
use super::{Api, Asking, Output, with};
use crate::cli::shown::safe_json;

/// Arguments of `robot`.
#[derive(clap::Args)]
pub(in crate::cli) struct RobotCommand {
    #[command(subcommand)]
    verb: RobotVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum RobotVerb {
    /// List the robots of a project, or those of the registry.
    List {
        /// The project.
        #[arg(long)]
        project: Option<String>,
    },
    /// Create a robot of a project, and print its secret: this is the only time.
    Create {
        /// The name after `robot$PROJECT+`.
        name: String,
        /// The project.
        #[arg(long)]
        project: String,
        /// What it may do in the project, separated by commas: to its repositories (pull), or to
        /// something else (tag:create). docs/cli.md says what commands need.
        #[arg(long, value_delimiter = ',', default_value = "pull", value_name = "pull,push,..")]
        may: Vec<String>,
        /// For how many days; -1 means for ever.
        #[arg(long, default_value_t = 30, allow_negative_numbers = true)]
        days: i64,
    },
    /// Show a robot, and what it was granted.
    Show(Named),
    /// Let a robot work again that was disabled.
    Enable(Named),
    /// Refuse a robot, and its tokens, until it is enabled again.
    Disable(Named),
    /// Give a robot another secret, and print it.
    Refresh(Named),
    /// Delete a robot.
    Delete(Named),
}

/// A robot.
#[derive(clap::Args)]
pub(super) struct Named {
    /// Its whole name, as `atoll robot list` shows it.
    #[arg(value_name = "ROBOT")]
    name: String,
    /// Its project, if its name does not say it.
    #[arg(long)]
    project: Option<String>,
}

/// The robots of a project, or those of the registry.
async fn robots(api: &Api, project: Option<&str>) -> io::Result<Vec<Value>> {
    let list = match project {
        Some(name) => {
            let number = by_name(api, name).await?["project_id"].to_string();
            format!("/api/v2.0/robots?q=Level=project,ProjectID={number}")
        }
        None => "/api/v2.0/robots".to_owned(),
    };
    api.all(&list).await
}

impl Named {
    /// The robot's path.
    pub(super) async fn path(&self, api: &Api) -> io::Result<String> {
        let project = match &self.project {
            Some(project) => Some(project.clone()),
            None => project_of(api, &self.name).await?,
        };
        let all = robots(api, project.as_deref()).await?;
        let id = number_of(&all, "name", &self.name, "id", "robot")?;
        Ok(format!("/api/v2.0/robots/{id}"))
    }
}

/// The project that a robot's name says: `robot$PROJECT+NAME`. A registry may have another prefix
/// (`people.robot_prefix`), and then the project is one whose name ends what is before the `+`.
async fn project_of(api: &Api, robot: &str) -> io::Result<Option<String>> {
    let Some((before, _)) = robot.split_once('+') else { return Ok(None) };
    if let Some((_, project)) = before.rsplit_once('$') {
        return Ok(Some(project.to_owned()));
    }
    let all = api.all("/api/v2.0/projects").await?;
    let names = all.iter().filter_map(|project| project["name"].as_str());
    let longest = names.filter(|name| before.ends_with(name)).max_by_key(|name| name.len());
    Ok(longest.map(str::to_owned))
}

/// Prints a robot. For people, each of its permissions is a word.
async fn show(api: &Api, named: &Named) -> io::Result<()> {
    let mut robot = api.get(&named.path(api).await?).await?;
    if !api.is_json() {
        robot["expires_at"] = expiry(&robot["expires_at"]).into();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let grants = robot["permissions"].as_array().cloned().unwrap_or_default();
        let words = grants.iter().map(|grant| {
            let access = grant["access"].as_array().map_or(&[][..], Vec::as_slice);
            let may = access.iter().map(|one| text(&one["resource"]) + ":" + &text(&one["action"]));
            let may: Vec<String> = may.collect();
            format!("{} in {} {}", may.join(","), text(&grant["kind"]), text(&grant["namespace"]))
        });
        robot["permissions"] = words.collect::<Vec<_>>().join("; ").into();
    }
    api.print_one(&robot);
    Ok(())
}

/// The API takes a robot as a whole.
async fn set_disabled(api: &Api, named: &Named, disabled: bool) -> io::Result<()> {
    let path = named.path(api).await?;
    let mut robot = api.get(&path).await?;
    robot["disable"] = disabled.into();
    api.send(Method::PUT, &path, Some(&robot)).await.map(drop)
}

/// Runs it.
pub(in crate::cli) fn run(command: &RobotCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            RobotVerb::List { project } => {
                let mut all = robots(&api, project.as_deref()).await?;
                if !api.is_json() {
                    for one in &mut all {
                        one["expires_at"] = expiry(&one["expires_at"]).into();
                    }
                }
                api.print(
                    &all,
                    &[
                        ("ID", "/id"),
                        ("ROBOT", "/name"),
                        ("DISABLED", "/disable"),
                        ("EXPIRES", "/expires_at"),
                    ],
                );
            }
            RobotVerb::Create { name, project, may, days } => {
                let access: Vec<Value> = may
                    .iter()
                    .map(|one| one.split_once(':').unwrap_or(("repository", one)))
                    .map(|(resource, action)| json!({"resource": resource, "action": action}))
                    .collect();
                let body = json!({
                    "name": name, "level": "project", "duration": days,
                    "permissions": [{"kind": "project", "namespace": project, "access": access}],
                });
                let made = api.send(Method::POST, "/api/v2.0/robots", Some(&body)).await?;
                if made.location.is_none() {
                    return Err(io::Error::other("the node did not say which robot it made"));
                }
                show_secret(&api, made.body["name"].as_str().unwrap_or(name), &made.body);
            }
            RobotVerb::Show(named) => show(&api, named).await?,
            RobotVerb::Enable(named) => {
                set_disabled(&api, named, false).await?;
                api.say(&format!("robot {} works again", named.name));
            }
            RobotVerb::Disable(named) => {
                set_disabled(&api, named, true).await?;
                api.say(&format!("robot {} is refused until it is enabled again", named.name));
            }
            RobotVerb::Refresh(named) => {
                let path = named.path(&api).await?;
                let made = api.send(Method::PATCH, &path, Some(&json!({}))).await?;
                show_secret(&api, &named.name, &made.body);
            }
            RobotVerb::Delete(named) => {
                api.send(Method::DELETE, &named.path(&api).await?, None).await?;
                api.say(&format!("robot {} is deleted", named.name));
            }
        }
        Ok(())
    })
}

/// When a robot's secret ends, for people. Harbor's form is seconds since 1970, and -1 for never.
fn expiry(seconds: &Value) -> String {
    match seconds.as_i64() {
        Some(at) if at > 0 => Timestamp(at as u64 * 1000).to_string(),
        _ => "never".to_owned(),
    }
}

fn show_secret(api: &Api, name: &str, made: &Value) {
    if api.output == Output::Json {
        println!("{}", safe_json(made));
    } else {
        println!("{name}\n{}", made["secret"].as_str().unwrap_or_default());
        eprintln!("This secret is not shown again.");
    }
}
