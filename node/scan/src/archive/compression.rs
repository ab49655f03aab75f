//! gzip and zstd, streamed.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// The largest window of a zstd frame: level 19 uses 8 MiB, and level 20 (`--ultra`) 32 MiB. The
/// decoder holds that much.
const WINDOW: u64 = 32 << 20;

impl Compression {
    /// What the media type of a layer says. `None` for one that is no layer.
    pub(crate) fn of(media_type: &str) -> Option<Compression> {
        let plain = media_type.split(';').next().unwrap_or_default().trim();
        Some(match plain {
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Compression::None,
            _ => return None,
        })
    }
}

/// The decompressed bytes. An end that comes too early, and bytes after the end that are not
/// compressed, are errors. The sum of a zstd frame is not checked: the blob's digest was.
pub(crate) fn decompress<'a>(
    compressed: impl Read + 'a,
    compression: Compression,
) -> Box<dyn Read + 'a> {
    let input = BufReader::with_capacity(64 << 10, compressed);
    match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(Zstd::new(input)),
    }
}

/// Frames, one after the other.
struct Zstd<R> {
    input: R,
    decoder: Box<FrameDecoder>,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        let mut decoder = Box::new(FrameDecoder::new());
        decoder.set_max_window_size(WINDOW);
        Zstd { input, decoder, in_frame: false }
    }

    /// Begins the next frame with content; skippable ones (RFC 8878, 3.1.2) are passed over.
    /// `false` at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let length = match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => u64::from(length),
                Err(error) => return Err(io::Error::other(error.to_string())),
            };
            if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                self.in_frame = self.begin()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.in_frame = false;
                continue;
            }
            self.decoder
                .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBytes(64 << 10))
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn read(bytes: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        decompress(bytes, compression).read_to_end(&mut all).map(|_| all)
    }

    fn text() -> Vec<u8> {
        (0..200_000_u32).flat_map(|number| number.to_string().into_bytes()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory takes bytes");
        encoder.finish().expect("memory takes bytes")
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let twice = [text(), text()].concat();
        let zipped = [gzip(&text()), gzip(&text())].concat();
        assert!(read(&zipped, Compression::Gzip).expect("whole") == twice);
        let frame = compress_to_vec(&text()[..], CompressionLevel::Fastest);
        let skipped = [&0x184D_2A53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"any"].concat();
        let frames = [&skipped[..], &frame, &skipped, &frame].concat();
        assert!(read(&frames, Compression::Zstd).expect("whole") == twice);
        assert!(read(&twice, Compression::None).expect("whole") == twice);
    }

    #[test]
    fn what_ends_too_early_is_an_error() {
        for (bytes, compression) in [
            (gzip(&text()), Compression::Gzip),
            (compress_to_vec(&text()[..], CompressionLevel::Fastest), Compression::Zstd),
        ] {
            for cut in [1, 5, 11, 100, bytes.len() / 2, bytes.len() - 1] {
                assert!(read(&bytes[..cut], compression).is_err(), "{compression:?} {cut}");
            }
            let garbage = [&bytes[..], b"garbage after the end"].concat();
            assert!(read(&garbage, compression).is_err(), "{compression:?}");
        }
    }

    #[test]
    fn a_window_that_takes_too_much_memory_is_refused() {
        // magic, no single segment, a window of 2^31
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 21 << 3, 1, 0, 0];
        assert!(read(&frame, Compression::Zstd).is_err());
    }
}
