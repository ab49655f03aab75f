//! What carries a connection: TCP, or TLS over it, opened in our own network or in another
//! namespace's.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::Target;
use crate::network;

/// An open stream.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Connects, and shakes hands where TLS is spoken.
    pub(super) fn open(target: &Target, patience: Duration) -> io::Result<Self> {
        let address = target.host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let connect = || TcpStream::connect_timeout(&address, patience);
        let mut stream = match &target.network {
            Some(network) => network::inside(network, connect)??,
            None => connect()?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let Some(tls) = &target.tls else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::from(address.ip());
        let mut session = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        // not `complete_io`: that reads on after the handshake, for what the server says when it
        // has heard our end of it, a round trip later
        loop {
            while session.wants_write() {
                session.write_tls(&mut stream)?;
            }
            if !session.is_handshaking() {
                break;
            }
            if session.read_tls(&mut stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            session.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
