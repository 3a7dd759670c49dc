//! Whether a pod's volumes can be had, asked before anything is made.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use erofs::{EntryPath, Kind, Reader};
use pod::pod_manifest::PodManifest;
use pod::users::COUNT;
use pod::volumes::{AppMount, PodVolume, PodVolumes, VolumeSource, assign};

use crate::cli::Stage1;

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its source.
    #[error("volume \"{volume}\" cannot be {}", path.display())]
    Source {
        /// Its name.
        volume: String,
        /// Where it should come from.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory and a file.
    #[error(
        "volume \"{volume}\" cannot be mounted at {} in image {image}: {} is {source_kind}, and the image has \
         {image_kind} there",
        target.display(), path.display()
    )]
    Kinds {
        /// Its name.
        volume: String,
        /// Where it should come from.
        path: PathBuf,
        /// What that is.
        source_kind: &'static str,
        /// Where it should go.
        target: PathBuf,
        /// In which image.
        image: String,
        /// What that has there.
        image_kind: &'static str,
    },
    /// What a VM cannot have.
    #[error(
        "volume \"{volume}\" is {}, which is neither a directory nor a regular file: devices, sockets and pipes of the \
         host do not reach into a VM; use --stage1=nspawn", path.display()
    )]
    KindForVm {
        /// Its name.
        volume: String,
        /// Where it should come from.
        path: PathBuf,
    },
    /// A user that the pod has not.
    #[error(
        "volume \"{0}\" is to belong to a user or group from {COUNT} on, which --private-users does not have"
    )]
    NoSuchUser(String),
    /// Nobody to shift to.
    #[error("volume \"{0}\" has idmap=true, but the pod has no user namespace: it needs --private-users")]
    IdmapWithoutUsers(String),
}

/// Checks the volumes of a pod that runs these images, named for messages, in the order of its apps.
pub fn check(
    manifest: &PodManifest,
    stage1: Stage1,
    private_users: bool,
    images: &[(&str, &Path)],
) -> Result<(), Box<dyn std::error::Error>> {
    let assigned = assign(manifest)?;
    for volume in &assigned.volumes {
        let (path, idmap) = match &volume.source {
            VolumeSource::Host { path, idmap, .. } => (path, idmap),
            VolumeSource::Empty(empty) if private_users && empty.uid.max(empty.gid) >= COUNT => {
                return Err(Refused::NoSuchUser(volume.key.clone()).into());
            }
            VolumeSource::Empty(_) => continue,
        };
        if *idmap && !private_users {
            return Err(Refused::IdmapWithoutUsers(volume.key.clone()).into());
        }
        let is = metadata(volume, path)?;
        if stage1 == Stage1::Kvm && !is.is_dir() && !is.is_file() {
            return Err(Refused::KindForVm { volume: volume.key.clone(), path: path.clone() }.into());
        }
    }
    for (mounts, (image, erofs)) in assigned.mounts.iter().zip(images) {
        for mount in mounts {
            let Some(volume) = assigned.volumes.get(mount.volume) else { continue };
            let VolumeSource::Host { path, .. } = &volume.source else { continue };
            let Some(of_image) = look_up(erofs, &mount.target)? else { continue };
            let of_host = metadata(volume, path)?.is_dir();
            if of_host != of_image {
                let name = |directory| if directory { "a directory" } else { "no directory" };
                return Err(Refused::Kinds {
                    volume: volume.key.clone(),
                    path: path.clone(),
                    source_kind: name(of_host),
                    target: mount.target.clone(),
                    image: (*image).to_owned(),
                    image_kind: name(of_image),
                }
                .into());
            }
        }
    }
    Ok(())
}

fn metadata(volume: &PodVolume, path: &Path) -> Result<fs::Metadata, Box<dyn std::error::Error>> {
    let failed = |source| Refused::Source { volume: volume.key.clone(), path: path.to_owned(), source };
    Ok(fs::metadata(path).map_err(failed)?)
}

/// Whether the image has a directory there; `None` if there is nothing, or nothing that can be told.
fn look_up(erofs: &Path, target: &Path) -> Result<Option<bool>, Box<dyn std::error::Error>> {
    let Some(path) = target.to_str().and_then(|target| EntryPath::in_root(target.as_bytes()).ok()) else {
        return Ok(None);
    };
    let reader = Reader::open(File::open(erofs)?)?;
    match reader.resolve(&path) {
        Ok(found) => Ok(found.map(|inode| inode.kind() == Kind::Directory)),
        Err(erofs::Error::NotADirectory { .. } | erofs::Error::TooManyLinks { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a program may come from a volume of an app, so that its image need not have it. Volumes that begin with what
/// the image has are no reason.
pub fn may_hold(assigned: &PodVolumes, mounts: &[AppMount], program: &str) -> bool {
    let program = Path::new(program);
    let is_foreign =
        |mount: &&AppMount| assigned.volumes.get(mount.volume).is_some_and(|volume| !volume.populate);
    mounts.iter().filter(is_foreign).any(|mount| !program.is_absolute() || program.starts_with(&mount.target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(volume: &str) -> PodManifest {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a","image":{{"id":"sha512-{}"}},
            "mounts":[{{"volume":"v","path":"/data/v"}}]}}],"volumes":[{{"name":"v",{volume}}}]}}"#,
            "0".repeat(64)
        );
        PodManifest::parse(json.as_bytes()).unwrap()
    }

    fn image(directory: &Path) -> PathBuf {
        let path = directory.join("image.erofs");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut writer = erofs::Writer::new(file);
        let name = EntryPath::in_root(b"/data/v").unwrap();
        writer.file(&name, &erofs::Metadata::root_owned(0o644), &mut &b""[..], 0).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let erofs = image(directory.path());
        let check = |volume: &str, stage1| check(&manifest(volume), stage1, false, &[("i.aci", &erofs)]);
        let refused = |volume, stage1| check(volume, stage1).unwrap_err().to_string();
        assert!(check(r#""kind":"empty""#, Stage1::Kvm).is_ok());
        assert!(check(r#""kind":"host","source":"/etc/passwd""#, Stage1::Nspawn).is_ok());
        assert!(refused(r#""kind":"host","source":"/nowhere""#, Stage1::Nspawn).contains("/nowhere"));
        let kinds = refused(r#""kind":"host","source":"/etc""#, Stage1::Nspawn);
        assert!(kinds.contains("/etc is a directory") && kinds.contains("i.aci"), "{kinds}");
        assert!(check(r#""kind":"host","source":"/etc/passwd""#, Stage1::Kvm).is_ok());
        assert!(check(r#""kind":"host","source":"/dev/null""#, Stage1::Nspawn).is_ok());
        assert!(refused(r#""kind":"host","source":"/dev/null""#, Stage1::Kvm).contains("/dev/null"));
        let shifted = r#""kind":"host","source":"/etc/passwd","idmap":true"#;
        assert!(refused(shifted, Stage1::Nspawn).contains("user namespace"));
    }

    #[test]
    fn programs_in_volumes() {
        let mut assigned = assign(&manifest(r#""kind":"empty""#)).unwrap();
        let mounts = assigned.mounts[0].clone();
        let holds = |program| may_hold(&assigned, &mounts, program);
        assert!(holds("/data/v/bin/x") && holds("x"));
        assert!(!holds("/data/vx") && !may_hold(&assigned, &[], "x"));
        assigned.volumes[0].populate = true;
        assert!(!may_hold(&assigned, &mounts, "x"));
    }
}
