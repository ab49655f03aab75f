//! One TCP connection: writes a request, reads an answer, and throws the body away through one
//! buffer.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::head::{self, Framing, Head};
use super::stream::Stream;
use super::{Answer, Sink, Target};

/// Large enough that a big blob costs few system calls, small enough to stay in the second-level
/// cache.
const BUFFER: usize = 256 << 10;

/// An open connection, and the bytes read from it that were not used yet.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects, and speaks TLS as far as it is to be spoken.
    pub(super) fn open(target: &Target, patience: Duration) -> io::Result<Self> {
        let stream = Stream::open(target, patience)?;
        Ok(Connection { stream, buffer: vec![0; BUFFER], start: 0, end: 0 })
    }

    /// Writes a request and reads its answer; also whether the connection may be used again.
    pub(super) fn exchange(
        &mut self,
        head: &[u8],
        body: &[&[u8]],
        bodiless: bool,
        sink: &mut Sink<'_>,
    ) -> io::Result<(Answer, bool)> {
        let begun = Instant::now();
        self.stream.write_all(head)?;
        for part in body {
            self.stream.write_all(part)?;
        }
        let head = self.head()?;
        let first = begun.elapsed();
        let (bytes, reusable) = if bodiless || matches!(head.status, 204 | 304) {
            (0, true)
        } else {
            match head.framing {
                Framing::Length(length) => (self.take(length, sink)?, true),
                Framing::Chunked => (self.chunks(sink)?, true),
                Framing::UntilClose => (self.rest(sink)?, false),
            }
        };
        let answer = Answer {
            status: head.status,
            location: head.location,
            warned: head.warned,
            bytes,
            first,
            total: begun.elapsed(),
        };
        Ok((answer, reusable && head.keep))
    }

    /// The next head that is not an interim one (`100 Continue` and the like).
    fn head(&mut self) -> io::Result<Head> {
        loop {
            let found = head::parse(&self.buffer[self.start..self.end])
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
            match found {
                Some((head, used)) => {
                    self.start += used;
                    if head.status >= 200 {
                        return Ok(head);
                    }
                }
                None => self.fill()?,
            }
        }
    }

    /// Passes on exactly `length` bytes.
    fn take(&mut self, length: u64, sink: &mut Sink<'_>) -> io::Result<u64> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
            sink.take(&self.buffer[self.start..self.start + here]);
            self.start += here;
            left -= here as u64;
        }
        Ok(length)
    }

    /// Passes on a chunked body, without its trailers.
    fn chunks(&mut self, sink: &mut Sink<'_>) -> io::Result<u64> {
        let mut bytes = 0;
        loop {
            let length = head::chunk_length(&self.line()?).ok_or(io::ErrorKind::InvalidData)?;
            if length == 0 {
                while !self.line()?.is_empty() {}
                return Ok(bytes);
            }
            bytes += self.take(length, sink)?;
            if !self.line()?.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Passes on everything until the server closes.
    fn rest(&mut self, sink: &mut Sink<'_>) -> io::Result<u64> {
        let mut bytes = 0;
        loop {
            bytes += self.take((self.end - self.start) as u64, sink)?;
            match self.fill() {
                Ok(()) => {}
                Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(bytes),
                Err(error) => return Err(error),
            }
        }
    }

    /// One line without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.windows(2).position(|two| two == b"\r\n") {
                let line = unread[..at].to_vec();
                self.start += at + 2;
                return Ok(line);
            }
            if unread.len() > head::LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.fill()?;
        }
    }

    /// Reads once. Unread bytes are moved to the front first, so there is always room: no caller
    /// leaves more than [`head::LONGEST`] bytes unread and asks for more.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.end += read;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers one request with these pieces, one write each, and closes.
    fn answered(
        pieces: &'static [&'static str],
        bodiless: bool,
    ) -> io::Result<(u16, Vec<u8>, bool)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let server = std::thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut request = [0; 64];
            let _ = stream.read(&mut request)?;
            pieces.iter().try_for_each(|piece| stream.write_all(piece.as_bytes()))
        });
        let mut connection = Connection::open(&Target::at(&host), Duration::from_secs(10))?;
        let mut body = Vec::new();
        let exchange = connection.exchange(
            b"GET / HTTP/1.1\r\n\r\n",
            &[],
            bodiless,
            &mut Sink::Keep(&mut body),
        );
        server.join().expect("the server does not panic")?;
        exchange.map(|(answer, keep)| (answer.status, body, keep))
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        let got = answered(&["HTTP/1.1 200 OK\r\nContent-", "Length: 5\r\n\r\nhe", "llo"], false)
            .unwrap();
        assert_eq!(got, (200, b"hello".to_vec(), true));
    }

    #[test]
    fn chunks_are_joined_and_an_interim_answer_is_skipped() {
        let pieces = &[
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r",
            "\nabc\r\n",
            "1\r\nd\r\n0\r\nT: x\r\n\r\n",
        ];
        assert_eq!(answered(pieces, false).unwrap(), (404, b"abcd".to_vec(), true));
    }

    #[test]
    fn an_answer_to_head_has_no_body_and_one_without_length_lasts_until_the_close() {
        assert_eq!(
            answered(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], true).unwrap(),
            (200, vec![], true)
        );
        assert_eq!(
            answered(&["HTTP/1.1 200 OK\r\n\r\nall"], false).unwrap(),
            (200, b"all".to_vec(), false)
        );
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        let cut = answered(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"], false).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        assert!(
            answered(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"], false)
                .is_err()
        );
    }
}
