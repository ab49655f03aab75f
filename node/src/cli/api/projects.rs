//! `atoll project`.

use std::io;

use clap::Subcommand;
use http::Method;
use rules::policies::keys;
use serde_json::{Map, Value, json};

use super::quotas::{of_summary, storage};
use super::{Api, Asking, part, text, with};

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
        /// How much it may store: 512MiB, 10GiB, or none. Only administrators may say that.
        #[arg(long, value_name = "SIZE", value_parser = storage)]
        storage: Option<i64>,
        /// The number of the registry that it caches (`/api/v2.0/registries`).
        #[arg(long, value_name = "ID")]
        registry: Option<u64>,
    },
    /// Change metadata of a project: public=true, durability=2, sparse_indexes=false,
    /// edges=cache-* (which edges serve it), and others (docs/api.md#projects). KEY= takes an entry
    /// out. A key that no project has is refused, and all keys are named.
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

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The path of a project. Its name may consist of digits, and is not taken for a number: each
/// request says so.
pub(super) fn path(name: &str) -> String {
    format!("/api/v2.0/projects/{}", part(name))
}

/// A project as the API shows it.
pub(super) async fn by_name(api: &Api, name: &str) -> io::Result<Value> {
    api.get(&path(name)).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other(format!("there is no project {name}, or you may not see it"))
        }
        _ => error,
    })
}

/// Refuses keys that no project has. The API drops them, as Harbor's does.
fn check_keys(metadata: &[(String, String)]) -> io::Result<()> {
    let unknown = metadata.iter().find(|(key, _)| !keys::is_known(key));
    let Some((key, _)) = unknown else { return Ok(()) };
    let mut all: Vec<&str> = keys::FIELDS.into_iter().chain(keys::STORED).collect();
    all.sort_unstable();
    let all = all.join(", ");
    Err(io::Error::other(format!("no project has a key {key}; there are: {all}")))
}

/// Prints a project, and who may pull from it.
async fn show(api: &Api, name: &str) -> io::Result<()> {
    let mut project = by_name(api, name).await?;
    if api.is_json() {
        api.print_one(&project);
        return Ok(());
    }
    project["pulls"] = match project["metadata"]["public"] == "true" {
        true => "everyone, also without a login".into(),
        false => "members, robots that were granted it, and administrators".into(),
    };
    let members = match api.all(&format!("{}/members", path(name))).await {
        Ok(members) => members,
        Err(error) => {
            project["members"] = format!("not shown: {error}").into();
            Vec::new()
        }
    };
    // who may not read it, and below the feature level of quotas, has none
    if let Ok(summary) = api.get(&format!("{}/summary", path(name))).await
        && !summary["quota"].is_null()
    {
        for (field, value) in of_summary(&summary["quota"]) {
            project[&field] = value;
        }
    }
    for member in &members {
        let role = format!("members: {}", text(&member["role_name"]));
        let group = if member["entity_type"] == "g" { " (group)" } else { "" };
        let name = format!("{}{group}", text(&member["entity_name"]));
        project[&role] = match project[&role].as_str() {
            Some(before) => format!("{before}, {name}").into(),
            None => name.into(),
        };
    }
    api.print_one(&project);
    Ok(())
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
            Verb::Show { name } => show(&api, name).await?,
            Verb::Create { name, public, durability, storage, registry } => {
                let mut metadata =
                    Map::from_iter([("public".to_owned(), json!(public.to_string()))]);
                if let Some(regions) = durability {
                    metadata.insert("durability".to_owned(), json!(regions.to_string()));
                }
                let body = json!({
                    "project_name": name,
                    "metadata": metadata,
                    "storage_limit": storage,
                    "registry_id": registry,
                });
                api.send(Method::POST, "/api/v2.0/projects", Some(&body)).await?;
                api.say(&format!("project {name} is there"));
            }
            Verb::Set { name, metadata } => {
                check_keys(metadata)?;
                let (set, unset): (Vec<_>, Vec<_>) =
                    metadata.iter().partition(|(_, value)| !value.is_empty());
                let known = by_name(&api, name).await?;
                if !set.is_empty() {
                    let set: Map<String, Value> =
                        set.into_iter().map(|(key, value)| (key.clone(), json!(value))).collect();
                    api.send(Method::PUT, &path(name), Some(&json!({"metadata": set}))).await?;
                }
                // one that is not there need not be taken out
                for (key, _) in unset {
                    if known["metadata"].get(key).is_some() {
                        let path = format!("{}/metadatas/{key}", path(name));
                        api.send(Method::DELETE, &path, None).await?;
                    }
                }
                api.say(&format!("project {name} is changed"));
            }
            Verb::Delete { name } => {
                by_name(&api, name).await?;
                api.send(Method::DELETE, &path(name), None).await?;
                api.say(&format!("project {name} is deleted"));
            }
        }
        Ok(())
    })
}
