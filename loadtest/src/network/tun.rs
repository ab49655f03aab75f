//! A TUN device of the calling thread's network namespace: what the kernel routes there, this
//! program reads as IP packets.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::ioctl::{Opcode, Updater, ioctl};

/// What the device is called.
pub(super) const NAME: &str = "wan";

/// `TUNSETIFF` of linux/if_tun.h.
const SET_INTERFACE: Opcode = 0x4004_54ca;

/// `IFF_TUN | IFF_NO_PI`: bare IP packets.
const BARE_PACKETS: u16 = 0x0001 | 0x1000;

/// `struct ifreq` as `TUNSETIFF` reads it and writes it back.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the device; it goes when this is closed. Reads and writes do not block.
#[expect(unsafe_code, reason = "no safe wrapper has this ioctl")]
pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open_file("/dev/net/tun", flags, Mode::empty())?;
    let mut request = InterfaceRequest { name: [0; 16], flags: BARE_PACKETS, rest: [0; 22] };
    request.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes of plain data, which the
    // request is; it lives until the call returns.
    unsafe { ioctl(&device, Updater::<SET_INTERFACE, _>::new(&mut request)) }?;
    Ok(device)
}
