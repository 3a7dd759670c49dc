//! Which volume belongs where in which app: upstream's rules (stage1/init/common/mount.go, `GenerateMounts`). What an app
//! is given by `mounts` comes first; a mount point of its image that none of these is for gets the volume of its name, or
//! else an empty one of its own.

use std::path::{Component, Path, PathBuf};

use super::{EmptyVolume, Volume, VolumeSource};
use crate::Error;
use crate::image_manifest::{App, MountPoint, unique};
use crate::pod_manifest::{PodManifest, RuntimeApp};

/// The volumes that a pod's apps use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumes {
    /// Each once. What no app uses is not among them, except in a pod whose apps come and go: there the pod's own come first,
    /// and are there from the beginning to the end.
    pub volumes: Vec<PodVolume>,
    /// For each app in the manifest's order, outer ones before those within them.
    pub mounts: Vec<Vec<AppMount>>,
}

/// A volume in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVolume {
    /// Its directory's name. That of an implicit volume has a dot, that of an app's own two, so that it is nobody else's.
    pub key: String,
    /// Whether apps may only read it, whatever their mounts say.
    pub read_only: bool,
    /// Where it comes from.
    pub source: VolumeSource,
    /// Whether it begins with what the image has at its mount point.
    pub populate: bool,
}

/// A volume in an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppMount {
    /// Which of [`PodVolumes::volumes`].
    pub volume: usize,
    /// Absolute and without `.` and `..`; not the root itself.
    pub target: PathBuf,
    /// Whether the app may only read it there.
    pub read_only: bool,
}

/// The volumes of a pod and their places.
pub fn assign(manifest: &PodManifest) -> Result<PodVolumes, Error> {
    unique("volume", manifest.volumes.iter().map(|volume| volume.name.as_str()))?;
    let mut assigned = PodVolumes::default();
    if manifest.is_mutable() {
        assigned.volumes = manifest.volumes.iter().map(PodVolume::of).collect();
    }
    for app in &manifest.apps {
        let mut mounts = Vec::new();
        let points =
            app.app.as_ref().map(|section: &App| section.mount_points.as_slice()).unwrap_or_default();
        for mount in &app.mounts {
            let of_pod = manifest.volumes.iter().find(|volume| volume.name == mount.volume);
            let volume = mount.app_volume.as_ref().or(of_pod).ok_or_else(|| {
                Error::Invalid(format!(
                    "dangling mount point \"{}\": volume \"{}\" not found",
                    mount.path, mount.volume
                ))
            })?;
            let target = clean(&mount.path)?;
            let point = points.iter().find(|point| clean(&point.path).is_ok_and(|path| path == target));
            let key = match &mount.app_volume {
                Some(own) => format!("{}..{}", app.name, own.name),
                None => volume.name.to_string(),
            };
            let read_only = point.is_some_and(|point| point.read_only);
            mounts.push(assigned.mount(&key, volume, target, read_only)?);
        }
        for point in points {
            let target = clean(&point.path)?;
            if mounts.iter().all(|mount| mount.target != target) {
                let named = manifest.volumes.iter().find(|volume| volume.name == point.name);
                mounts.push(match named {
                    Some(volume) => assigned.mount(volume.name.as_str(), volume, target, point.read_only)?,
                    None => assigned.implicit(app, point, target),
                });
            }
        }
        mounts.sort_by(|one, other| one.target.cmp(&other.target));
        if let Some([one, _]) = mounts.windows(2).find(|pair| matches!(pair, [a, b] if a.target == b.target))
        {
            let (app, target) = (&app.name, one.target.display());
            return Err(Error::Invalid(format!("app \"{app}\" has two volumes at {target}")));
        }
        assigned.mounts.push(mounts);
    }
    Ok(assigned)
}

impl PodVolume {
    fn of(volume: &Volume) -> Self {
        Self {
            key: volume.name.to_string(),
            read_only: volume.read_only == Some(true),
            source: volume.source.clone(),
            populate: false,
        }
    }
}

impl PodVolumes {
    fn mount(
        &mut self,
        key: &str,
        volume: &Volume,
        target: PathBuf,
        read_only: bool,
    ) -> Result<AppMount, Error> {
        let known = self.volumes.iter().position(|used| used.key == key);
        // Only an app's own volumes can contradict each other.
        if known.and_then(|index| self.volumes.get(index)).is_some_and(|used| used.source != volume.source) {
            return Err(Error::Invalid(format!("volume \"{}\" stands twice", volume.name)));
        }
        let index = known.unwrap_or_else(|| {
            self.volumes.push(PodVolume { key: key.into(), ..PodVolume::of(volume) });
            self.volumes.len() - 1
        });
        Ok(AppMount { volume: index, target, read_only: volume.read_only.unwrap_or(read_only) })
    }

    fn implicit(&mut self, app: &RuntimeApp, point: &MountPoint, target: PathBuf) -> AppMount {
        self.volumes.push(PodVolume {
            key: format!("{}.{}", app.name, point.name),
            read_only: false,
            source: VolumeSource::Empty(EmptyVolume::default()),
            populate: true,
        });
        AppMount { volume: self.volumes.len() - 1, target, read_only: point.read_only }
    }
}

/// A target without `.`, `..` and double slashes, as Go's filepath.Clean has it.
pub fn clean(path: &str) -> Result<PathBuf, Error> {
    let invalid = |why: &str| Err(Error::Invalid(format!("a volume cannot be mounted at \"{path}\": {why}")));
    if !path.starts_with('/') || path.contains('\0') {
        return invalid("it is not an absolute path");
    }
    let mut cleaned = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if cleaned == Path::new("/") { invalid("that is the app's root") } else { Ok(cleaned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(volumes: &str, mounts: &str, points: &str) -> PodManifest {
        let image = format!(r#"{{"id":"sha512-{}"}}"#, "0".repeat(64));
        let app = |name| {
            format!(
                r#"{{"name":"{name}","image":{image},"mounts":[{mounts}],
                "app":{{"exec":["/a"],"user":"0","group":"0","mountPoints":[{points}]}}}}"#
            )
        };
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{},{}],"volumes":[{volumes}]}}"#,
            app("one"),
            app("two")
        );
        serde_json::from_str(&json).unwrap()
    }

    const DATA: &str = r#"{"name":"data","kind":"host","source":"/d"}"#;

    fn mounts(manifest: &PodManifest) -> Vec<(String, String, bool)> {
        let PodVolumes { volumes, mounts } = assign(manifest).unwrap();
        let describe = |mount: &AppMount| {
            (volumes[mount.volume].key.clone(), mount.target.display().to_string(), mount.read_only)
        };
        mounts[0].iter().map(describe).collect()
    }

    #[test]
    fn mounts_by_path_then_mount_points_by_name_then_empty_ones() {
        let points = r#"{"name":"data","path":"/data","readOnly":true},{"name":"cache","path":"/cache"},
            {"name":"x","path":"/a/../srv/"}"#;
        let manifest = manifest(DATA, r#"{"volume":"data","path":"/srv/."}"#, points);
        let expected = [("one.cache", "/cache", false), ("data", "/data", true), ("data", "/srv", false)];
        let expected = expected.map(|(key, target, read)| (key.to_owned(), target.to_owned(), read));
        assert_eq!(mounts(&manifest), expected);
        let volumes = assign(&manifest).unwrap().volumes;
        let keys: Vec<_> = volumes.iter().map(|volume| (volume.key.as_str(), volume.populate)).collect();
        assert_eq!(keys, [("data", false), ("one.cache", true), ("two.cache", true)]);
    }

    #[test]
    fn who_decides_on_writing() {
        for (volume, point, expected) in [
            ("", "", false),
            ("", r#","readOnly":true"#, true),
            (r#","readOnly":false"#, r#","readOnly":true"#, false),
            (r#","readOnly":true"#, "", true),
        ] {
            let volume = DATA.replace('}', &format!("{volume}}}"));
            let point = format!(r#"{{"name":"data","path":"/data"{point}}}"#);
            assert_eq!(mounts(&manifest(&volume, "", &point))[0].2, expected, "{volume} {point}");
        }
    }

    #[test]
    fn refused() {
        let mount = |path: &str| format!(r#"{{"volume":"data","path":"{path}"}}"#);
        let twice = format!("{},{}", mount("/a"), mount("/b/../a"));
        let volumes = format!("{DATA},{DATA}");
        for (volumes, mounts, expected) in [
            ("", mount("/a"), "dangling mount point \"/a\": volume \"data\" not found"),
            (DATA, mount("a"), "absolute"),
            (DATA, mount("/a/.."), "root"),
            (DATA, twice, "two volumes at /a"),
            (&volumes, mount("/a"), "stands twice"),
        ] {
            let error = assign(&manifest(volumes, &mounts, "")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
