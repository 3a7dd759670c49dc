//! The keys that are trusted, as files (upstream's pkg/keystore), in the configuration of the vendor, the administrator and the user:
//!
//! | path | whose signatures it trusts |
//! |---|---|
//! | `trustedkeys/root.d/<fingerprint>` | of all images |
//! | `trustedkeys/prefix.d/<prefix>/<fingerprint>` | of images whose names are the prefix, or begin with it and a slash |
//!
//! An empty file masks the key of that name, where an earlier directory has it. First come the keys for all images, then those for
//! prefixes, from the shortest on; among them the vendor's, the administrator's and the user's.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pod::types::AcIdentifier;

use super::{Error, Key};
use crate::cli::Globals;

/// Digits of the fingerprints of version 4 and of version 6.
const DIGITS: [usize; 2] = [40, 64];

/// What a key may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every image.
    Root,
    /// Those below a name.
    Prefix(AcIdentifier),
}

impl Scope {
    fn below(&self, trusted: &Path) -> PathBuf {
        match self {
            Self::Root => trusted.join("root.d"),
            Self::Prefix(prefix) => trusted.join("prefix.d").join(prefix.as_str()),
        }
    }
}

/// The keystore of this host.
#[derive(Clone, Debug)]
pub struct KeyStore {
    /// What counts for more comes later.
    trusted: Vec<PathBuf>,
    /// Where new keys come.
    local: PathBuf,
}

impl KeyStore {
    /// That of the configuration's directories.
    pub fn of(globals: &Globals) -> Self {
        let directories =
            [&globals.system_config, &globals.local_config].into_iter().chain(&globals.user_config);
        let below = |directory: &PathBuf| directory.join("trustedkeys");
        Self { trusted: directories.map(below).collect(), local: below(&globals.local_config) }
    }

    /// The keys that may sign images of this name.
    pub fn keys_for(&self, name: &str) -> Result<Vec<Key>, Error> {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        let prefixes = ends.filter_map(|end| name.get(..end)?.parse().ok()).map(Scope::Prefix);
        let mut keys = BTreeMap::new();
        for scope in [Scope::Root].into_iter().chain(prefixes) {
            for trusted in &self.trusted {
                load(&scope.below(trusted), &mut keys)?;
            }
        }
        Ok(keys.into_values().collect())
    }

    /// Trusts a key from now on. Returns the file that says so.
    pub fn add(&self, scope: &Scope, key: &Key) -> Result<PathBuf, Error> {
        let directory = scope.below(&self.local);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .map_err(Error::io("create", &directory))?;
        let path = directory.join(key.fingerprint());
        let new = directory.join(format!(".{}.new", key.fingerprint()));
        let text = key.armored().map_err(|source| Error::Key { path: path.clone(), source })?;
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(&directory)?.sync_all());
        written.map_err(Error::io("write", &path))?;
        Ok(path)
    }
}

/// Adds the keys of a directory, and removes those that it masks. Directories in it are those of longer prefixes; what begins with a
/// dot is not there yet.
fn load(directory: &Path, keys: &mut BTreeMap<String, Key>) -> Result<(), Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("read", directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("read", directory))?;
        let path = entry.path();
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || path.is_dir() {
            continue;
        }
        let is_hex = |name: &&str| name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let fingerprint = name.to_str().filter(|name| DIGITS.contains(&name.len())).filter(is_hex);
        let fingerprint = fingerprint.ok_or_else(|| Error::Stray(path.clone()))?;
        let length = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if length == 0 {
            keys.remove(fingerprint);
            continue;
        }
        let key = Key::read(&path)?.into_iter().next();
        match key.map(|key| (key.fingerprint(), key)) {
            Some((found, key)) if found == fingerprint => keys.insert(found, key),
            found => {
                let found = found.map(|(found, _)| found).unwrap_or_default();
                return Err(Error::Misplaced { path, found });
            }
        };
    }
    Ok(())
}
