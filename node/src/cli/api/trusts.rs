//! `atoll trust`: whose tokens mean a robot, and what others need to trust what the mesh signs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::robots::Named;
use super::{Api, Asking, with};

/// Arguments of `trust`.
#[derive(clap::Args)]
pub(in crate::cli) struct TrustCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    /// Write files for clients that verify what a project's keys have signed: public keys, policy.json
    /// and registries.d (podman, skopeo, CRI-O), notation's trust store and policy, manifests for
    /// Kyverno and policy-controller.
    Write {
        /// The project.
        #[arg(long)]
        project: String,
        /// The folder. It is made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
    },
    /// List the trust rules of a robot.
    List(Named),
    /// Let tokens of an issuer mean a robot. Without a file of keys the issuer is asked for them.
    Add {
        #[command(flatten)]
        robot: Named,
        /// The issuer, as its tokens name it (`iss`).
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// The audience that its tokens are for (`aud`).
        #[arg(long)]
        audience: String,
        /// Whose tokens (`sub`); `*` stands for any text.
        #[arg(long)]
        subject: String,
        /// Another claim that has to fit; may be given several times.
        #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = super::projects::pair)]
        claims: Vec<(String, String)>,
        /// A file with the issuer's keys (a JWK Set).
        #[arg(long, value_name = "FILE")]
        keys_file: Option<PathBuf>,
    },
    /// Replace the keys of a rule. Without a file the issuer is asked for them from now on.
    Keys {
        #[command(flatten)]
        robot: Named,
        /// The rule's number.
        id: u64,
        /// A file with the issuer's keys (a JWK Set).
        #[arg(long, value_name = "FILE")]
        keys_file: Option<PathBuf>,
    },
    /// Remove a rule. Tokens that were given for the issuer's are refused, too.
    Remove {
        #[command(flatten)]
        robot: Named,
        /// The rule's number.
        id: u64,
    },
}

/// The keys in a file; null without one.
fn keys(file: Option<&Path>) -> io::Result<Value> {
    let Some(file) = file else { return Ok(Value::Null) };
    let text = std::fs::read_to_string(file)
        .map_err(|e| io::Error::new(e.kind(), format!("--keys-file {}: {e}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|e| io::Error::other(format!("--keys-file {} is no JSON: {e}", file.display())))
}

/// Writes all that clients need to verify elsewhere.
fn write(answer: &Value, to: &Path) -> io::Result<String> {
    let clients = &answer["clients"];
    if clients.is_null() {
        return Err(io::Error::other(
            "the project has no key that counts; make one: atoll sign key --project NAME",
        ));
    }
    std::fs::create_dir_all(to)?;
    let to = to.canonicalize()?;
    let mut written = Vec::new();
    let mut put = |name: &str, text: &str| -> io::Result<()> {
        // names are the node's: none may lead out of the folder
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::other(format!("the node named a file {}", name.display())));
        }
        let file = to.join(name);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&file, text)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
        written.push(name.display().to_string());
        Ok(())
    };
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let mut policy = clients["policy.json"].clone();
    for key in clients["keys"].as_array().into_iter().flatten() {
        let (file, pem) = (key["file"].as_str(), key["pem"].as_str());
        let (Some(file), Some(pem)) = (file, pem) else { continue };
        let name = file.rsplit('/').next().unwrap_or(file);
        put(name, pem)?;
        // the policy names them where they are
        let here = to.join(name).display().to_string();
        for scopes in policy["transports"]["docker"].as_object_mut().into_iter().flatten() {
            for path in scopes.1[0]["keyPaths"].as_array_mut().into_iter().flatten() {
                if path == file {
                    *path = here.as_str().into();
                }
            }
        }
    }
    put("policy.json", &pretty(&policy))?;
    // JSON is YAML
    put("registries.d/atoll.yaml", &pretty(&clients["registries.d"]))?;
    for name in ["policy-controller", "kyverno"] {
        put(&format!("{name}.yaml"), &pretty(&clients[name]))?;
    }
    if let Some(files) = clients["notation"]["files"].as_object() {
        for (name, pem) in files {
            put(&format!("notation/{name}"), pem.as_str().unwrap_or_default())?;
        }
        let policy = &clients["notation"]["trustpolicy.json"];
        put("notation/trustpolicy.json", &pretty(policy))?;
    }
    let mut said = format!("{} has {}", to.display(), written.join(", "));
    let others = others(&to, &written)?;
    if !others.is_empty() {
        said.push_str(&format!(
            "\nIt also has {}, which this project does not trust (any more): remove what is of it, and take it out of where it was copied to",
            others.join(", ")
        ));
    }
    Ok(said)
}

/// The keys and certificates beside what was written now, and not written: verifiers may read them all.
fn others(folder: &Path, written: &[String]) -> io::Result<Vec<String>> {
    let of = |name: &String| Path::new(name).parent().map(Path::to_path_buf);
    let inner: BTreeSet<PathBuf> = written.iter().filter_map(of).collect();
    let mut others = Vec::new();
    for inner in inner {
        for entry in std::fs::read_dir(folder.join(&inner))? {
            let name = inner.join(entry?.file_name());
            let is_key = name.extension().is_some_and(|end| end == "pub" || end == "pem");
            let name = name.display().to_string();
            if is_key && !written.contains(&name) {
                others.push(name);
            }
        }
    }
    Ok(others)
}

async fn rules(api: &Api, robot: &Named) -> io::Result<String> {
    Ok(format!("{}/trusts", robot.path(api).await?))
}

/// Prints the rules of a robot. For people, keys are shown by their number only.
async fn list(api: &Api, path: &str) -> io::Result<()> {
    let mut all = api.get(path).await?.as_array().cloned().unwrap_or_default();
    if !api.is_json() {
        for rule in &mut all {
            let count = rule["keys"]["keys"].as_array().map(Vec::len);
            rule["keys"] =
                count.map_or_else(|| "asked for".into(), |count| count.to_string().into());
        }
    }
    api.print(
        &all,
        &[
            ("ID", "/id"),
            ("ISSUER", "/issuer"),
            ("AUDIENCE", "/audience"),
            ("SUBJECT", "/subject"),
            ("CLAIMS", "/claims"),
            ("KEYS", "/keys"),
        ],
    );
    Ok(())
}

/// Runs it.
pub(in crate::cli) fn run(command: &TrustCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            Verb::Write { project, to } => {
                let path = format!("{}/signing", super::projects::path(project));
                let answer = api.get(&path).await?;
                let written = write(&answer, to)?;
                api.say(&written);
            }
            Verb::List(robot) => list(&api, &rules(&api, robot).await?).await?,
            Verb::Add { robot, issuer, audience, subject, claims, keys_file } => {
                let claims = claims.iter().map(|(name, value)| (name.clone(), json!(value)));
                let body = json!({
                    "issuer": issuer,
                    "audience": audience,
                    "subject": subject,
                    "claims": claims.collect::<Map<_, _>>(),
                    "keys": keys(keys_file.as_deref())?,
                });
                let path = rules(&api, robot).await?;
                api.send(Method::POST, &path, Some(&body)).await?;
                list(&api, &path).await?;
            }
            Verb::Keys { robot, id, keys_file } => {
                let body = json!({"keys": keys(keys_file.as_deref())?});
                let path = format!("{}/{id}", rules(&api, robot).await?);
                api.send(Method::PUT, &path, Some(&body)).await?;
                api.say(&format!("rule {id} has other keys"));
            }
            Verb::Remove { robot, id } => {
                let path = format!("{}/{id}", rules(&api, robot).await?);
                api.send(Method::DELETE, &path, None).await?;
                api.say(&format!("rule {id} is removed"));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_written_earlier_and_does_not_count_any_more_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        for inner in ["notation/x509", "elsewhere"] {
            std::fs::create_dir_all(place.join(inner)).unwrap();
        }
        for name in ["a.pub", "old.pub", "note.txt", "notation/x509/old.pem", "elsewhere/b.pub"] {
            std::fs::write(place.join(name), "x").unwrap();
        }
        let written = ["a.pub", "notation/x509/new.pem"].map(str::to_owned);
        assert_eq!(others(place, &written).unwrap(), ["old.pub", "notation/x509/old.pem"]);
    }
}
