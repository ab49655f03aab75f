//! `atoll label`.

use std::io;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::projects::by_name;
use super::stored::artifact_path;
use super::{Api, Asking, part, with};

const LABELS: &str = "/api/v2.0/labels";

/// Arguments of `label`.
#[derive(clap::Args)]
pub(in crate::cli) struct LabelCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    /// List the labels for all projects, or those of one.
    List {
        /// The project.
        #[arg(long)]
        project: Option<String>,
    },
    /// Make a label, for all projects or for one.
    Create {
        /// Its name.
        name: String,
        /// Only for this project.
        #[arg(long)]
        project: Option<String>,
        /// For people.
        #[arg(long, default_value = "")]
        description: String,
        /// How it is shown, for example #0065AB.
        #[arg(long, default_value = "")]
        color: String,
    },
    /// Change what a label says. What is not given stays.
    Update {
        /// Its name.
        label: String,
        /// The project that it is for, if it is not for all.
        #[arg(long)]
        project: Option<String>,
        /// Its new name.
        #[arg(long)]
        name: Option<String>,
        /// Its new description.
        #[arg(long)]
        description: Option<String>,
        /// Its new color.
        #[arg(long)]
        color: Option<String>,
    },
    /// Delete a label, and take it off everything.
    Delete {
        /// Its name.
        label: String,
        /// The project that it is for, if it is not for all.
        #[arg(long)]
        project: Option<String>,
    },
    /// Put a label on an artifact: one of its project, else one for all projects.
    Add {
        /// PROJECT/NAME:TAG or PROJECT/NAME@DIGEST.
        artifact: String,
        /// The label's name.
        label: String,
    },
    /// Take a label off an artifact.
    Remove {
        /// PROJECT/NAME:TAG or PROJECT/NAME@DIGEST.
        artifact: String,
        /// The label's name.
        label: String,
    },
}

/// The labels for all projects, or those of one.
async fn labels(api: &Api, project: Option<&str>) -> io::Result<Vec<Value>> {
    let query = match project {
        Some(name) => format!("scope=p&project_id={}", by_name(api, name).await?["project_id"]),
        None => "scope=g".to_owned(),
    };
    api.all(&format!("{LABELS}?{query}")).await
}

async fn label(api: &Api, project: Option<&str>, name: &str) -> io::Result<Value> {
    let found = labels(api, project).await?.into_iter().find(|label| label["name"] == name);
    let of = project.map_or(" for all projects".to_owned(), |project| format!(" in {project}"));
    found.ok_or_else(|| io::Error::other(format!("there is no label {name}{of}")))
}

/// The label that is meant on this artifact: one of its project, else one for all projects.
async fn label_for(api: &Api, artifact: &str, name: &str) -> io::Result<Value> {
    let project = artifact.split('/').next().unwrap_or_default();
    let own = labels(api, Some(project)).await?.into_iter().find(|label| label["name"] == name);
    match own {
        Some(label) => Ok(label),
        None => label(api, None, name).await.map_err(|_| {
            let message = format!("there is no label {name}, in {project} or for all projects");
            io::Error::other(message)
        }),
    }
}

/// Runs it.
pub(in crate::cli) fn run(command: &LabelCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            Verb::List { project } => {
                let found = labels(&api, project.as_deref()).await?;
                api.print(
                    &found,
                    &[
                        ("ID", "/id"),
                        ("NAME", "/name"),
                        ("COLOR", "/color"),
                        ("DESCRIPTION", "/description"),
                    ],
                );
            }
            Verb::Create { name, project, description, color } => {
                let mut what = json!({"name": name, "description": description, "color": color});
                match project {
                    Some(project) => {
                        what["scope"] = "p".into();
                        what["project_id"] = by_name(&api, project).await?["project_id"].clone();
                    }
                    None => what["scope"] = "g".into(),
                }
                api.send(Method::POST, LABELS, Some(&what)).await?;
                api.say(&format!("label {name} is there"));
            }
            Verb::Update { label: called, project, name, description, color } => {
                let was = label(&api, project.as_deref(), called).await?;
                let mut what = was.clone();
                for (field, value) in
                    [("name", name), ("description", description), ("color", color)]
                {
                    if let Some(value) = value {
                        what[field] = value.as_str().into();
                    }
                }
                let path = format!("{LABELS}/{}", part(&was["id"].to_string()));
                api.send(Method::PUT, &path, Some(&what)).await?;
                api.say(&format!("label {called} is changed"));
            }
            Verb::Delete { label: called, project } => {
                let found = label(&api, project.as_deref(), called).await?;
                let path = format!("{LABELS}/{}", part(&found["id"].to_string()));
                api.send(Method::DELETE, &path, None).await?;
                api.say(&format!("label {called} is deleted"));
            }
            Verb::Add { artifact, label: called } => {
                let path = format!("{}/labels", artifact_path(artifact)?);
                let found = label_for(&api, artifact, called).await?;
                api.send(Method::POST, &path, Some(&json!({"id": found["id"]}))).await?;
                api.say(&format!("{artifact} has label {called}"));
            }
            Verb::Remove { artifact, label: called } => {
                let found = label_for(&api, artifact, called).await?;
                let artifact_at = artifact_path(artifact)?;
                let path = format!("{artifact_at}/labels/{}", part(&found["id"].to_string()));
                api.send(Method::DELETE, &path, None).await?;
                api.say(&format!("label {called} is off {artifact}"));
            }
        }
        Ok(())
    })
}
