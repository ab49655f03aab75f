//! Small disks.

use std::path::{Path, PathBuf};

use crate::{process, tools};

/// A small file system of its own in a folder, for as long as this lives.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of `size` (`48m`) in `folder`, which it makes.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn of(folder: &Path, size: &str) -> Self {
        std::fs::create_dir_all(folder).expect("a folder to mount on");
        let options = format!("size={size}");
        process::succeed(
            tools::packaged("mount", "mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(folder),
        );
        Self(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // processes that still have open files there end with the mesh
        process::finish(tools::packaged("umount", "mount").arg("--lazy").arg(&self.0));
    }
}
