//! `atoll sign`: the mesh signs an image with the key of its project.

use std::io;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::projects::by_name;
use super::stored::artifact_path;
use super::{Api, Asking, text, with};

/// Arguments of `sign`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct SignCommand {
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST.
    #[arg(required = true)]
    image: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key for a project, or another one.
    Key {
        /// The project.
        #[arg(long)]
        project: String,
        /// Make another key although there is one: the old one only verifies from then on.
        #[arg(long)]
        rotate: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Show a project's keys, and what clients elsewhere need to verify with them.
    Show {
        /// The project.
        #[arg(long)]
        project: String,
        /// Print only this: policy.json, registries.d, policy-controller, cosign, or keys.
        #[arg(long = "for", value_name = "CLIENT")]
        client: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// List what a project's keys have signed.
    Log {
        /// The project.
        #[arg(long)]
        project: String,
        /// Check that no entry is missing or was changed.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        asking: Asking,
    },
}

/// Runs it.
pub(in crate::cli) fn run(command: &SignCommand) -> io::Result<()> {
    match (&command.image, &command.verb) {
        (_, Some(Verb::Key { project, rotate, asking })) => with(asking, |api| async move {
            let path = format!("{}/signing", path_of(&api, project).await?);
            let sent = api.send(Method::POST, &path, Some(&json!({"rotate": rotate}))).await?;
            said(&api, &sent.body);
            Ok(())
        }),
        (_, Some(Verb::Show { project, client, asking })) => with(asking, |api| async move {
            let path = format!("{}/signing", path_of(&api, project).await?);
            show(&api, &api.get(&path).await?, client.as_deref())
        }),
        (_, Some(Verb::Log { project, verify, asking })) => with(asking, |api| async move {
            let path = format!("{}/signing/log", path_of(&api, project).await?);
            log(&api, &path, *verify).await
        }),
        (Some(image), None) => with(&command.asking, |api| async move {
            let path = format!("{}/signatures", artifact_path(image)?);
            let sent = api.send(Method::POST, &path, None).await?;
            said(&api, &sent.body);
            Ok(())
        }),
        (None, None) => Ok(()),
    }
}

async fn path_of(api: &Api, project: &str) -> io::Result<String> {
    let name = by_name(api, project).await?["name"].clone();
    Ok(format!("/api/v2.0/projects/{}", name.as_str().unwrap_or_default()))
}

fn said(api: &Api, answer: &Value) {
    match api.is_json() {
        true => api.print_one(answer),
        false => println!("{}", text(&answer["result"])),
    }
}

fn show(api: &Api, answer: &Value, client: Option<&str>) -> io::Result<()> {
    let Some(client) = client else {
        if api.is_json() {
            api.print_one(answer);
            return Ok(());
        }
        let keys = answer["keys"].as_array().cloned().unwrap_or_default();
        api.print(
            &keys,
            &[("SIGNER", "/signer"), ("STATE", "/state"), ("KEY", "/id"), ("MADE", "/created_at")],
        );
        if answer["host"].is_null() && !keys.is_empty() {
            eprintln!(
                "nothing is signed until it is said under which name clients know this registry: signature_host"
            );
        }
        return Ok(());
    };
    let wanted = &answer["clients"][client];
    if let (true, Some(keys)) = (client == "keys", wanted.as_array()) {
        // as files have it; where each belongs is said beside it
        for key in keys {
            eprintln!("{}:", text(&key["file"]));
            print!("{}", key["pem"].as_str().unwrap_or_default());
        }
        return Ok(());
    }
    match wanted {
        Value::Null => Err(io::Error::other(
            "there is nothing for that; there is policy.json, registries.d, policy-controller, cosign and keys, once the project has a key",
        )),
        Value::Array(lines) if lines.iter().all(Value::is_string) => {
            for line in lines {
                println!("{}", text(line));
            }
            Ok(())
        }
        wanted => {
            println!("{}", serde_json::to_string_pretty(wanted).unwrap_or_default());
            Ok(())
        }
    }
}

async fn log(api: &Api, path: &str, verify: bool) -> io::Result<()> {
    let (mut entries, mut after) = (Vec::new(), 0);
    let whole = loop {
        let check = if verify && after == 0 { "&verify=true" } else { "" };
        let page = api.get(&format!("{path}?after={after}{check}")).await?;
        let broken = (page["whole"] == false).then(|| text(&page["broken_at"]));
        let some = page["entries"].as_array().cloned().unwrap_or_default();
        let last = some.last().and_then(|one| one["number"].as_u64());
        entries.extend(some);
        if let Some(at) = broken {
            return Err(io::Error::other(format!("the log is broken at entry {at}")));
        }
        match last {
            Some(last) if last < page["last"]["number"].as_u64().unwrap_or_default() => {
                after = last
            }
            _ => break page["last"]["hash"].clone(),
        }
    };
    let columns = [
        ("NUMBER", "/number"),
        ("AT", "/at"),
        ("ARTIFACT", "/artifact"),
        ("NAME", "/reference"),
        ("BY", "/by"),
        ("EPOCH", "/epoch"),
    ];
    api.print(&entries, &columns);
    if verify && !api.is_json() {
        println!(
            "the log is whole: {} entries, the hash of the last is {}",
            entries.len(),
            text(&whole)
        );
    }
    Ok(())
}
