//! The maximum size of a packet on the way to a peer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::sockopt;

/// The largest UDP payload in bytes that is tried on the way to `address`. quinn finds out how much
/// of it gets through.
///
/// A jumbo frame needs less processor time per byte than an Ethernet frame. The first hop's MTU is
/// only an upper bound: the path may be narrower.
pub(super) fn largest_payload(address: SocketAddr) -> u16 {
    payload(first_hop(address).ok())
}

/// The maximum payload where larger frames may pass. Ten packets are given to the kernel at once
/// (GSO), which takes 65,507 bytes.
pub(super) const LARGEST: u16 = 6_500;
/// The payload that passes every Ethernet.
const ETHERNET: u16 = 1_452;
/// The length of the headers of IPv6 and UDP.
const HEADERS: u32 = 48;

fn payload(mtu: Option<u32>) -> u16 {
    let room = mtu.filter(|mtu| *mtu > 1_500).map_or(0, |mtu| mtu.saturating_sub(HEADERS));
    u16::try_from(room).unwrap_or(u16::MAX).clamp(ETHERNET, LARGEST)
}

/// The MTU that the kernel knows for the way to `address`. Nothing is sent.
fn first_hop(address: SocketAddr) -> io::Result<u32> {
    let any = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind::<SocketAddr>(any)?;
    socket.connect(address)?;
    Ok(if address.is_ipv4() { sockopt::ip_mtu(&socket) } else { sockopt::ipv6_mtu(&socket) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_large_as_the_first_hop_and_what_the_kernel_takes_at_once_allow() {
        let known = [
            None,
            Some(576),
            Some(1_280),
            Some(1_500),
            Some(1_600),
            Some(4_000),
            Some(9_001),
            Some(65_536),
        ];
        assert_eq!(known.map(payload), [1_452, 1_452, 1_452, 1_452, 1_552, 3_952, 6_500, 6_500]);
    }

    #[test]
    fn loopback_is_wide() {
        assert_eq!(largest_payload((Ipv4Addr::LOCALHOST, 9).into()), LARGEST);
    }
}
