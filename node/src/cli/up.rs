//! `atoll up`: a mesh of three regions on this machine. Each node is a process with its own
//! loopback address.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::live;
use super::world::{LocalMesh, Shape, find_nodes};
use crate::start::private;

/// Arguments of `up`.
#[derive(clap::Args)]
pub(super) struct Up {
    /// The folder for all data. A later start continues with the same data.
    #[arg(long, default_value = "atoll-data", value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

/// Runs the mesh until Ctrl-C.
pub(super) fn run(up: Up) -> io::Result<()> {
    private::from_now_on();
    private::folder(&up.data)?;
    let data = up.data.canonicalize()?;
    let lock = File::create(data.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| io::Error::other(format!("another `atoll up` is running on {}", data.display())),
    )?;
    let mut world = match find_nodes(&data)? {
        Some(nodes) => LocalMesh::again(data, nodes, &up.shape)?,
        None => LocalMesh::create(data, &up.shape)?,
    };
    // child processes must not outlive a failure
    let result = world.start_all().and_then(|()| live::follow(&mut world));
    let stopped = world.stop_all();
    drop(lock);
    result.and(stopped)
}
