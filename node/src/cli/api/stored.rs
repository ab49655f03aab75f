//! `atoll repo`, `atoll artifact` and `atoll tag`.

use std::io;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::places::named;
use super::projects::path;
use super::trash::{empty_now, has};
use super::{Api, Asking, text, with};

/// Arguments of `repo`.
#[derive(clap::Args)]
pub(in crate::cli) struct RepositoryCommand {
    #[command(subcommand)]
    verb: RepositoryVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum RepositoryVerb {
    /// List the repositories of a project, or all that you may see.
    List {
        /// The project.
        project: Option<String>,
    },
    /// Delete a repository with everything in it.
    Delete {
        /// Its name: PROJECT/NAME.
        repository: String,
        /// Leave nothing in the trash, not even of what was deleted there before.
        #[arg(long)]
        now: bool,
    },
}

/// Arguments of `artifact`.
#[derive(clap::Args)]
pub(in crate::cli) struct ArtifactCommand {
    #[command(subcommand)]
    verb: ArtifactVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum ArtifactVerb {
    /// List what a repository has.
    List {
        /// Its name: PROJECT/NAME.
        repository: String,
    },
    /// Show one, with what is about it (signatures, SBOMs).
    Show {
        /// PROJECT/NAME:TAG or PROJECT/NAME@DIGEST.
        artifact: String,
    },
    /// Delete one with all its tags.
    Delete {
        /// PROJECT/NAME:TAG or PROJECT/NAME@DIGEST.
        artifact: String,
        /// Do not leave it in the trash.
        #[arg(long)]
        now: bool,
    },
}

/// Arguments of `tag`.
#[derive(clap::Args)]
pub(in crate::cli) struct TagCommand {
    #[command(subcommand)]
    verb: TagVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum TagVerb {
    /// List the tags of a repository, or those of one artifact in it.
    List {
        /// PROJECT/NAME, PROJECT/NAME:TAG or PROJECT/NAME@DIGEST.
        artifact: String,
    },
    /// Give an artifact another tag, which its repository does not have yet.
    Add {
        /// PROJECT/NAME:TAG or PROJECT/NAME@DIGEST.
        artifact: String,
        /// The new tag.
        tag: String,
    },
    /// Take a tag off; the artifact stays.
    Delete {
        /// PROJECT/NAME:TAG.
        artifact: String,
        /// Leave nothing in the trash of the tags that were ever taken off this artifact.
        #[arg(long)]
        now: bool,
    },
}

/// The path of a repository.
fn repository_path(name: &str) -> io::Result<String> {
    let (project, rest) = name
        .split_once('/')
        .ok_or_else(|| io::Error::other(format!("{name} is not PROJECT/NAME")))?;
    Ok(format!("{}/repositories/{}", path(project), rest.replace('/', "%252F")))
}

pub(super) fn artifact_path(artifact: &str) -> io::Result<String> {
    let (repository, reference) = named(artifact)?;
    Ok(format!("{}/artifacts/{reference}", repository_path(repository)?))
}

/// Runs `repo`.
pub(in crate::cli) fn repositories(command: &RepositoryCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            RepositoryVerb::List { project } => {
                let list = match project {
                    Some(name) => format!("{}/repositories", path(name)),
                    None => "/api/v2.0/repositories".to_owned(),
                };
                let found = api.all(&list).await?;
                api.print(
                    &found,
                    &[
                        ("NAME", "/name"),
                        ("ARTIFACTS", "/artifact_count"),
                        ("SINCE", "/creation_time"),
                    ],
                );
            }
            RepositoryVerb::Delete { repository, now } => {
                let path = repository_path(repository)?;
                let deleted = api.send(Method::DELETE, &path, None).await;
                if *now {
                    // what was deleted before is in the trash
                    forget(&api, deleted, repository).await?;
                } else {
                    deleted?;
                }
                api.say(&format!("repository {repository} is deleted"));
            }
        }
        Ok(())
    })
}

/// Runs `artifact`.
pub(in crate::cli) fn artifacts(command: &ArtifactCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            ArtifactVerb::List { repository } => {
                let path = repository_path(repository)?;
                let path = format!("{path}/artifacts?with_label=true");
                let mut found = api.all(&path).await?;
                for one in &mut found {
                    for (list, column) in [("tags", "tag_names"), ("labels", "label_names")] {
                        let all = one[list].as_array().cloned().unwrap_or_default();
                        let names: Vec<&str> =
                            all.iter().filter_map(|one| one["name"].as_str()).collect();
                        one[column] = names.join(",").into();
                    }
                }
                api.print(
                    &found,
                    &[
                        ("DIGEST", "/digest"),
                        ("TAGS", "/tag_names"),
                        ("LABELS", "/label_names"),
                        ("TYPE", "/type"),
                        ("BYTES", "/size"),
                        ("PUSHED", "/push_time"),
                    ],
                );
            }
            ArtifactVerb::Show { artifact } => {
                let path = artifact_path(artifact)?;
                api.print_one(
                    &api.get(&format!("{path}?with_accessory=true&with_label=true")).await?,
                );
            }
            ArtifactVerb::Delete { artifact, now } => {
                let (repository, reference) = named(artifact)?;
                let path = artifact_path(artifact)?;
                if *now {
                    // afterwards nothing knows what a tag was
                    let digest = match reference.contains(':') {
                        true => reference.to_owned(),
                        false => text(&api.get(&path).await?["digest"]),
                    };
                    let exactly = format!("{repository}@{digest}");
                    let deleted = api.send(Method::DELETE, &artifact_path(&exactly)?, None).await;
                    forget(&api, deleted, &exactly).await?;
                } else {
                    api.send(Method::DELETE, &path, None).await?;
                }
                api.say(&format!("{artifact} is deleted with all its tags"));
            }
        }
        Ok(())
    })
}

/// The second step of a deletion that leaves nothing in the trash. One that was done before, or broken
/// off between its two steps, is finished.
async fn forget<T>(api: &Api, deleted: io::Result<T>, place: &str) -> io::Result<()> {
    match deleted {
        Ok(_) => empty_now(api, place).await,
        Err(error) if error.kind() == io::ErrorKind::NotFound && has(api, place).await? => {
            empty_now(api, place).await
        }
        Err(error) => Err(error),
    }
}

/// The tags of these artifacts, by name, each with the digest that it names.
fn tags_of_all(artifacts: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    for artifact in artifacts {
        for tag in artifact["tags"].as_array().into_iter().flatten() {
            let mut tag = tag.clone();
            tag["digest"] = artifact["digest"].clone();
            all.push(tag);
        }
    }
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    all
}

/// Runs `tag`.
pub(in crate::cli) fn tags(command: &TagCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            TagVerb::List { artifact } if named(artifact).is_ok() => {
                let path = format!("{}/tags", artifact_path(artifact)?);
                api.print(&api.all(&path).await?, &[("TAG", "/name"), ("PUSHED", "/push_time")]);
            }
            TagVerb::List { artifact: repository } => {
                let path = format!("{}/artifacts", repository_path(repository)?);
                api.print(
                    &tags_of_all(&api.all(&path).await?),
                    &[("TAG", "/name"), ("PUSHED", "/push_time"), ("DIGEST", "/digest")],
                );
            }
            TagVerb::Add { artifact, tag } => {
                let path = format!("{}/tags", artifact_path(artifact)?);
                api.send(Method::POST, &path, Some(&json!({"name": tag}))).await?;
                api.say(&format!("{artifact} is {tag}, too"));
            }
            TagVerb::Delete { artifact, now } => {
                let (repository, tag) = named(artifact)?;
                let place = artifact_path(artifact)?;
                // afterwards nothing knows what a tag was
                let digest = match now {
                    true => api.get(&place).await?["digest"].as_str().map(str::to_owned),
                    false => None,
                };
                api.send(Method::DELETE, &format!("{place}/tags/{tag}"), None).await?;
                if let Some(digest) = digest {
                    empty_now(&api, &format!("{repository}@{digest}")).await?;
                }
                api.say(&format!("tag {artifact} is gone; its artifact stays"));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_are_named_as_images_are() {
        assert_eq!(named("demo/app:1").unwrap(), ("demo/app", "1"));
        assert_eq!(named("demo/a/b@sha256:ab").unwrap(), ("demo/a/b", "sha256:ab"));
        for wrong in ["demo/app", "host:5000/demo/app"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
