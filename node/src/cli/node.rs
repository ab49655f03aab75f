//! The node that the command line asks, and the credentials: arguments that several commands share.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::client::Client;

/// A node, and the administrator's credentials.
#[derive(clap::Args)]
pub(super) struct Node {
    /// A node's address, http://HOST:PORT. Without it: the first node that answers in the mesh that
    /// `atoll up` started in --data.
    #[arg(long)]
    url: Option<String>,
    /// The administrator's name.
    #[arg(long, default_value = "admin")]
    user: String,
    /// A file with the administrator's password.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The CA to trust for an https --url (PEM), in addition to the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The folder in which `atoll up` keeps its mesh.
    #[arg(long, default_value = "atoll-data", value_name = "DIR")]
    data: PathBuf,
}

impl Node {
    /// A client for the node that was named, or for the first one of the mesh that `atoll up`
    /// started.
    pub(super) fn client(&self) -> io::Result<Client> {
        let (url, password_file) = match (&self.url, &self.password_file) {
            (Some(url), Some(file)) => (url.clone(), file.clone()),
            (url, file) => {
                let (first, kept) = from_up(&self.data).map_err(|error| match (url, file) {
                    (Some(_), None) => {
                        io::Error::other(format!("--password-file is missing, and {error}"))
                    }
                    (None, Some(_)) => io::Error::other(format!("--url is missing, and {error}")),
                    _ => error,
                })?;
                (url.clone().unwrap_or(first), file.clone().unwrap_or(kept))
            }
        };
        Client::new(&url, Some((&self.user, &password_file)), self.ca.as_deref())
    }
}

/// The first node that answers in the mesh that `atoll up` started in `data`, and the file with the
/// administrator's password.
pub(super) fn from_up(data: &Path) -> io::Result<(String, PathBuf)> {
    let path = data.join("mesh.json");
    let missing = |e: &dyn std::fmt::Display| {
        io::Error::other(format!(
            "{}: {e}; give --url and --password-file, or --data DIR of `atoll up`",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(&path).map_err(|e| missing(&e))?;
    let mesh: Value = serde_json::from_str(&text).map_err(|e| missing(&e))?;
    let nodes = mesh["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let urls: Vec<&str> = nodes.iter().filter_map(|node| node["url"].as_str()).collect();
    let url = urls.iter().find(|url| answers(url)).or(urls.first());
    match (url, mesh["admin"]["password_file"].as_str()) {
        (Some(url), Some(file)) => Ok(((*url).into(), file.into())),
        _ => Err(missing(&"not written by this version")),
    }
}

/// Whether connections are accepted there. A user who has just lost a node wants to hear about it
/// from another one.
fn answers(url: &str) -> bool {
    let address =
        url.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
    address.is_some_and(|address| {
        TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_answers_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let [gone, there] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [dead, alive] =
            [&gone, &there].map(|listener| format!("http://{}", listener.local_addr().unwrap()));
        drop(gone);
        let mesh = json!({"nodes": [{"url": dead}, {"url": alive}], "admin": {"password_file": "/secret"}});
        std::fs::write(folder.path().join("mesh.json"), mesh.to_string()).unwrap();
        assert_eq!(from_up(folder.path()).unwrap(), (alive, PathBuf::from("/secret")));
        drop(there);
        assert_eq!(from_up(folder.path()).unwrap().0, dead);
    }

    #[test]
    fn what_is_missing_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        let asked = |url: Option<&str>, file: Option<&str>| {
            let (url, password_file) = (url.map(str::to_owned), file.map(PathBuf::from));
            let data = nowhere.path().to_owned();
            let node = Node { url, user: "admin".into(), password_file, ca: None, data };
            node.client().err().unwrap().to_string()
        };
        assert!(asked(Some("http://localhost:1"), None).starts_with("--password-file is missing"));
        assert!(asked(None, Some("/secret")).starts_with("--url is missing"));
        assert!(asked(None, None).contains("give --url and --password-file"));
    }
}
