//! The socket on which a node listens for clients, and what its connections have of it.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections the system opens before the node takes them up; it may allow fewer
/// (`net.core.somaxconn`). One more has to begin again after a second.
const WAITING: i32 = 4096;
/// How many bytes of an answer wait in the system beyond those that are on their way. Without this a
/// client that reads slowly is given all that its send buffer may grow to (4 MiB, `tcp_wmem`), and a
/// few hundred of them use up what the system has for all connections (`tcp_mem`).
const UNSENT: u32 = 256 << 10;

/// Listens on an address.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // a node that starts again does not wait for connections of before
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // connections have it from the socket that they came in by
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;

    #[tokio::test]
    async fn a_connection_keeps_little_that_was_not_sent() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::net::TcpStream::connect(address);
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let (stream, _) = accepted.unwrap();
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT);
    }
}
