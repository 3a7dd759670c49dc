//! A file with detached signatures of an image's file.

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pgp::composed::{Deserializable, DetachedSignature};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};

use super::{Error, Key, read_bounded};
use crate::image::digest::{Digest, Hashed, sha256_hasher};

/// More than several signatures have.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// The image is read for each of them.
const MAX_SIGNATURES: usize = 8;
/// How far the clock of who signs may be ahead of ours.
const SKEW_SECONDS: u64 = 300;
/// The digests of which nobody can make two texts with the same.
const GOOD_HASHES: [HashAlgorithm; 6] = [
    HashAlgorithm::Sha224,
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Sha3_256,
    HashAlgorithm::Sha3_512,
];

/// What a file holds; one good signature is enough.
#[derive(Debug)]
pub struct Signatures {
    path: PathBuf,
    signatures: Vec<Signature>,
}

impl Signatures {
    /// Reads the signatures, armored or binary.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = read_bounded(path, "signature", MAX_FILE_BYTES)?;
        let bad =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Signature { path: path.into(), source };
        let (found, _) = DetachedSignature::from_reader_many_buf(Cursor::new(&bytes))
            .map_err(|error| bad(error.into()))?;
        let found = found.take(MAX_SIGNATURES + 1).map(|found| found.map(|detached| detached.signature));
        let signatures = found.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.into()))?;
        match signatures.len() {
            0 => Err(bad("there is no signature in it".into())),
            many if many > MAX_SIGNATURES => {
                Err(bad(format!("it holds more than {MAX_SIGNATURES} signatures").into()))
            }
            _ => Ok(Self { path: path.into(), signatures }),
        }
    }

    /// Whether one of the keys has signed the file `image`, which calls itself `name`, and whose bytes were these when it was
    /// imported.
    pub fn verify(&self, image: &Path, name: &str, imported: &Digest, keys: &[Key]) -> Result<(), Error> {
        if keys.is_empty() {
            return Err(Error::NoKeys(name.into()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut reasons = Vec::new();
        for signature in &self.signatures {
            match self.verify_one(signature, image, imported, keys, now)? {
                Ok(()) => return Ok(()),
                Err(reason) if reasons.contains(&reason) => {}
                Err(reason) => reasons.push(reason),
            }
        }
        Err(Error::Untrusted { path: self.path.clone(), name: name.into(), reasons: reasons.join("; ") })
    }

    fn verify_one(
        &self,
        signature: &Signature,
        image: &Path,
        imported: &Digest,
        keys: &[Key],
        now: u64,
    ) -> Result<Result<(), String>, Error> {
        if let Err(reason) = check(signature, now) {
            return Ok(Err(reason));
        }
        let mut verdict =
            Err(format!("no key that is trusted for it has made the signature{}", issuer(signature)));
        for key in keys.iter().filter(|key| key.may_have_made(signature)) {
            let file = File::open(image).map_err(Error::io("open", image))?;
            let mut hashed = Hashed::new(file, sha256_hasher());
            verdict = key.check(signature, now, &mut hashed);
            if verdict.is_ok() {
                let (seen, _) = hashed.finish().map_err(Error::io("read", image))?;
                if seen != *imported {
                    return Err(Error::Changed(image.into()));
                }
                break;
            }
        }
        Ok(verdict)
    }
}

/// What a signature says of itself.
fn check(signature: &Signature, now: u64) -> Result<(), String> {
    if signature.typ() != Some(SignatureType::Binary) {
        return Err("it is not a signature of a file".into());
    }
    match signature.hash_alg() {
        Some(hash) if GOOD_HASHES.contains(&hash) => {}
        Some(hash) => return Err(format!("it is by {hash}, which can be forged")),
        None => return Err("its version is not known".into()),
    }
    let created = signature.created().map(|time| u64::from(time.as_secs()));
    let created = created.ok_or("it does not say when it was made")?;
    if created > now + SKEW_SECONDS {
        return Err("it was made in the future, by this host's clock".into());
    }
    match signature.signature_expiration_time().map(|time| u64::from(time.as_secs())) {
        Some(seconds) if seconds != 0 && created + seconds <= now => Err("it has expired".into()),
        _ => Ok(()),
    }
}

/// Whom it names, for messages.
fn issuer(signature: &Signature) -> String {
    let by_fingerprint = signature.issuer_fingerprint().first().map(|print| format!("{print:x}"));
    let name = by_fingerprint.or_else(|| signature.issuer_key_id().first().map(|id| id.to_string()));
    name.map(|name| format!(" ({name})")).unwrap_or_default()
}
