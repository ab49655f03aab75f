//! `atoll scanner`: the scanners of a mesh.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::super::shown::agreed;
use super::projects::by_name;
use super::{Api, Asking, part, text, with};

/// The scanners.
const SCANNERS: &str = "/api/v2.0/scanners";

/// Arguments of `scanner`.
#[derive(clap::Args)]
pub(in crate::cli) struct ScannerCommand {
    #[command(subcommand)]
    verb: Option<ScannerVerb>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum ScannerVerb {
    /// List the scanners, and how each is now.
    List,
    /// Register another scanner: one that speaks Harbor's API for pluggable scanners.
    Add(Add),
    /// Change a scanner: what is not said stays.
    Set(Set),
    /// Make a scanner that of all projects which have chosen none.
    SetDefault {
        /// Its name or number.
        scanner: String,
    },
    /// Let a project use a scanner.
    Use {
        /// Its name or number.
        scanner: String,
        /// The project.
        #[arg(long)]
        project: String,
    },
    /// Forget a scanner. Projects that use it have the default then.
    Remove {
        /// Its name or number.
        scanner: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Ask a scanner what it is and can do.
    Ping {
        /// Its name or number.
        scanner: String,
    },
}

#[derive(clap::Args)]
struct Add {
    /// Its name.
    name: String,
    /// Where it is: https://host[:port][/path]; or program:trivy, which each node starts by itself.
    address: String,
    /// What it is shown.
    #[arg(long, value_enum, default_value = "none")]
    auth: Auth,
    /// A file with the secret for that: NAME:PASSWORD for basic, else the token or key.
    #[arg(long, value_name = "FILE", required_if_eq_any = [("auth", "basic"), ("auth", "bearer"), ("auth", "api-key")])]
    credential_file: Option<PathBuf>,
    /// A description for people.
    #[arg(long, default_value = "")]
    description: String,
    /// Do not check its certificate: whoever stands in between reads everything.
    #[arg(long)]
    skip_certificate: bool,
    /// Have it pull at the node's own address, and not at its public URL.
    #[arg(long)]
    internal_address: bool,
    /// Register it also if it does not answer now.
    #[arg(long)]
    no_ping: bool,
}

#[derive(clap::Args)]
struct Set {
    /// Its name or number.
    scanner: String,
    /// Another name.
    #[arg(long)]
    name: Option<String>,
    /// Another address. Its secret has to be given again then.
    #[arg(long)]
    address: Option<String>,
    /// What it is shown.
    #[arg(long, value_enum)]
    auth: Option<Auth>,
    /// A file with the secret for that: NAME:PASSWORD for basic, else the token or key.
    #[arg(long, value_name = "FILE", required_if_eq_any = [("auth", "basic"), ("auth", "bearer"), ("auth", "api-key")])]
    credential_file: Option<PathBuf>,
    /// A description for people.
    #[arg(long)]
    description: Option<String>,
    /// Whether its certificate is not checked.
    #[arg(long, value_name = "true|false")]
    skip_certificate: Option<bool>,
    /// Whether it pulls at the node's own address, and not at its public URL.
    #[arg(long, value_name = "true|false")]
    internal_address: Option<bool>,
    /// Let nothing be scanned by it until it is enabled again.
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Let it scan again.
    #[arg(long)]
    enable: bool,
    /// Change it also if it does not answer as it is to be asked now.
    #[arg(long)]
    no_ping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Auth {
    /// Nothing.
    None,
    /// A name and a password.
    Basic,
    /// A token.
    Bearer,
    /// A key, in X-ScannerAdapter-API-Key.
    ApiKey,
}

impl Auth {
    fn word(self) -> &'static str {
        match self {
            Auth::None => "",
            Auth::Basic => "Basic",
            Auth::Bearer => "Bearer",
            Auth::ApiKey => "X-ScannerAdapter-API-Key",
        }
    }
}

/// Runs `scanner`.
pub(in crate::cli) fn run(command: &ScannerCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            None | Some(ScannerVerb::List) => list(&api).await,
            Some(ScannerVerb::Add(add)) => add.send(&api).await,
            Some(ScannerVerb::Set(set)) => set.send(&api).await,
            Some(ScannerVerb::SetDefault { scanner }) => {
                let (id, name) = named(&api, scanner).await?;
                let body = json!({"is_default": true});
                api.send(Method::PATCH, &format!("{SCANNERS}/{id}"), Some(&body)).await?;
                api.say(&format!("{name} is the default now"));
                Ok(())
            }
            Some(ScannerVerb::Use { scanner, project }) => {
                by_name(&api, project).await?;
                let (id, name) = named(&api, scanner).await?;
                let path = format!("/api/v2.0/projects/{}/scanner", part(project));
                api.send(Method::PUT, &path, Some(&json!({"uuid": id}))).await?;
                api.say(&format!("{project} is scanned by {name} now; scan it again to see"));
                Ok(())
            }
            Some(ScannerVerb::Remove { scanner, yes }) => {
                let (id, name) = named(&api, scanner).await?;
                // a mistake here opens gates
                let projects = api.all("/api/v2.0/projects").await?;
                let mut chosen = Vec::new();
                for project in
                    projects.iter().filter(|one| one["metadata"]["scanner"] == id.as_str())
                {
                    chosen.push(text(&project["name"]));
                }
                if !chosen.is_empty() {
                    let question = format!(
                        "images of {} are scanned by {name}. Then the default scanner counts, and if that one cannot scan, what is vulnerable is served. Remove it?",
                        chosen.join(", ")
                    );
                    let without = format!("{name} stays; confirm with --yes");
                    if !yes && !agreed(&question, &without)? {
                        return Err(io::Error::other("nothing was removed"));
                    }
                }
                api.send(Method::DELETE, &format!("{SCANNERS}/{id}"), None).await?;
                api.say(&format!("{name} is no scanner of the mesh any more"));
                Ok(())
            }
            Some(ScannerVerb::Ping { scanner }) => {
                let (id, name) = named(&api, scanner).await?;
                let metadata = api.get(&format!("{SCANNERS}/{id}/metadata")).await?;
                if api.is_json() {
                    api.print_one(&metadata);
                } else {
                    let of = &metadata["scanner"];
                    let [what, version] = [&of["name"], &of["version"]].map(text);
                    api.say(&format!("{name} is well: {what} {version}"));
                }
                Ok(())
            }
        }
    })
}

/// Lists the scanners, with the database of the one that is built in.
pub(super) async fn list(api: &Api) -> io::Result<()> {
    let scanners = api.all(SCANNERS).await?;
    api.print(
        &scanners,
        &[
            ("NAME", "/name"),
            ("DEFAULT", "/is_default"),
            ("HEALTH", "/health"),
            ("ADDRESS", "/url"),
            ("DATABASE", "/database/digest"),
            ("MADE", "/database/updated_at"),
            ("NEXT", "/database/next_update"),
            ("HERE", "/database_here/open"),
            ("FROM", "/database_here/source"),
            ("PROBLEM", "/problem"),
        ],
    );
    Ok(())
}

/// The number and the name of a scanner that is called so.
async fn named(api: &Api, called: &str) -> io::Result<(String, String)> {
    let all = api.all(SCANNERS).await?;
    let is = |one: &&Value, field: &str| one[field].as_str() == Some(called);
    let mut found = all.iter().filter(|one| is(one, "uuid") || is(one, "name"));
    let one = found.next().ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| text(&one["name"])).collect();
        io::Error::other(format!("there is no scanner {called}; there are {}", names.join(", ")))
    })?;
    Ok((text(&one["uuid"]), text(&one["name"])))
}

/// The secret in a file; an empty one without a file.
fn secret(file: Option<&Path>) -> io::Result<String> {
    let Some(file) = file else { return Ok(String::new()) };
    let text = std::fs::read_to_string(file)
        .map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
    Ok(text.trim().to_owned())
}

impl Set {
    /// The whole registration, as the API wants it: `was` with what is said here.
    fn body(&self, was: &Value, secret: &str) -> Value {
        let disabled = match (self.disable, self.enable) {
            (true, _) => json!(true),
            (_, true) => json!(false),
            _ => was["disabled"].clone(),
        };
        let or = |said: Option<Value>, key: &str| said.unwrap_or_else(|| was[key].clone());
        json!({
            "name": or(self.name.clone().map(Value::from), "name"),
            "url": or(self.address.clone().map(Value::from), "url"),
            "description": or(self.description.clone().map(Value::from), "description"),
            "auth": or(self.auth.map(|auth| auth.word().into()), "auth"),
            "access_credential": secret,
            "skip_certVerify": or(self.skip_certificate.map(Value::from), "skip_certVerify"),
            "use_internal_addr": or(self.internal_address.map(Value::from), "use_internal_addr"),
            "disabled": disabled,
        })
    }

    /// Whether it is asked how it is before it is changed: something changes of how it is asked, and
    /// this knows the secret.
    fn asks_first(&self, body: &Value) -> bool {
        let another = self.address.is_some()
            || self.auth.is_some()
            || self.credential_file.is_some()
            || self.skip_certificate.is_some();
        let can_ask = body["auth"] == "" || body["access_credential"] != "";
        !self.no_ping && another && can_ask && body["disabled"] != true
    }

    async fn send(&self, api: &Api) -> io::Result<()> {
        let (id, name) = named(api, &self.scanner).await?;
        let path = format!("{SCANNERS}/{id}");
        let was = api.get(&path).await?;
        let body = self.body(&was, &secret(self.credential_file.as_deref())?);
        if self.asks_first(&body) {
            api.send(Method::POST, &format!("{SCANNERS}/ping"), Some(&body)).await?;
        }
        api.send(Method::PUT, &path, Some(&body)).await?;
        api.say(&format!("{name} is changed"));
        Ok(())
    }
}

impl Add {
    async fn send(&self, api: &Api) -> io::Result<()> {
        let secret = match self.auth {
            Auth::None => String::new(),
            _ => secret(self.credential_file.as_deref())?,
        };
        let body = json!({
            "name": self.name,
            "url": self.address,
            "description": self.description,
            "auth": self.auth.word(),
            "access_credential": secret,
            "skip_certVerify": self.skip_certificate,
            "use_internal_addr": self.internal_address,
        });
        if !self.no_ping {
            api.send(Method::POST, &format!("{SCANNERS}/ping"), Some(&body)).await?;
        }
        api.send(Method::POST, SCANNERS, Some(&body)).await?;
        api.say(&format!("{} is a scanner of the mesh", self.name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_of_a_scanner_stays() {
        let was = json!({
            "uuid": "7", "name": "clair", "url": "https://clair.example", "description": "d",
            "auth": "Bearer", "disabled": false, "skip_certVerify": false,
            "use_internal_addr": true, "health": "healthy",
        });
        let nothing = Set {
            scanner: "clair".into(),
            name: None,
            address: None,
            auth: None,
            credential_file: None,
            description: None,
            skip_certificate: None,
            internal_address: None,
            disable: false,
            enable: false,
            no_ping: false,
        };
        let body = nothing.body(&was, "");
        for key in ["name", "url", "description", "auth", "disabled", "use_internal_addr"] {
            assert_eq!(body[key], was[key], "{key}");
        }
        assert_eq!((&body["access_credential"], &body["health"]), (&json!(""), &Value::Null));
        assert!(!nothing.asks_first(&body), "nothing changes of how it is asked");
        let moved = Set { address: Some("https://other.example".into()), ..nothing };
        assert!(
            !moved.asks_first(&moved.body(&was, "")),
            "the node says that the secret is needed"
        );
        assert!(moved.asks_first(&moved.body(&was, "key")));
        let unasked = Set { no_ping: true, ..moved };
        assert!(!unasked.asks_first(&unasked.body(&was, "key")));
        let nothing = Set { address: None, no_ping: false, ..unasked };
        let other = Set {
            address: Some("https://other.example".into()),
            auth: Some(Auth::ApiKey),
            disable: true,
            skip_certificate: Some(true),
            ..nothing
        };
        let body = other.body(&was, "key");
        assert_eq!(body["url"], "https://other.example");
        assert_eq!(body["auth"], "X-ScannerAdapter-API-Key");
        assert_eq!((&body["disabled"], &body["skip_certVerify"]), (&json!(true), &json!(true)));
        assert_eq!((&body["access_credential"], &body["name"]), (&json!("key"), &json!("clair")));
        let again = json!({"disabled": true});
        assert_eq!(
            Set { enable: true, disable: false, ..other }.body(&again, "")["disabled"],
            false
        );
    }
}
