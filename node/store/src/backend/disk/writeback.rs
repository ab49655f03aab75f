//! Starts the write-back of new bytes early. This is the one system call that no safe crate offers.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Starts to write `length` bytes from `offset` to the disk, and does not wait. It is only a hint:
/// durability comes from the later fdatasync.
#[expect(unsafe_code, reason = "sync_file_range is in no safe wrapper")]
pub(super) fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: takes a descriptor that is open for as long as `file` is borrowed, and no pointers
    let _ = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
    };
}
