//! Digests of blobs (OCI image spec, "Digests"), and streams that are hashed on their way.

use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::str::FromStr;

use pod::types::ImageId;
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};

/// The digest of a blob, by one of the two registered algorithms.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

const ALGORITHMS: [(&str, Algorithm, usize); 2] =
    [("sha256", Algorithm::Sha256, 64), ("sha512", Algorithm::Sha512, 128)];

impl Digest {
    /// The SHA-256 of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex(&Sha256::digest(bytes)) }
    }

    /// Where an image layout keeps the blob.
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm_name(), self.hex)
    }

    /// A hasher that will tell whether bytes have this digest.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Its digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    fn algorithm_name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ALGORITHMS.iter().find_map(|(name, algorithm, length)| {
            let hex = text.strip_prefix(name)?.strip_prefix(':')?;
            let valid = hex.len() == *length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            valid.then(|| Self { algorithm: *algorithm, hex: hex.to_owned() })
        });
        found.ok_or_else(|| format!("{text:?} is not a digest by sha256 or sha512"))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm_name(), self.hex)
    }
}

/// Computes a digest piece by piece.
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all the bytes.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest { algorithm: Algorithm::Sha256, hex: hex(&hasher.finalize()) },
            Self::Sha512(hasher) => Digest { algorithm: Algorithm::Sha512, hex: hex(&hasher.finalize()) },
        }
    }
}

/// A stream whose bytes are hashed and counted as they are read.
pub struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    /// Begins with an empty hash.
    pub fn new(inner: R, hasher: Hasher) -> Self {
        Self { inner, hasher, bytes: 0 }
    }

    /// Reads what is left, then yields the digest and size of everything.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.bytes))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Where bytes go of which only the digest is wanted.
pub struct HashingSink(Sha256);

impl HashingSink {
    /// Begins with an empty hash.
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// The digest of all the bytes.
    pub fn finish(self) -> Digest {
        Hasher::Sha256(self.0).finish()
    }
}

impl io::Write for HashingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digits that an image ID has: half of a SHA-512, as upstream's store has it.
const IMAGE_ID_DIGITS: usize = 64;

/// The image ID that a SHA-512 gives; `None` for other algorithms.
pub fn image_id(digest: &Digest) -> Option<ImageId> {
    if digest.algorithm != Algorithm::Sha512 {
        return None;
    }
    format!("sha512-{}", digest.hex.get(..IMAGE_ID_DIGITS)?).parse().ok()
}

/// A hasher whose digest [`image_id`] takes.
pub fn image_hasher() -> Hasher {
    Hasher::Sha512(Sha512::new())
}

/// A hasher by SHA-256, which processors have instructions for.
pub fn sha256_hasher() -> Hasher {
    Hasher::Sha256(Sha256::new())
}

/// The SHA-512 of a text.
pub fn sha512(text: &[u8]) -> Digest {
    Digest { algorithm: Algorithm::Sha512, hex: hex(&Sha512::digest(text)) }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parsing() {
        let digest: Digest = EMPTY_256.parse().unwrap();
        assert_eq!(digest, Digest::sha256(b""));
        assert_eq!(digest.to_string(), EMPTY_256);
        assert!(digest.blob_path().starts_with("blobs/sha256/e3b0"));
        for bad in ["", "sha256:", "sha256:../../etc/passwd", "md5:00", &EMPTY_256.to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stream_is_hashed_to_its_end() {
        let mut stream = Hashed::new(&b"abc"[..], image_hasher());
        stream.read_exact(&mut [0]).unwrap();
        let (digest, bytes) = stream.finish().unwrap();
        assert_eq!((digest.clone(), bytes), (sha512(b"abc"), 3));
        assert!(image_id(&digest).unwrap().as_str().starts_with("sha512-ddaf35a193617aba"));
        assert_eq!(image_id(&Digest::sha256(b"")), None);
    }
}
