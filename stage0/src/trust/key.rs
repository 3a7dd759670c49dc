//! OpenPGP keys (RFC 9580): what they say of themselves, and whether they may sign. The library checks single signatures; which of
//! them count is decided here.

use std::io::{Cursor, Read};
use std::path::Path;

use pgp::composed::{ArmorOptions, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use super::{Error, read_bounded};

/// More than keys with many names and signatures have.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// More than anybody puts into one file.
const MAX_KEYS: usize = 100;

/// A public key with its subkeys and the signatures by which they belong together.
#[derive(Clone, Debug)]
pub struct Key(SignedPublicKey);

/// Why a key cannot have signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("has been revoked")]
    Revoked,
    #[error("has expired")]
    Expired,
    #[error("has no good signature of its own")]
    Unbound,
    #[error("is not for signing")]
    NotForSigning,
    #[error("is younger than the signature")]
    TooYoung,
}

impl Key {
    /// The keys of a file.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        Self::parse(path, &read_bounded(path, "key", MAX_FILE_BYTES)?)
    }

    /// The keys that a file holds, armored or binary.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Self>, Error> {
        let bad = |source: Box<dyn std::error::Error + Send + Sync>| Error::Key { path: path.into(), source };
        let (keys, _) =
            SignedPublicKey::from_reader_many_buf(Cursor::new(bytes)).map_err(|error| bad(error.into()))?;
        let keys = keys.take(MAX_KEYS + 1).map(|key| key.map(Self));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.into()))?;
        match keys.len() {
            0 => Err(bad("there is no key in it".into())),
            many if many > MAX_KEYS => Err(bad(format!("it holds more than {MAX_KEYS} keys").into())),
            _ => Ok(keys),
        }
    }

    /// The fingerprint of the primary key, in lower-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        format!("{:x}", self.0.fingerprint())
    }

    /// What it calls its owner, as far as it has signed that.
    pub fn user_ids(&self) -> Vec<String> {
        let signed = self.0.details.users.iter().filter(|user| {
            user.signatures.iter().any(|signature| {
                signature.verify_certification(&self.0.primary_key, Tag::UserId, &user.id).is_ok()
            })
        });
        signed
            .map(|user| String::from_utf8_lossy(user.id.id()).chars().filter(|c| !c.is_control()).collect())
            .collect()
    }

    /// As text, as it is kept.
    pub fn armored(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.to_armored_string(ArmorOptions::default())?)
    }

    /// Whether a signature says that it is by the key or one of its subkeys.
    pub fn may_have_made(&self, signature: &Signature) -> bool {
        is_issuer(&self.0.primary_key, signature)
            || self.0.public_subkeys.iter().any(|subkey| is_issuer(&subkey.key, signature))
    }

    /// Whether it may sign, and has signed this data. Times are in seconds since 1970.
    pub fn check(&self, signature: &Signature, now: u64, data: impl Read) -> Result<(), String> {
        let created = signature.created().map_or(0, |time| u64::from(time.as_secs()));
        let primary = &self.0.primary_key;
        let usable = |result: Result<(), Unusable>| {
            result.map_err(|why| format!("the key {} {why}", self.fingerprint()))
        };
        let own = self.own_signatures();
        usable(self.check_primary(&own, now))?;
        let wrong = |_| format!("it is not the key {}'s signature of this file", self.fingerprint());
        if let Some(subkey) = self.0.public_subkeys.iter().find(|subkey| is_issuer(&subkey.key, signature)) {
            usable(self.check_subkey(subkey, created, now))?;
            return signature.verify(&subkey.key, data).map_err(wrong);
        }
        if own.iter().find_map(|own| may_sign(own)) == Some(false) {
            return usable(Err(Unusable::NotForSigning));
        }
        usable(is_older(primary, created))?;
        signature.verify(primary, data).map_err(wrong)
    }

    /// The newest good signature of the key over itself, and that over its names, which say how long it is good and for what; the newer
    /// one first.
    fn own_signatures(&self) -> Vec<&Signature> {
        let primary = &self.0.primary_key;
        let details = &self.0.details;
        let mut direct =
            details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
        let mut of_users = details.users.iter().flat_map(|user| {
            let good = |signature: &&Signature| {
                signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
            };
            let newest = user.signatures.iter().filter(good).max_by_key(|signature| signature.created());
            newest.filter(|signature| signature.typ() != Some(SignatureType::CertRevocation))
        });
        let newest = [newest(&mut direct), newest(&mut of_users)];
        let mut own: Vec<&Signature> = newest.into_iter().flatten().collect();
        own.sort_by_key(|signature| std::cmp::Reverse(signature.created()));
        own
    }

    fn check_primary(&self, own: &[&Signature], now: u64) -> Result<(), Unusable> {
        let primary = &self.0.primary_key;
        let mut revocations = self.0.details.revocation_signatures.iter();
        if revocations.any(|signature| signature.verify_key(primary).is_ok()) {
            return Err(Unusable::Revoked);
        }
        if own.is_empty() {
            return Err(Unusable::Unbound);
        }
        own.iter().try_for_each(|own| is_current(primary, own, now))
    }

    fn check_subkey(&self, subkey: &SignedPublicSubKey, created: u64, now: u64) -> Result<(), Unusable> {
        let primary = &self.0.primary_key;
        let good = |signature: &&Signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok();
        let good: Vec<&Signature> = subkey.signatures.iter().filter(good).collect();
        if good.iter().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
            return Err(Unusable::Revoked);
        }
        let binding =
            good.into_iter().max_by_key(|signature| signature.created()).ok_or(Unusable::Unbound)?;
        if !may_sign(binding).unwrap_or(false) {
            return Err(Unusable::NotForSigning);
        }
        // That the subkey wants to belong to the key: else somebody could pass another's signatures off as his.
        let back = binding.embedded_signature().ok_or(Unusable::Unbound)?;
        back.verify_primary_key_binding(&subkey.key, primary).map_err(|_| Unusable::Unbound)?;
        is_current(&subkey.key, binding, now)?;
        is_older(&subkey.key, created)
    }
}

fn newest<'a>(signatures: &mut dyn Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created())
}

/// What a signature of a key over itself says of signing data; old ones say nothing.
fn may_sign(own: &Signature) -> Option<bool> {
    let mut hashed = own.config()?.hashed_subpackets();
    hashed.find_map(|packet| match &packet.data {
        SubpacketData::KeyFlags(_) => Some(own.key_flags().sign()),
        _ => None,
    })
}

/// Whether the time that a key gives itself, and that of the signature that says so, is not over.
fn is_current(key: &impl KeyDetails, own: &Signature, now: u64) -> Result<(), Unusable> {
    let key_ends = own.key_expiration_time().map(|time| (key.created_at(), time));
    let signature_ends = own.signature_expiration_time().and_then(|time| Some((own.created()?, time)));
    for (from, time) in key_ends.into_iter().chain(signature_ends) {
        let seconds = u64::from(time.as_secs());
        if seconds != 0 && u64::from(from.as_secs()) + seconds <= now {
            return Err(Unusable::Expired);
        }
    }
    Ok(())
}

fn is_older(key: &impl KeyDetails, created: u64) -> Result<(), Unusable> {
    if u64::from(key.created_at().as_secs()) <= created { Ok(()) } else { Err(Unusable::TooYoung) }
}

fn is_issuer(key: &impl KeyDetails, signature: &Signature) -> bool {
    signature.issuer_fingerprint().contains(&&key.fingerprint())
        || signature.issuer_key_id().contains(&&key.legacy_key_id())
}
