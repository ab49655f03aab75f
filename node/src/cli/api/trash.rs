//! `atoll trash`, and deletions that leave nothing in it.

use std::io;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::super::shown::agreed;
use super::places::named;
use super::projects::path;
use super::{Api, Asking, part, with};

/// Arguments of `trash`.
#[derive(clap::Args)]
pub(in crate::cli) struct TrashCommand {
    #[command(subcommand)]
    verb: TrashVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum TrashVerb {
    /// List what was deleted and can be restored.
    List {
        /// PROJECT or PROJECT/NAME.
        place: String,
    },
    /// Restore a tag, or an artifact with all its tags that name nothing now; with what went with it.
    Restore {
        /// PROJECT/NAME:TAG or PROJECT/NAME@DIGEST; with --all PROJECT/NAME.
        artifact: String,
        /// All that was deleted of the repository.
        #[arg(long)]
        all: bool,
    },
    /// Remove for good what was deleted. Its bytes go with the next collection.
    Empty {
        /// PROJECT, PROJECT/NAME or PROJECT/NAME@DIGEST.
        place: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// A project, and what follows it.
fn split(place: &str) -> (&str, Option<&str>) {
    place.split_once('/').map_or((place, None), |(project, rest)| (project, Some(rest)))
}

async fn list(api: &Api, place: &str) -> io::Result<()> {
    let (project, repository) = split(place);
    let (mut records, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
    let told = loop {
        let query: Vec<String> = [("repository", repository), ("after", after.as_deref())]
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", part((*value)?))))
            .collect();
        let told = api.get(&format!("{}/trash?{}", path(project), query.join("&"))).await?;
        records.extend(told["records"].as_array().cloned().unwrap_or_default());
        match told["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break told,
        }
    };
    for one in &mut records {
        let tags = one["tags"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = tags.iter().filter_map(Value::as_str).collect();
        one["tag_names"] = names.join(",").into();
        one["what"] = if one["artifact"] == true { "artifact" } else { "tag" }.into();
        // enough to find the row of what it went with
        let with = one["with"].as_str().map(|digest| digest.get(..19).unwrap_or(digest));
        one["with_short"] = with.unwrap_or_default().into();
    }
    if api.is_json() {
        let mut told = told;
        told["records"] = records.into();
        api.print_one(&told);
        return Ok(());
    }
    let columns = [
        ("WHAT", "/what"),
        ("REPOSITORY", "/repository"),
        ("DIGEST", "/digest"),
        ("TAGS", "/tag_names"),
        ("DELETED", "/deleted_at"),
        ("BY", "/deleted_by"),
        ("REASON", "/reason"),
        ("UNTIL", "/until"),
        ("WITH", "/with_short"),
    ];
    api.print(&records, &columns);
    Ok(())
}

async fn restore(api: &Api, artifact: &str, all: bool) -> io::Result<()> {
    let (repository, reference) = match all {
        true => (artifact, None),
        false => {
            let all = |error| {
                io::Error::other(format!(
                    "{error}; --all restores all that was deleted of a repository"
                ))
            };
            let (repository, reference) = named(artifact).map_err(all)?;
            (repository, Some(reference))
        }
    };
    let (project, Some(name)) = split(repository) else {
        return Err(io::Error::other(format!("{repository} is not PROJECT/NAME")));
    };
    let body = json!({"repository": name, "reference": reference});
    let place = format!("{}/trash/restore", path(project));
    let told = api.send(Method::POST, &place, Some(&body)).await?.body;
    if api.is_json() {
        api.print_one(&told);
        return Ok(());
    }
    match told["restored"].as_u64() {
        Some(1) => api.say(&format!("{artifact} is back")),
        count => api.say(&format!("{artifact} is back: {} artifacts", count.unwrap_or_default())),
    }
    for one in told["missing"].as_array().into_iter().flatten() {
        let digest = one.as_str().unwrap_or_default();
        api.say(&format!("it lists {digest}, which neither {repository} nor its trash has"));
    }
    for one in told["lost_blobs"].as_array().into_iter().flatten() {
        let digest = one.as_str().unwrap_or_default();
        api.say(&format!(
            "no replica has a sound copy of its blob {digest}: push all layers of the image again"
        ));
    }
    Ok(())
}

/// Removes what the trash has at a place.
async fn empty(api: &Api, place: &str) -> io::Result<()> {
    let (place, digest) = match place.split_once('@') {
        Some((place, digest)) => (place, Some(digest)),
        None => (place, None),
    };
    let (project, repository) = split(place);
    // a script's unset variable must not mean everything
    if repository.is_some_and(str::is_empty) || digest.is_some_and(str::is_empty) {
        return Err(io::Error::other("this is not PROJECT, PROJECT/NAME or PROJECT/NAME@DIGEST"));
    }
    let query: Vec<String> = [("repository", repository), ("digest", digest)]
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", part((*value)?))))
        .collect();
    let path = format!("{}/trash?{}", path(project), query.join("&"));
    api.send(Method::DELETE, &path, None).await?;
    Ok(())
}

/// Whether the trash has something of a repository, or of one artifact (`PROJECT/NAME@DIGEST`).
pub(super) async fn has(api: &Api, place: &str) -> io::Result<bool> {
    let (repository, digest) = place.split_once('@').map_or((place, None), |(r, d)| (r, Some(d)));
    let (project, Some(name)) = split(repository) else { return Ok(false) };
    let path = format!("{}/trash?repository={}", path(project), part(name));
    let told = api.get(&path).await?;
    let mut records = told["records"].as_array().into_iter().flatten();
    Ok(records.any(|one| digest.is_none_or(|digest| one["digest"] == digest)))
}

/// Removes from the trash what was deleted a moment ago, if the project has a trash.
pub(super) async fn empty_now(api: &Api, place: &str) -> io::Result<()> {
    match empty(api, place).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::other(format!(
            "{place} is deleted, and it is still in the trash: {error}; run `atoll trash empty {place}`"
        ))),
        Ok(()) => Ok(()),
    }
}

/// Runs `trash`.
pub(in crate::cli) fn run(command: &TrashCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            TrashVerb::List { place } => list(&api, place).await,
            TrashVerb::Restore { artifact, all } => restore(&api, artifact, *all).await,
            TrashVerb::Empty { place, yes } => {
                let question = format!("Remove for good what was deleted in {place}?");
                let without = format!("what was deleted in {place} stays; confirm with --yes");
                if !yes && !agreed(&question, &without)? {
                    return Err(io::Error::other("nothing was removed"));
                }
                empty(&api, place).await?;
                api.say(&format!(
                    "the trash of {place} is empty; its bytes go with the next collection (`atoll gc run --older-than 0s` does not wait)"
                ));
                Ok(())
            }
        }
    })
}
