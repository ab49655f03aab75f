//! The initial contents of a new mesh. `init` and `up` write them into the data_dir of the one node
//! that forms the mesh. They are used once and then removed, so a node whose disk was wiped has no
//! such file, and can never form a second mesh by accident.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh::identity::write_private;
use rules::ledger::command::{Command, NewProject};
use rules::ledger::level::Level;
use rules::ledger::records::{NodeRecord, SPARSE_INDEXES, User};
use rules::proxies::proxy::ProxyChange;
use rules::words::names::{NodeId, OperationId, ProjectName};
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

/// A mesh to form.
#[derive(Clone, Serialize, Deserialize)]
pub struct Birth {
    /// Its random id.
    pub mesh: u128,
    /// The secret that tokens are signed with, sealed.
    pub token_secret: Secret<Vec<u8>>,
    /// Its administrator.
    pub administrator: String,
    /// Their password, hashed.
    pub password_hash: Secret,
    /// Its first nodes.
    pub nodes: Vec<NodeRecord>,
    /// Its first voters.
    pub voters: Vec<(NodeId, SocketAddr)>,
    /// Its first project, which is public.
    pub project: ProjectName,
    /// The `durability` of that project.
    pub durability: u32,
    /// The operation ids of the commands, so that they are not repeated after a crash.
    pub operations: [OperationId; 3],
    /// The feature level that it begins with. In the file it follows the rest: earlier builds wrote
    /// none, and began with their newest.
    #[serde(skip, default = "newest")]
    pub level: Level,
}

fn newest() -> Level {
    Level::NEWEST
}

impl Birth {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("birth")
    }

    /// Writes it for the node in `data_dir`.
    pub fn save(&self, data_dir: &Path) -> io::Result<()> {
        let bytes = postcard::to_stdvec(&(self, self.level)).map_err(io::Error::other)?;
        write_private(&Self::path(data_dir), &bytes).map_err(io::Error::other)
    }

    /// Reads it, if this node has to form a mesh and has not done so yet.
    pub fn load(data_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(Self::path(data_dir)) {
            Ok(bytes) => Self::read(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (birth, rest) = postcard::take_from_bytes::<Birth>(bytes)?;
        if rest.is_empty() {
            return Ok(birth);
        }
        Ok(Birth { level: postcard::from_bytes(rest)?, ..birth })
    }

    /// Removes the file, after the mesh was formed.
    pub fn forget(data_dir: &Path) -> io::Result<()> {
        std::fs::remove_file(Self::path(data_dir))
    }

    /// The commands that form the mesh.
    pub fn commands(&self) -> Vec<(OperationId, Command)> {
        let administrator = (
            self.administrator.clone(),
            User { password_hash: self.password_hash.clone(), administrator: true },
        );
        let form = Command::FormMesh {
            mesh: self.mesh,
            token_secret: self.token_secret.clone(),
            administrator,
            nodes: self.nodes.clone(),
        };
        let [forms, creates, raises] = self.operations;
        // nodes of builds that are older than this level are not to come
        let raise = Command::RaiseLevel { level: self.level, token_secret: Secret::default() };
        let mut commands = vec![(forms, form), (raises, raise)];
        if let Some(home) = self.nodes.first() {
            let create = Command::CreateProject(NewProject {
                name: self.project.clone(),
                public: true,
                durability: self.durability,
                home: home.id,
                upstream: None,
                proxy: ProxyChange::default(),
                metadata: [(SPARSE_INDEXES.to_owned(), "true".to_owned())].into(),
            });
            commands.push((creates, create));
        }
        commands
    }
}
