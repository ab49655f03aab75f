//! The node that the command line asks, and the credentials: arguments that several commands share.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::client::Client;
use super::contexts::{Context, Contexts};
use super::shown::safe;

/// A node, and credentials. Without any of these: the mesh of the last `atoll login`, or the one that
/// `atoll up` runs in `atoll-data`, whichever came later.
#[derive(clap::Args)]
pub(super) struct Node {
    /// A node's address, http://HOST:PORT.
    #[arg(long, global = true)]
    url: Option<String>,
    /// The user's name.
    #[arg(long, default_value = "admin", global = true)]
    user: String,
    /// A file with the user's password.
    #[arg(long, global = true)]
    password_file: Option<PathBuf>,
    /// The CA to trust for an https --url (PEM), in addition to the public ones.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// The folder in which `atoll up` keeps its mesh: its first node that answers is asked.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// The name of a mesh that you have logged in to (`atoll login`).
    #[arg(long, value_name = "NAME", global = true, conflicts_with_all = ["url", "data"])]
    context: Option<String>,
}

/// How long a node may take to say that it is ready, when another one may be asked instead.
const READY: Duration = Duration::from_millis(500);

/// The folder of `atoll up` without --data.
const DATA: &str = "atoll-data";

impl Node {
    /// A client for the node that was named, or for the first one of the mesh that `atoll up`
    /// started.
    pub(super) fn client(&self) -> io::Result<Client> {
        if let Some((name, context, since)) = self.context()? {
            let here = self.is_silent().then(|| running_in(Path::new(DATA))).flatten();
            let Some(here) = here.filter(|here| !here.urls.contains(&context.url)) else {
                return context.client();
            };
            // which was meant: what was done last, and it is said that there is another one
            if since >= here.since {
                eprintln!(
                    "atoll: asking {name}, where you have logged in last; `--data {DATA}` asks the mesh that `atoll up` runs here"
                );
                return context.client();
            }
            eprintln!(
                "atoll: asking the mesh that `atoll up` runs here, at {}; `--context {name}` asks the one of your last login",
                safe(&here.node.local_url)
            );
        }
        let client = |url: &str, password_file: &Path| {
            Client::new(url, Some((&self.user, password_file)), self.ca.as_deref())
        };
        let found = || {
            from_up(self.data.as_deref().unwrap_or(Path::new(DATA))).map_err(|error| {
                match (&self.url, &self.password_file) {
                    (Some(_), None) => {
                        io::Error::other(format!("--password-file is missing, and {error}"))
                    }
                    (None, Some(_)) => io::Error::other(format!("--url is missing, and {error}")),
                    _ => error,
                }
            })
        };
        match (&self.url, &self.password_file) {
            (Some(url), Some(file)) => client(url, file),
            (Some(url), None) => client(url, &found()?.password_file),
            (None, file) => {
                let found = found()?;
                let file = file.as_ref().unwrap_or(&found.password_file);
                let client = client(&found.local_url, file)?;
                match found.certificate.filter(|_| self.ca.is_none()) {
                    Some(certificate) => client.pinned(&certificate),
                    None => Ok(client),
                }
            }
        }
    }
}

impl Node {
    /// Whether nothing says which mesh is meant.
    fn is_silent(&self) -> bool {
        let Node { url, data, password_file, context, .. } = self;
        url.is_none() && data.is_none() && password_file.is_none() && context.is_none()
    }

    /// The login that is meant: the one that is named, the one for the URL, or the last one; with its
    /// name, and when somebody has last logged in anywhere.
    fn context(&self) -> io::Result<Option<(String, Context, SystemTime)>> {
        let named = self.context.as_deref();
        let silent = self.url.is_none() && self.data.is_none() && self.password_file.is_none();
        if named.is_none() && !silent && (self.url.is_none() || self.password_file.is_some()) {
            return Ok(None);
        }
        let contexts = Contexts::read()?;
        let found = match (&self.url, named) {
            (Some(url), _) => contexts.at(url),
            (None, name) => contexts.get(name),
        };
        match (found, named) {
            (None, Some(name)) => Err(io::Error::other(format!(
                "nobody is logged in to {name}; there are: {}",
                contexts.names()
            ))),
            (found, _) => {
                Ok(found.map(|(name, context)| (name.to_owned(), context.clone(), contexts.since)))
            }
        }
    }
}

/// A mesh that `atoll up` runs.
struct Running {
    /// The node to ask.
    node: FoundNode,
    /// The addresses of all its nodes.
    urls: Vec<String>,
    /// When it was started.
    since: SystemTime,
}

/// The mesh that `atoll up` runs in `data`, if one of its nodes takes connections.
fn running_in(data: &Path) -> Option<Running> {
    let node = from_up(data).ok().filter(|node| answers(&node.local_url))?;
    let path = data.join("mesh.json");
    let since = std::fs::metadata(&path).and_then(|file| file.modified()).ok()?;
    let mesh: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let nodes = mesh["nodes"].as_array().into_iter().flatten();
    let urls = nodes.flat_map(|node| [&node["url"], &node["local_url"]]);
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    let urls = urls.filter_map(|url| url.as_str().map(plain)).collect();
    Some(Running { node, urls, since })
}

/// A node of the mesh that `atoll up` started, as `mesh.json` has it.
#[derive(Debug, PartialEq)]
pub(super) struct FoundNode {
    /// Its URL for clients.
    pub(super) url: String,
    /// Where it listens on this machine.
    local_url: String,
    /// Its certificate, if it speaks https.
    certificate: Option<PathBuf>,
    /// The file with the administrator's password.
    password_file: PathBuf,
}

/// The first ready node of the mesh that `atoll up` started in `data`. If none is ready, the first that
/// takes connections; if none does, the first of all.
pub(super) fn from_up(data: &Path) -> io::Result<FoundNode> {
    let path = data.join("mesh.json");
    let missing = |e: &dyn std::fmt::Display| {
        io::Error::other(format!(
            "{}: {e}; run `atoll login URL`, or give --url and --password-file, or --data DIR of `atoll up`",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(&path).map_err(|e| missing(&e))?;
    let mesh: Value = serde_json::from_str(&text).map_err(|e| missing(&e))?;
    let nodes = mesh["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let node = |node: &Value| {
        let url = node["url"].as_str()?.to_owned();
        // a mesh that an earlier build has started does not say where else it listens
        let local_url = node["local_url"].as_str().unwrap_or(&url).to_owned();
        let certificate = node["certificate"].as_str().map(PathBuf::from);
        let password_file = mesh["admin"]["password_file"].as_str()?.into();
        Some(FoundNode { url, local_url, certificate, password_file })
    };
    let mut found: Vec<FoundNode> = nodes.iter().filter_map(node).collect();
    if found.is_empty() {
        return Err(missing(&"not written by this version"));
    }
    let mut alive = None;
    for (at, node) in found.iter().enumerate() {
        if !answers(&node.local_url) {
            continue;
        }
        // one whose region is drilled refuses all that it is asked, and another one would not
        if is_ready(node) {
            alive = Some(at);
            break;
        }
        alive = alive.or(Some(at));
    }
    Ok(found.swap_remove(alive.unwrap_or(0)))
}

/// Whether a node says that it is ready.
fn is_ready(node: &FoundNode) -> bool {
    let asked = || {
        let client = Client::new(&node.local_url, None, None)?;
        let client = match &node.certificate {
            Some(certificate) => client.pinned(certificate)?,
            None => client,
        };
        let asked = async { tokio::time::timeout(READY, client.request("/readyz")).await };
        let (status, _) = super::small_runtime()?.block_on(asked).map_err(io::Error::other)??;
        Ok::<_, io::Error>(status == http::StatusCode::OK)
    };
    asked().unwrap_or(false)
}

/// Whether connections are accepted there. A user who has just lost a node wants to hear about it
/// from another one.
fn answers(url: &str) -> bool {
    let address =
        url.split_once("://").and_then(|(_, rest)| rest.trim_end_matches('/').parse().ok());
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
        let secure = alive.replace("http:", "https:");
        let found = |url: &str, local_url: &str, certificate: Option<&str>| FoundNode {
            url: url.into(),
            local_url: local_url.into(),
            certificate: certificate.map(PathBuf::from),
            password_file: "/secret".into(),
        };
        let write = |second: Value| {
            let mesh =
                json!({"nodes": [{"url": dead}, second], "admin": {"password_file": "/secret"}});
            std::fs::write(folder.path().join("mesh.json"), mesh.to_string()).unwrap();
        };
        write(json!({"url": alive}));
        assert_eq!(from_up(folder.path()).unwrap(), found(&alive, &alive, None));
        // clients may know it by a name that leads elsewhere
        let named = "https://registry.example";
        write(json!({"url": named, "local_url": secure, "certificate": "/node.crt"}));
        assert_eq!(from_up(folder.path()).unwrap(), found(named, &secure, Some("/node.crt")));
        drop(there);
        assert_eq!(from_up(folder.path()).unwrap(), found(&dead, &dead, None));
    }

    /// A node that answers one request after the other with this status, after it took connections that
    /// were closed at once.
    fn answering(status: &'static str) -> String {
        use std::io::{Read as _, Write as _};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if stream.read(&mut [0; 2000]).is_ok_and(|read| read > 0) {
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes());
                }
            }
        });
        url
    }

    /// A node whose region is drilled refuses all.
    #[test]
    fn a_node_that_is_ready_is_asked_before_one_that_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (refuses, ready) = (answering("503 Service Unavailable"), answering("200 OK"));
        let asked = |nodes: &[&String]| {
            let nodes: Vec<Value> = nodes.iter().map(|url| json!({ "url": url })).collect();
            let mesh = json!({"nodes": nodes, "admin": {"password_file": "/secret"}});
            std::fs::write(folder.path().join("mesh.json"), mesh.to_string()).unwrap();
            from_up(folder.path()).unwrap().url
        };
        assert_eq!(asked(&[&refuses, &ready]), ready);
        assert_eq!(asked(&[&ready, &refuses]), ready);
        assert_eq!(asked(&[&refuses, &refuses]), refuses, "it says why");
    }

    #[test]
    fn what_is_missing_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        let asked = |url: Option<&str>, file: Option<&str>| {
            let (url, password_file) = (url.map(str::to_owned), file.map(PathBuf::from));
            let data = nowhere.path().to_owned();
            let data = Some(data);
            let node =
                Node { url, user: "admin".into(), password_file, ca: None, data, context: None };
            node.client().err().unwrap().to_string()
        };
        assert!(asked(Some("http://localhost:1"), None).starts_with("--password-file is missing"));
        assert!(asked(None, Some("/secret")).starts_with("--url is missing"));
        assert!(asked(None, None).contains("give --url and --password-file"));
    }
}
