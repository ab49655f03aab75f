//! `atoll project`.

use std::io;

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::{Api, Asking, part, with};

/// Arguments of `project`.
#[derive(clap::Args)]
pub(in crate::cli) struct ProjectCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    /// List the projects that you may see.
    List,
    /// Show a project.
    Show {
        /// Its name.
        name: String,
    },
    /// Create a project. You become its admin.
    Create {
        /// Its name.
        name: String,
        /// Everybody may pull from it.
        #[arg(long)]
        public: bool,
        /// The number of regions that must have a blob before a push is acknowledged.
        #[arg(long, value_name = "REGIONS")]
        durability: Option<u32>,
        /// The number of the registry that it caches (`/api/v2.0/registries`).
        #[arg(long, value_name = "ID")]
        registry: Option<u64>,
    },
    /// Change metadata of a project: public=true, durability=2, sparse_indexes=false,
    /// edges=cache-* (which edges serve it), and others (docs/api.md#projects).
    Set {
        /// Its name.
        name: String,
        /// What to change.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = pair)]
        metadata: Vec<(String, String)>,
    },
    /// Delete a project without repositories, or one that caches a registry.
    Delete {
        /// Its name.
        name: String,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The path of a project. Its name may consist of digits, so it is not taken for a number: see
/// [`by_name`].
pub(super) fn path(name: &str) -> String {
    format!("/api/v2.0/projects/{}", part(name))
}

/// The number of a project, which names it whatever its name looks like.
pub(super) async fn by_name(api: &Api, name: &str) -> io::Result<Value> {
    let found = api.all(&format!("/api/v2.0/projects?name={}", part(name))).await?;
    let found = found.into_iter().find(|project| project["name"] == name);
    found.ok_or_else(|| {
        io::Error::other(format!("there is no project {name}, or you may not see it"))
    })
}

/// Runs it.
pub(in crate::cli) fn run(command: &ProjectCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            Verb::List => {
                let projects = api.all("/api/v2.0/projects").await?;
                api.print(
                    &projects,
                    &[
                        ("NAME", "/name"),
                        ("PUBLIC", "/metadata/public"),
                        ("DURABILITY", "/metadata/durability"),
                        ("PRIMARY", "/primary"),
                        ("CACHES", "/registry_id"),
                    ],
                );
            }
            Verb::Show { name } => api.print_one(&by_name(&api, name).await?),
            Verb::Create { name, public, durability, registry } => {
                let mut metadata =
                    Map::from_iter([("public".to_owned(), json!(public.to_string()))]);
                if let Some(regions) = durability {
                    metadata.insert("durability".to_owned(), json!(regions.to_string()));
                }
                let body =
                    json!({"project_name": name, "metadata": metadata, "registry_id": registry});
                api.send(Method::POST, "/api/v2.0/projects", Some(&body)).await?;
                println!("project {name} is there");
            }
            Verb::Set { name, metadata } => {
                let metadata: Map<String, Value> =
                    metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
                let project = by_name(&api, name).await?;
                let path = path(&project["project_id"].to_string());
                api.send(Method::PUT, &path, Some(&json!({"metadata": metadata}))).await?;
                println!("project {name} is changed");
            }
            Verb::Delete { name } => {
                let project = by_name(&api, name).await?;
                let path = path(&project["project_id"].to_string());
                api.send(Method::DELETE, &path, None).await?;
                println!("project {name} is deleted");
            }
        }
        Ok(())
    })
}
