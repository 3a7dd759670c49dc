//! What pods prove to each other who they are by (appc spec, "Identity Endpoint"): an HMAC of what a pod says, together with
//! its UUID, by a key that only the service has.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use uuid::Uuid;

use crate::error::Error;
use crate::registry;

const KEY_BYTES: usize = 64;

/// The key.
pub struct Identity(Hmac<Sha512>);

impl Identity {
    /// The key in this file, which is made if it is missing: signatures hold as long as the pods may.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let key = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = vec![0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(Error::Random)?;
                registry::write(path, &key)?;
                key
            }
            read => read.map_err(Error::io("read", path))?,
        };
        Self::new(&key).ok_or_else(|| Error::Damaged(path.into()))
    }

    fn new(key: &[u8]) -> Option<Self> {
        (key.len() == KEY_BYTES).then(|| Hmac::new_from_slice(key).ok().map(Self)).flatten()
    }

    /// The signature of what the pod says, in base64.
    pub fn sign(&self, pod: Uuid, content: &[u8]) -> String {
        STANDARD.encode(self.mac(pod, content).finalize().into_bytes())
    }

    /// Whether this is the signature of what the pod says; how long that takes does not depend on where it is wrong.
    pub fn verify(&self, pod: Uuid, content: &[u8], signature: &[u8]) -> bool {
        self.mac(pod, content).verify_slice(signature).is_ok()
    }

    fn mac(&self, pod: Uuid, content: &[u8]) -> Hmac<Sha512> {
        let mut mac = self.0.clone();
        mac.update(pod.as_bytes());
        mac.update(content);
        mac
    }
}

/// Not the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_one_pods_for_one_content_and_lasts() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let signature = STANDARD.decode(Identity::open(&path).unwrap().sign(one, b"content")).unwrap();
        let identity = Identity::open(&path).unwrap();
        assert!(identity.verify(one, b"content", &signature));
        assert!(!identity.verify(other, b"content", &signature));
        assert!(!identity.verify(one, b"contents", &signature));
        for length in 0..signature.len() {
            assert!(!identity.verify(one, b"content", &signature[..length]));
        }
        fs::write(&path, "short").unwrap();
        assert!(matches!(Identity::open(&path), Err(Error::Damaged(_))));
    }

    /// By another implementation.
    #[test]
    fn it_is_hmac_sha512_of_uuid_and_content() {
        let identity = Identity::new(&[0x0b; KEY_BYTES]).unwrap();
        let expected =
            "9vWSpO5oFUtrCJICjElHimPdpIFaQZyZ5fZSOSUPITxcHZi+Pjl/p5hQKBAaXXG4f+y/i5MfMO9b+Fkmi5x7PA==";
        assert_eq!(identity.sign(Uuid::from_u128(7), b"Hi There"), expected);
    }
}
