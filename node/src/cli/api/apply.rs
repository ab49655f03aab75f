//! `atoll apply`: what a project decides, from a file.

use std::io;
use std::path::PathBuf;

use http::Method;
use serde_json::{Map, Value, json};

use super::projects::{by_name, path};
use super::{Api, Asking, text, with};

/// Arguments of `apply`.
#[derive(clap::Args)]
pub(in crate::cli) struct ApplyCommand {
    /// A file with a policy (YAML): `scan_policy` and `scan_schedule` (docs/scanning.md).
    #[arg(short, long)]
    file: PathBuf,
    /// The project, if the file does not name it, or another one.
    #[arg(long)]
    project: Option<String>,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

/// What changes: the key, what it was, and what it becomes.
type Changes = Vec<(&'static str, String, String)>;

/// Runs it.
pub(in crate::cli) fn run(command: &ApplyCommand) -> io::Result<()> {
    let file = config::policy(&command.file).map_err(io::Error::other)?;
    let named = command.project.clone().or(file.project.as_ref().map(ToString::to_string));
    let named = named.ok_or_else(|| {
        io::Error::other("which project? write `project: NAME` in the file, or use --project")
    })?;
    with(&command.asking, |api| async move {
        let project = by_name(&api, &named).await?;
        let changes: Changes = file
            .metadata()
            .into_iter()
            .map(|(key, becomes)| (key, text(&project["metadata"][key]), becomes))
            .filter(|(_, was, becomes)| was != becomes)
            .collect();
        show(&api, &named, &changes);
        if changes.is_empty() || command.dry_run {
            return Ok(());
        }
        let metadata: Map<String, Value> =
            changes.iter().map(|(key, _, becomes)| ((*key).to_owned(), json!(becomes))).collect();
        let path = path(&named);
        api.send(Method::PUT, &path, Some(&json!({"metadata": metadata}))).await?;
        if !api.is_json() {
            println!("project {named} is changed");
        }
        Ok(())
    })
}

/// Prints what changes, as a diff.
fn show(api: &Api, project: &str, changes: &Changes) {
    if api.is_json() {
        let changes: Vec<Value> = changes
            .iter()
            .map(|(key, was, becomes)| json!({"key": key, "was": was, "becomes": becomes}))
            .collect();
        api.print_one(&json!({"project": project, "changes": changes}));
        return;
    }
    if changes.is_empty() {
        println!("project {project} is so already");
    }
    for (key, was, becomes) in changes {
        if !was.is_empty() {
            println!("- {key}: {was}");
        }
        println!("+ {key}: {becomes}");
    }
}
