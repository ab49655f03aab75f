//! Another registry: Debian's `docker-registry` on loopback, and in front of it a door that counts
//! who asks for what and that can be told to fail.
//!
//! Pushes go to the registry itself. Pulls of the mesh go through the door.

mod door;

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use http::Method;
use tempfile::TempDir;

use crate::http::Client;
use crate::ports::reserve;
use crate::process::Running;
use crate::repository::Repository;
use crate::{tools, wait};
pub use door::{Asked, Ending, Manner, SLOPPY, Spoiling};
use door::{Door, Rules};

/// A registry that is not of the mesh. Dropping it ends it.
#[derive(Debug)]
pub struct Upstream {
    url: String,
    registry: String,
    door: Arc<Door>,
    // in this order, so that a registry that is gone is not asked
    _runtime: tokio::runtime::Runtime,
    _process: Running,
    _folder: TempDir,
}

impl Upstream {
    /// Starts it and waits until it answers, through the door.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same with the door at an address of this machine's, for nodes that have a network of
    /// their own.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start_at(address: IpAddr) -> Self {
        let folder = TempDir::with_prefix("atoll-upstream-").expect("a temporary folder");
        let (registry, address) = (reserve(Ipv4Addr::LOCALHOST.into()), reserve(address));
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"{registry}\"}}\n",
            folder.path().join("data").display()
        );
        std::fs::write(&config, text).expect("a configuration can be written");
        let mut command = tools::packaged("docker-registry", "docker-registry");
        let mut process =
            Running::start(command.arg("serve").arg(&config), &folder.path().join("log"));
        let door = Arc::new(Door::new(address, registry));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(door::stand(door.clone()));
        let url = format!("http://{address}");
        wait::until_ok("the upstream answers", || {
            assert!(process.ended().is_none(), "docker-registry ended:\n{}", process.last_words());
            let answer = Client::of(&url).get("/v2/").map_err(|none| none.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
        let upstream = Self {
            url,
            registry: format!("http://{registry}"),
            door,
            _runtime: runtime,
            _process: process,
            _folder: folder,
        };
        upstream.forget();
        upstream
    }

    /// Its URL: the door's.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is past the door, as clients name it that push and sign.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.registry.trim_start_matches("http://")
    }

    /// A repository of it, past the door.
    #[must_use]
    pub fn repository(&self, name: &str) -> Repository {
        Repository::new(&Client::of(&self.registry), name)
    }

    /// Changes the door's manner, and waits until it is so.
    pub fn behave(&self, manner: Manner) {
        self.door.manner.send_replace(manner);
        wait::until("the door opens or closes", || {
            let open =
                TcpStream::connect_timeout(&self.door.address, Duration::from_millis(300)).is_ok();
            (open == manner.is_open()).then_some(())
        });
    }

    /// Breaks off the body of the next blob that is asked for after `bytes` bytes, and goes on in
    /// this manner.
    pub fn cut(&self, bytes: usize, then: Manner) {
        self.rules().cut = Some((bytes, then));
    }

    /// Spoils the blobs that go out from now on in this way.
    pub fn spoil(&self, spoiling: Spoiling) {
        let mut rules = self.rules();
        rules.spoiling = spoiling;
        rules.seen.clear();
    }

    /// Rests before each piece of a blob, so that who asks at the same time does meet.
    pub fn pause(&self, pause: Duration) {
        self.rules().pause = pause;
    }

    /// From now on each answer about a manifest takes so long.
    pub fn think(&self, time: Duration) {
        self.rules().thinking = time;
    }

    /// From now on only this name and password are accepted.
    pub fn demand(&self, user: &str, password: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.rules().authorization = Some(format!("Basic {pair}"));
    }

    /// The requests that it received, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.rules().asked.clone()
    }

    /// What was asked of it that ends with `what` (`blobs/sha256:...`), by this method.
    #[must_use]
    pub fn asked_for(&self, method: &Method, what: &str) -> Vec<Asked> {
        let fits = |one: &Asked| one.method == method && one.path.ends_with(&format!("/{what}"));
        self.asked().into_iter().filter(fits).collect()
    }

    /// The requests for manifests and blobs: what is left when logins and pings are left out.
    #[must_use]
    pub fn asked_for_content(&self) -> Vec<Asked> {
        let content =
            |one: &Asked| one.path.contains("/manifests/") || one.path.contains("/blobs/");
        self.asked().into_iter().filter(content).collect()
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        let mut rules = self.rules();
        rules.forgotten += std::mem::take(&mut rules.asked).len();
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.door.rules()
    }
}
