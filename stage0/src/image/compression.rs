//! Compressed streams, recognised by their first bytes, and bounded in what they may unfold to.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one or more members.
    Gzip,
    /// One or more streams.
    Bzip2,
    /// One or more streams.
    Xz,
    /// RFC 8878, one or more frames.
    Zstd,
}

const MAGICS: [(Compression, &[u8]); 5] = [
    (Compression::Gzip, &[0x1f, 0x8b]),
    (Compression::Bzip2, b"BZh"),
    (Compression::Xz, &[0xfd, b'7', b'z', b'X', b'Z', 0]),
    (Compression::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
    // A skippable frame, as seekable variants of zstd begin with.
    (Compression::Zstd, &[0x50, 0x2a, 0x4d, 0x18]),
];

/// The most memory that a stream may make its decompressor use; xz -9 needs 65 MiB, zstd's default bound is 128.
const MAX_XZ_MEMORY_BYTES: u64 = 256 << 20;
/// What any stream may unfold to.
const FREE_BYTES: u64 = 256 << 20;
/// Beyond that, how many bytes it may have for each compressed one. Programs and text reach 10, zeros 1000 and more.
const MAX_RATIO: u64 = 200;

impl Compression {
    /// From a stream's first bytes.
    pub fn detect(head: &[u8]) -> Self {
        let found = MAGICS.iter().find(|(_, magic)| head.starts_with(magic));
        found.map_or(Self::None, |(compression, _)| *compression)
    }
}

/// A stream that unfolds to too much.
#[derive(Debug, thiserror::Error)]
#[error(
    "the compressed stream unfolds to more than 256 MiB and {MAX_RATIO} times its own size; if that is meant, \
     decompress it first"
)]
pub struct Bomb;

/// Decompresses a stream; what it is, is told by its first bytes.
pub fn decompress<'a>(compressed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let consumed = Rc::new(Cell::new(0));
    let mut counted = Counted { inner: compressed, consumed: Rc::clone(&consumed) };
    let stream: Box<dyn Read + 'a> = match Compression::detect(counted.fill_buf()?) {
        Compression::None => return Ok(Box::new(counted)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(counted)),
        Compression::Xz => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(
                MAX_XZ_MEMORY_BYTES,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(counted, decoder))
        }
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(counted)?),
    };
    Ok(Box::new(Bounded { inner: stream, produced: 0, consumed }))
}

/// Counts what is taken from a stream.
struct Counted<R> {
    inner: R,
    consumed: Rc<Cell<u64>>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.consumed.set(self.consumed.get() + count as u64);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.consumed.set(self.consumed.get() + count as u64);
        self.inner.consume(count);
    }
}

/// Refuses to go on when a stream yields too much.
struct Bounded<R> {
    inner: R,
    produced: u64,
    consumed: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.produced += count as u64;
        let allowed = FREE_BYTES.saturating_add(self.consumed.get().saturating_mul(MAX_RATIO));
        if self.produced > allowed { Err(io::Error::other(Bomb)) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(data: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(data, 1).unwrap()
    }

    fn all(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        decompress(compressed)?.read_to_end(&mut data)?;
        Ok(data)
    }

    #[test]
    fn every_format_and_two_streams_in_a_row() {
        for (format, compress) in [
            (Compression::Gzip, gzip as fn(&[u8]) -> Vec<u8>),
            (Compression::Bzip2, bzip2),
            (Compression::Xz, xz),
            (Compression::Zstd, zstd),
        ] {
            let one = compress(b"hello ");
            assert_eq!(Compression::detect(&one), format);
            let two = [one.clone(), compress(b"world")].concat();
            assert_eq!(all(&two).unwrap(), b"hello world", "{format:?}");
            for cut in [1, 4] {
                assert!(all(&one[..one.len() - cut]).is_err(), "{format:?} without its last {cut} bytes");
            }
        }
        assert_eq!(all(b"plain").unwrap(), b"plain");
        assert_eq!(all(b"").unwrap(), b"");
    }

    #[test]
    fn bombs() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        io::copy(&mut io::repeat(0).take(FREE_BYTES + (8 << 20)), &mut encoder).unwrap();
        let bomb = encoder.finish().unwrap();
        let error = io::copy(&mut decompress(&bomb[..]).unwrap(), &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("unfolds"), "{error}");
    }
}
