//! A disk with moods: a small library put between a process and its `fsync`s (`LD_PRELOAD`), built
//! with the C compiler of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process;
use crate::tools::packaged;

/// What the library does, in C: each `fsync` and `fdatasync` waits for a random while of at most
/// `DISK_SLOW_MS`, for as long as there is a file `hangs` in the folder `DISK_MOOD` for ever, and
/// fails with EIO if there is a file `fails`.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int mood(const char *name) {
    char path[4096];
    const char *folder = getenv("DISK_MOOD");
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static int before(void) {
    const char *most = getenv("DISK_SLOW_MS");
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned seed = (unsigned)now.tv_nsec ^ (unsigned)getpid();
    if (most && atoi(most) > 0) usleep((unsigned)(rand_r(&seed) % (atoi(most) * 1000)));
    while (mood("hangs")) usleep(20000);
    return mood("fails");
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (before()) { errno = EIO; return -1; }
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (before()) { errno = EIO; return -1; }
    return real(fd);
}
"#;

/// A disk for processes that are started with its [`Disk::environment`].
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    slow: u32,
}

impl Disk {
    /// One whose every `fsync` takes up to `slow` milliseconds.
    ///
    /// # Panics
    /// When the library cannot be built.
    #[must_use]
    pub fn new(slow: u32) -> Self {
        let folder = TempDir::with_prefix("atoll-disk-").expect("a temporary folder");
        let source = folder.path().join("disk.c");
        std::fs::write(&source, LIBRARY).expect("a source file can be written");
        let mut compile: Command = packaged("cc", "build-essential");
        compile
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(library(folder.path()))
            .arg(&source)
            .arg("-ldl");
        process::succeed(&mut compile);
        Self { folder, slow }
    }

    /// What a process on it must find in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text =
            |path: &Path| path.to_str().expect("temporary folders have plain names").to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(&library(self.folder.path()))),
            ("DISK_SLOW_MS".to_owned(), self.slow.to_string()),
            ("DISK_MOOD".to_owned(), text(self.folder.path())),
        ]
    }

    /// From now on no `fsync` comes back.
    ///
    /// # Panics
    /// When that cannot be told.
    pub fn hang(&self) {
        std::fs::write(self.folder.path().join("hangs"), "").expect("a file can be written");
    }

    /// From now on every `fsync` fails.
    ///
    /// # Panics
    /// When that cannot be told.
    pub fn fail(&self) {
        std::fs::write(self.folder.path().join("fails"), "").expect("a file can be written");
    }

    /// From now on it is well again.
    pub fn mend(&self) {
        for mood in ["hangs", "fails"] {
            let _ = std::fs::remove_file(self.folder.path().join(mood));
        }
    }
}

fn library(folder: &Path) -> PathBuf {
    folder.join("disk.so")
}
