//! Pods and the metadata service (`--mds-register`): a pod is registered by whoever runs it, and unregistered by its stage1 or
//! by whoever collects it. A file in its directory tells that it may be registered, from before it is.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use metadata::{Places, client};
use pod::abi::PodDirectory;
use pod::metadata::Registration as Registered;
use pod::pod_manifest::PodManifest;
use uuid::Uuid;

/// Why a pod is not registered.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", .0.display())]
struct Unusable(PathBuf, #[source] Box<dyn Error>);

/// The registration of a pod. Dropped, it is undone: it only stays if this process becomes the pod's stage1.
#[derive(Debug)]
pub struct Registration {
    pod: PathBuf,
    uuid: Uuid,
}

impl Registration {
    /// Registers the pod in this directory.
    pub fn make(pod: &Path, uuid: Uuid) -> Result<Self, Box<dyn Error>> {
        let directory = PodDirectory::new(pod);
        let marker = directory.mds_registered();
        let new = Self { pod: pod.to_owned(), uuid };
        write(&marker, b"")?;
        let manifest = read(&directory.manifest())?;
        let apps = PodManifest::parse(&manifest)?.apps.into_iter().map(|app| {
            let image = read(&directory.app_manifest(&app.name))?;
            Ok((app.name, image))
        });
        let apps = apps.collect::<Result<Vec<_>, Unusable>>()?;
        let token = client::new_token()?;
        let port = client::register(&Places::default(), uuid, &token, &manifest, &apps)?;
        write(&marker, &serde_json::to_vec(&Registered { token, port })?)?;
        Ok(new)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // What is still there is found by gc.
        let _ = forget(&self.pod, self.uuid);
    }
}

/// Unregisters a pod that may be registered.
pub fn forget(pod: &Path, uuid: Uuid) -> Result<(), metadata::Error> {
    let marker = PodDirectory::new(pod).mds_registered();
    if marker.exists() {
        client::forget(&Places::default(), uuid, &marker)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    fs::read(path).map_err(|error| Unusable(path.to_owned(), error.into()))
}

/// Writes a file for root only.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Unusable> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| Unusable(path.to_owned(), error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_never_registered_has_nothing_to_forget() {
        let home = tempfile::tempdir().unwrap();
        forget(home.path(), Uuid::nil()).unwrap();
        let error = Registration::make(home.path(), Uuid::nil()).unwrap_err();
        assert!(error.to_string().ends_with("/pod"), "{error}");
    }
}
