//! `atoll login` and `atoll logout`: the meshes that this user works with, in a file that only they
//! can read.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::StatusCode;
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

use super::client::{Call, Client};

/// A mesh, and who one is there.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Context {
    /// A node's URL.
    pub(super) url: String,
    /// The user or robot.
    pub(super) user: String,
    password: String,
    /// The CA to trust for https, in addition to the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
}

impl Context {
    /// A client for it.
    pub(super) fn client(&self) -> io::Result<Client> {
        let password: Secret = self.password.clone().into();
        Client::with_password(&self.url, &self.user, &password, self.ca.as_deref())
    }
}

/// All meshes that this user has logged in to.
#[derive(Serialize, Deserialize)]
pub(super) struct Contexts {
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
    /// When the file was written last: by a login, or a logout.
    #[serde(skip, default = "never")]
    pub(super) since: SystemTime,
}

fn never() -> SystemTime {
    SystemTime::UNIX_EPOCH
}

impl Default for Contexts {
    fn default() -> Self {
        Contexts { current: None, contexts: BTreeMap::new(), since: never() }
    }
}

/// Where they are kept: `ATOLL_CONTEXTS`, or `atoll/contexts.json` in the user's configuration.
fn file() -> io::Result<PathBuf> {
    if let Some(file) = std::env::var_os("ATOLL_CONTEXTS") {
        return Ok(file.into());
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let folder = config.or(home).ok_or_else(|| {
        io::Error::other("neither HOME nor XDG_CONFIG_HOME is set; set ATOLL_CONTEXTS to a file")
    })?;
    Ok(folder.join("atoll/contexts.json"))
}

impl Contexts {
    /// Reads them; none if there is no file.
    pub(super) fn read() -> io::Result<Self> {
        let Ok(file) = file() else { return Ok(Contexts::default()) };
        match fs::read_to_string(&file) {
            Ok(text) => {
                let read: Contexts = serde_json::from_str(&text)
                    .map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
                let since = fs::metadata(&file).and_then(|about| about.modified());
                Ok(Contexts { since: since.unwrap_or_else(|_| never()), ..read })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
    }

    /// The one with this name, or the one of the last login.
    pub(super) fn get(&self, name: Option<&str>) -> Option<(&str, &Context)> {
        let found = self.contexts.get_key_value(name.or(self.current.as_deref())?);
        found.map(|(name, context)| (name.as_str(), context))
    }

    /// The one for this URL, if there is one.
    pub(super) fn at(&self, url: &str) -> Option<(&str, &Context)> {
        let plain = url.trim_end_matches('/');
        let found = self.contexts.iter().find(|(_, context)| context.url == plain);
        found.map(|(name, context)| (name.as_str(), context))
    }

    /// Their names, separated by commas.
    pub(super) fn names(&self) -> String {
        self.contexts.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    fn write(&self) -> io::Result<PathBuf> {
        let file = file()?;
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", file.display()));
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
        let new = file.with_extension("new");
        // one that a crash has left may be readable by others
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        let mut opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(named)?;
        opened.write_all(text.as_bytes()).map_err(named)?;
        opened.sync_all().map_err(named)?;
        fs::rename(&new, &file).map_err(named)?;
        Ok(file)
    }
}

/// Arguments of `login`.
#[derive(clap::Args)]
pub(super) struct Login {
    /// A node's address, http://HOST:PORT or https://HOST.
    #[arg(value_name = "URL")]
    url: String,
    /// A user's or a robot's name.
    #[arg(long, default_value = "admin")]
    user: String,
    /// A file with the password or the robot's secret. Without it, it is read from the standard
    /// input.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The CA to trust for an https URL (PEM), in addition to the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// What to call this mesh; the URL's host without it. Other commands take it as --context.
    #[arg(long)]
    name: Option<String>,
}

/// Arguments of `logout`.
#[derive(clap::Args)]
pub(super) struct Logout {
    /// The mesh; the one of the last login without it.
    name: Option<String>,
}

/// Checks the credentials and keeps them.
pub(super) fn login(login: &Login) -> io::Result<()> {
    let url = login.url.trim_end_matches('/').to_owned();
    let parsed: http::Uri = url.parse().map_err(|e| io::Error::other(format!("{url}: {e}")))?;
    let (Some("http" | "https"), Some(host)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(io::Error::other(format!("{url} is not http://HOST:PORT or https://HOST")));
    };
    let password = match &login.password_file {
        Some(file) => fs::read_to_string(file)
            .map_err(|e| io::Error::other(format!("--password-file {}: {e}", file.display())))?,
        None => {
            eprintln!("password of {}, then Enter and Ctrl-D:", login.user);
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    let ca = login.ca.as_ref().map(std::path::absolute).transpose()?;
    let name = login.name.clone().unwrap_or_else(|| host.to_string());
    let password = password.trim().to_owned();
    let context = Context { url, user: login.user.clone(), password, ca };
    let client = context.client()?;
    let runtime = super::small_runtime()?;
    let answer = runtime.block_on(client.send(Call::get("/v2/")))?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            let message = format!("{} does not know {} with this password", name, login.user);
            return Err(io::Error::other(message));
        }
        status => return Err(io::Error::other(format!("{}/v2/ answered {status}", context.url))),
    }
    let mut contexts = Contexts::read()?;
    contexts.contexts.insert(name.clone(), context);
    contexts.current = Some(name.clone());
    let file = contexts.write()?;
    println!("logged in to {name} as {}; kept in {}", login.user, file.display());
    if runtime.block_on(client.request("/api/v2.0/users/current"))?.0 != StatusCode::OK {
        eprintln!(
            "{} is no user: commands work as far as it was granted what they need (docs/cli.md, Robots)",
            login.user
        );
    }
    Ok(())
}

/// Forgets credentials.
pub(super) fn logout(logout: &Logout) -> io::Result<()> {
    let mut contexts = Contexts::read()?;
    let name = logout.name.clone().or_else(|| contexts.current.clone());
    let known = name.filter(|name| contexts.contexts.remove(name).is_some());
    let Some(name) = known else {
        return Err(io::Error::other(match contexts.names() {
            none if none.is_empty() => "nobody is logged in".to_owned(),
            names => format!("there is no such login; there are {names}"),
        }));
    };
    if contexts.current.as_ref() == Some(&name) {
        contexts.current = None;
    }
    contexts.write()?;
    println!("logged out of {name}");
    Ok(())
}
