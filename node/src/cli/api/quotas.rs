//! `atoll quota`.

use std::io;

use clap::Subcommand;
use http::Method;
use rules::policies::quota::{self, Counted};
use serde_json::{Map, Value, json};

use super::{Api, Asking, part, with};

/// How a limit is written that is none.
const UNLIMITED: &str = "none";

/// Arguments of `quota`.
#[derive(clap::Args)]
pub(in crate::cli) struct QuotaCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    /// List what projects have and what they may have.
    List {
        /// The order: used.storage, hard.storage, name and others; a `-` turns it round.
        #[arg(long, default_value = "-used.storage", allow_hyphen_values = true)]
        sort: String,
    },
    /// Set what a project may have. What is not named stays.
    Set(Limits),
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("limit").required(true).multiple(true)))]
struct Limits {
    /// The project.
    project: String,
    /// Storage: 512MiB, 10GiB, or none for no limit.
    #[arg(long, group = "limit", value_parser = storage)]
    storage: Option<i64>,
    /// The number of tags in all repositories, or none.
    #[arg(long, group = "limit", value_parser = count)]
    tags: Option<i64>,
    /// The number of repositories, or none.
    #[arg(long, group = "limit", value_parser = count)]
    repositories: Option<i64>,
}

/// A size, or none.
pub(super) fn storage(text: &str) -> Result<i64, String> {
    if text == UNLIMITED {
        return Ok(-1);
    }
    let size = config::size(text)?;
    let size = i64::try_from(size).ok().filter(|size| *size > 0);
    size.ok_or_else(|| format!("'{text}' is no size from 1B on; {UNLIMITED} is no limit"))
}

fn count(text: &str) -> Result<i64, String> {
    if text == UNLIMITED {
        return Ok(-1);
    }
    let number = text.parse::<i64>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("'{text}' is no number from 1 on; {UNLIMITED} is no limit"))
}

/// A limit or what is used of it, for people.
fn shown(resource: Counted, value: &Value) -> String {
    value.as_u64().map_or_else(|| UNLIMITED.to_owned(), |value| resource.shown(value))
}

/// What is used of what there may be, for people.
pub(super) fn of_summary(quota: &Value) -> Vec<(String, Value)> {
    let rows = Counted::ALL.iter().map(|resource| {
        let word = resource.word();
        let used = shown(*resource, &quota["used"][word]);
        let limit = match quota["hard"][word].as_u64() {
            Some(limit) => format!("{used} of {}", resource.shown(limit)),
            None => used,
        };
        (format!("uses: {word}"), limit.into())
    });
    rows.collect()
}

async fn list(api: &Api, sort: &str) -> io::Result<()> {
    let path = format!("/api/v2.0/quotas?sort={}", part(sort));
    let mut all = api.all(&path).await?;
    if !api.is_json() {
        for quota in &mut all {
            for resource in Counted::ALL {
                for side in ["hard", "used"] {
                    let text = shown(resource, &quota[side][resource.word()]);
                    quota[side][resource.word()] = text.into();
                }
            }
            if quota["counted"] == false {
                quota["used"]["storage"] =
                    format!("{} so far", quota["used"]["storage"].as_str().unwrap_or_default())
                        .into();
            }
        }
    }
    let columns = [
        ("PROJECT", "/ref/name"),
        ("STORAGE", "/used/storage"),
        ("LIMIT", "/hard/storage"),
        ("TAGS", "/used/tags"),
        ("LIMIT", "/hard/tags"),
        ("REPOSITORIES", "/used/repositories"),
        ("LIMIT", "/hard/repositories"),
    ];
    api.print(&all, &columns);
    Ok(())
}

impl Limits {
    async fn set(&self, api: &Api) -> io::Result<()> {
        let project = api.get(&format!("/api/v2.0/projects/{}", part(&self.project))).await?;
        let mut hard = Map::new();
        for (word, value) in
            [("storage", self.storage), ("tags", self.tags), ("repositories", self.repositories)]
        {
            if let Some(value) = value {
                hard.insert(word.to_owned(), value.into());
            }
        }
        let path = format!("/api/v2.0/quotas/{}", project["project_id"]);
        api.send(Method::PUT, &path, Some(&json!({ "hard": hard }))).await?;
        let quota = api.get(&path).await?;
        if api.is_json() {
            api.print_one(&quota);
            return Ok(());
        }
        for resource in Counted::ALL {
            let word = resource.word();
            let used = shown(resource, &quota["used"][word]);
            let limit = match quota["hard"][word].as_u64() {
                Some(limit) => format!("at most {}", resource.shown(limit)),
                None => "no limit".to_owned(),
            };
            api.say(&format!("{word}: {limit}; {used} used"));
        }
        for warning in near(&quota) {
            eprintln!("atoll: {warning}; pushes that need more are refused");
        }
        Ok(())
    }
}

/// What is near its limit, or beyond it: the log warns only when usage grows.
fn near(quota: &Value) -> Vec<String> {
    let of = |side: &str, resource: Counted| quota[side][resource.word()].as_u64();
    let limits = quota::Limits {
        storage: of("hard", Counted::Storage),
        tags: of("hard", Counted::Tags),
        repositories: of("hard", Counted::Repositories),
    };
    let used = |resource| of("used", resource).unwrap_or(0);
    let used = quota::Usage {
        storage: used(Counted::Storage),
        tags: used(Counted::Tags),
        repositories: used(Counted::Repositories),
    };
    quota::warnings(&limits, &quota::Usage::default(), &used)
}

/// Does what `atoll quota` says.
pub(in crate::cli) fn run(command: &QuotaCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            Verb::List { sort } => list(&api, sort).await,
            Verb::Set(limits) => limits.set(&api).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_is_used_is_told() {
        let quota = json!({"hard": {"storage": -1, "tags": 10, "repositories": 100},
            "used": {"storage": 7, "tags": 12, "repositories": 84}});
        assert_eq!(near(&quota), ["tags: 12 of 10 are used"]);
    }

    #[test]
    fn limits_are_sizes_numbers_or_none() {
        assert_eq!(storage("10GiB"), Ok(10 << 30));
        assert_eq!(storage("none"), Ok(-1));
        assert_eq!(count("7"), Ok(7));
        assert_eq!(count("none"), Ok(-1));
        for wrong in ["", "0B", "10", "-1", "10GB"] {
            assert!(storage(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0", "-1", "1.5"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }
}
