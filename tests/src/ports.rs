//! Ports for programs that cannot be told to take any port and say which.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

/// A TCP port at this address for a program that is started soon. For a minute the system gives it
/// to nobody who asks for any port, not to the next caller of this function either; a program that
/// asks for this one and sets `SO_REUSEADDR`, as servers do, gets it.
///
/// A port that was only looked up and let go is nobody's: the next one who asks for any port may
/// get the same, before the program that it was meant for listens.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn reserve(address: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    let place = listener.local_addr().expect("a bound socket has an address");
    let mut near = TcpStream::connect(place).expect("a socket that listens takes connections");
    let (far, _) = listener.accept().expect("a connection that was made is taken");
    // who closes first has the port in TIME_WAIT
    drop(far);
    assert_eq!(near.read(&mut [0]).expect("the end of a connection"), 0);
    place
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, bind, socket};

    use super::*;

    #[test]
    fn a_reserved_port_is_for_who_asks_for_it_alone() {
        let place = reserve(Ipv4Addr::LOCALHOST.into());
        let anybody = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        assert_eq!(bind(&anybody, &place), Err(Errno::ADDRINUSE));
        assert_ne!(reserve(Ipv4Addr::LOCALHOST.into()), place);
        TcpListener::bind(place).expect("it was reserved for this");
    }
}
