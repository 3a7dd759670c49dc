//! The pods that are registered, in memory and on disk: a file a pod, which is replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hyper::body::Bytes;
use pod::image_manifest::ImageManifest;
use pod::metadata::Token;
use pod::pod_manifest::PodManifest;
use pod::types::AcName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;

/// What the names of files end with that are not whole yet.
const NEW: &str = "new";

/// A document, as it came and as it is understood.
#[derive(Debug)]
pub struct Document<T> {
    /// As it came.
    pub json: Bytes,
    /// Understood.
    pub content: T,
}

impl Document<PodManifest> {
    /// A pod's manifest.
    pub fn of_pod(json: Bytes) -> Result<Self, pod::Error> {
        Ok(Self { content: PodManifest::parse(&json)?, json })
    }
}

impl Document<ImageManifest> {
    /// An image's manifest.
    pub fn of_image(json: Bytes) -> Result<Self, pod::Error> {
        Ok(Self { content: ImageManifest::parse(&json)?, json })
    }
}

/// A pod.
#[derive(Debug)]
pub struct Registered {
    /// Which.
    pub uuid: Uuid,
    /// By which it is known.
    pub token: Token,
    /// Its manifest.
    pub manifest: Document<PodManifest>,
    /// Its apps' image manifests.
    pub images: BTreeMap<AcName, Document<ImageManifest>>,
}

/// The content of a pod's file. The documents are texts, for they are to be given out byte for byte.
#[derive(Serialize, Deserialize)]
struct Stored {
    token: Token,
    manifest: String,
    images: BTreeMap<AcName, String>,
}

/// The pods. What is found here is on disk, too.
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    pods: HashMap<Uuid, Registered>,
    /// Hashed with a secret of the process's, so that how long it takes to find one tells nothing of others.
    tokens: HashMap<Token, Uuid>,
}

impl Registry {
    /// The pods that are in this directory, which is made if it is missing. Files that cannot be understood are left out
    /// and returned.
    pub fn open(directory: &Path) -> Result<(Self, Vec<PathBuf>), Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(Error::io("make", directory))?;
        let mut registry =
            Self { directory: directory.to_owned(), pods: HashMap::new(), tokens: HashMap::new() };
        let mut damaged = Vec::new();
        for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
            let path = entry.map_err(Error::io("read", directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match name.parse() {
                Ok(uuid) => match read(&path, uuid)? {
                    Some(pod) => registry.insert(pod),
                    None => damaged.push(path),
                },
                // A kill has left it.
                Err(_) => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
            }
        }
        Ok((registry, damaged))
    }

    /// The pod with this token.
    pub fn by_token(&self, token: &Token) -> Option<&Registered> {
        self.pods.get(self.tokens.get(token)?)
    }

    /// Takes a pod in, in place of one of the same UUID.
    pub fn register(
        &mut self,
        uuid: Uuid,
        token: Token,
        manifest: Document<PodManifest>,
    ) -> Result<(), Error> {
        let pod = Registered { uuid, token, manifest, images: BTreeMap::new() };
        self.store(&pod)?;
        self.insert(pod);
        Ok(())
    }

    /// Takes the image manifest of an app in; whether its pod is registered.
    pub fn register_app(
        &mut self,
        uuid: Uuid,
        app: AcName,
        manifest: Document<ImageManifest>,
    ) -> Result<bool, Error> {
        // Put back whatever happens.
        let Some(mut pod) = self.pods.remove(&uuid) else { return Ok(false) };
        let before = pod.images.insert(app.clone(), manifest);
        let stored = self.store(&pod);
        if stored.is_err() {
            match before {
                Some(before) => pod.images.insert(app, before),
                None => pod.images.remove(&app),
            };
        }
        self.insert(pod);
        stored.map(|()| true)
    }

    /// Forgets a pod; whether it was registered.
    pub fn unregister(&mut self, uuid: Uuid) -> Result<bool, Error> {
        if !self.pods.contains_key(&uuid) {
            return Ok(false);
        }
        remove(&self.directory, uuid)?;
        if let Some(pod) = self.pods.remove(&uuid) {
            self.tokens.remove(&pod.token);
        }
        Ok(true)
    }

    fn insert(&mut self, pod: Registered) {
        let (uuid, token) = (pod.uuid, pod.token.clone());
        if let Some(before) = self.pods.insert(uuid, pod) {
            self.tokens.remove(&before.token);
        }
        self.tokens.insert(token, uuid);
    }

    fn store(&self, pod: &Registered) -> Result<(), Error> {
        let path = self.directory.join(pod.uuid.to_string());
        let text = |json: &Bytes| String::from_utf8_lossy(json).into_owned();
        let images = pod.images.iter().map(|(app, image)| (app.clone(), text(&image.json))).collect();
        let stored = Stored { token: pod.token.clone(), manifest: text(&pod.manifest.json), images };
        let json = serde_json::to_vec(&stored).map_err(|error| Error::io("write", &path)(error.into()))?;
        write(&path, &json)
    }
}

/// Takes a pod out of a registry's directory, for whoever finds no service running.
pub fn remove(directory: &Path, uuid: Uuid) -> Result<(), Error> {
    let path = directory.join(uuid.to_string());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

fn read(path: &Path, uuid: Uuid) -> Result<Option<Registered>, Error> {
    let json = fs::read(path).map_err(Error::io("read", path))?;
    let Ok(stored) = serde_json::from_slice::<Stored>(&json) else { return Ok(None) };
    let images = stored.images.into_iter().map(|(app, json)| Ok((app, Document::of_image(json.into())?)));
    let images: Result<_, pod::Error> = images.collect();
    let (Ok(manifest), Ok(images)) = (Document::of_pod(stored.manifest.into()), images) else {
        return Ok(None);
    };
    Ok(Some(Registered { uuid, token: stored.token, manifest, images }))
}

/// Writes a file for root only; a kill at any moment leaves all of it or what was there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new = path.with_extension(NEW);
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).map_err(Error::io("write", path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const POD: &str = r#"{"acKind": "PodManifest", "acVersion": "0.8.11", "apps": [{"name": "web",
        "image": {"id": "sha512-ID"}, "annotations": [{"name": "color", "value": "red"}]}],
        "annotations": [{"name": "example.com/ip", "value": "192.0.2.7"}]}"#;
    pub const IMAGE: &str = r#"{"acVersion": "0.8.11", "acKind": "ImageManifest", "name": "example.com/web",
        "annotations": [{"name": "color", "value": "blue"}, {"name": "size", "value": "7"}]}"#;

    pub fn pod() -> String {
        POD.replace("ID", &"0".repeat(64))
    }

    pub fn token(number: u8) -> Token {
        Token::new([number; 16])
    }

    /// Pod 1 with its app.
    pub fn registry(directory: &Path) -> Registry {
        let (mut registry, damaged) = Registry::open(directory).unwrap();
        assert!(damaged.is_empty());
        let uuid = Uuid::from_u128(1);
        registry.register(uuid, token(1), Document::of_pod(pod().into()).unwrap()).unwrap();
        let image = Document::of_image(IMAGE.into()).unwrap();
        assert!(registry.register_app(uuid, "web".parse().unwrap(), image).unwrap());
        registry
    }

    #[test]
    fn what_is_registered_is_there_after_a_restart_byte_for_byte() {
        let home = tempfile::tempdir().unwrap();
        drop(registry(home.path()));
        fs::write(home.path().join("half.new"), "{").unwrap();
        fs::write(home.path().join(Uuid::from_u128(9).to_string()), "{").unwrap();
        let (mut again, damaged) = Registry::open(home.path()).unwrap();
        assert_eq!(damaged, [home.path().join(Uuid::from_u128(9).to_string())]);
        let found = again.by_token(&token(1)).unwrap();
        assert_eq!(found.manifest.json, pod());
        assert_eq!(found.images.values().next().unwrap().json, IMAGE);
        assert!(again.by_token(&token(2)).is_none());
        assert!(again.unregister(Uuid::from_u128(1)).unwrap());
        assert!(!again.unregister(Uuid::from_u128(1)).unwrap());
        assert!(again.by_token(&token(1)).is_none());
        drop(again);
        assert!(Registry::open(home.path()).unwrap().0.pods.is_empty());
    }

    #[test]
    fn a_pod_that_is_registered_again_has_one_token() {
        let home = tempfile::tempdir().unwrap();
        let mut registry = registry(home.path());
        let manifest = Document::of_pod(pod().into()).unwrap();
        registry.register(Uuid::from_u128(1), token(2), manifest).unwrap();
        assert!(registry.by_token(&token(1)).is_none());
        assert!(registry.by_token(&token(2)).unwrap().images.is_empty());
    }

    #[test]
    fn an_app_needs_its_pod() {
        let home = tempfile::tempdir().unwrap();
        let mut registry = registry(home.path());
        let image = Document::of_image(IMAGE.into()).unwrap();
        assert!(!registry.register_app(Uuid::from_u128(2), "web".parse().unwrap(), image).unwrap());
    }
}
