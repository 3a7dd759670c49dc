//! What can be told of a pod: its manifest, and what its stage1 has left in its directory.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use net::net_info::{self, NetInfo};
use pod::abi::PodDirectory;
use pod::pod_manifest::{PodManifest, RuntimeApp};
use pod::types::ImageId;
use pod::volumes::{AppMount, PodVolume, VolumeSource};
use serde::Serialize;

use super::{Error, Inside, Place, Pod, Pods, State};

/// A pod, as upstream's API has it (rkt/api/v1, `Pod`).
#[derive(Debug, Serialize)]
pub struct Report {
    /// The UUID.
    pub name: String,
    /// What it is doing.
    pub state: String,
    /// Its networks while it runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetInfo>,
    /// Its apps, in starting order.
    pub app_names: Vec<String>,
    /// The same with all that is known of them.
    pub apps: Vec<AppReport>,
    #[serde(rename = "created_at", serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub created: Option<SystemTime>,
    #[serde(rename = "started_at", serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub started: Option<SystemTime>,
    /// The user's notes about the pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_annotations: BTreeMap<String, String>,
    /// What the user's tools select it by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_labels: BTreeMap<String, String>,
}

/// An app.
#[derive(Debug, Serialize)]
pub struct AppReport {
    pub name: String,
    /// created, running, or exited.
    pub state: &'static str,
    /// When it came into the pod, or the pod was made.
    #[serde(rename = "created_at", serialize_with = "nanoseconds", skip_serializing_if = "Option::is_none")]
    pub created: Option<SystemTime>,
    /// When it was started, or the pod was.
    #[serde(rename = "started_at", serialize_with = "nanoseconds", skip_serializing_if = "Option::is_none")]
    pub started: Option<SystemTime>,
    #[serde(rename = "finished_at", serialize_with = "nanoseconds", skip_serializing_if = "Option::is_none")]
    pub finished: Option<SystemTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// How often it has been started again by itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// How many of its processes were killed for want of memory, if any; ours, not upstream's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    pub image_id: String,
    /// Where volumes are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountReport>,
    /// The user's notes about the app.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_annotations: BTreeMap<String, String>,
    /// What the user's tools select it by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_labels: BTreeMap<String, String>,
}

/// A volume in an app.
#[derive(Debug, Serialize)]
pub struct MountReport {
    /// The volume.
    pub name: String,
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    pub read_only: bool,
}

impl Pods {
    /// The images of all pods that run, have run, or will run.
    pub fn images_in_use(&self) -> Result<HashSet<ImageId>, Error> {
        let mut used = HashSet::new();
        // One that was prepared and now runs is among those that run, which are looked at again.
        for pod in self.list(&[Place::Run, Place::ExitedGarbage, Place::Prepared, Place::Run])? {
            match self.follow(pod, Pod::images) {
                Ok(images) => used.extend(images),
                // It is gone by now.
                Err(Error::NoMatch(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(used)
    }
}

impl Pod {
    /// The manifest that the pod was made with.
    pub fn manifest(&self) -> Result<PodManifest, Error> {
        self.manifest_of(&self.open()?)
    }

    /// Of a pod that is being made it may not be there yet, or not all of it.
    fn manifest_of(&self, inside: &Inside) -> Result<PodManifest, Error> {
        let parsed = inside.manifest().and_then(|manifest| Ok(PodManifest::parse(&manifest)?));
        parsed.map_err(|error| {
            let is_half = match &error {
                Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
                Error::Manifest(_) => true,
                _ => false,
            };
            match is_half && self.state.is_unfinished() {
                true => Error::NoManifest { uuid: self.uuid, state: self.state },
                false => error,
            }
        })
    }

    fn open(&self) -> Result<Inside, Error> {
        Inside::open(&self.path).map_err(Error::io("open", &self.path))
    }

    /// The networks that the pod is in.
    pub fn networks(&self) -> Vec<NetInfo> {
        match self.state {
            State::Running => net_info::read(&PodDirectory::new(&self.path).net_info()),
            // Whoever has its addresses now, it is another pod.
            _ => Vec::new(),
        }
    }

    /// All of the store that it has.
    fn images(&self) -> Result<Vec<ImageId>, Error> {
        let manifest = self.manifest()?;
        let mut images = self.trees(&manifest);
        images.extend(manifest.apps.into_iter().map(|app| app.image.id));
        images.extend(self.stage1_image()?);
        Ok(images)
    }

    /// The unpacked trees of the store that its apps have.
    fn trees(&self, manifest: &PodManifest) -> Vec<ImageId> {
        let directory = PodDirectory::new(&self.path);
        let links = manifest.apps.iter().filter_map(|app| fs::read_link(directory.app_tree(&app.name)).ok());
        links.filter_map(|tree| tree.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// The image of the pod's stage1, if that is not one of ours.
    fn stage1_image(&self) -> Result<Option<ImageId>, Error> {
        let path = PodDirectory::new(&self.path).stage1_image();
        match fs::read_to_string(&path) {
            Ok(id) => Ok(Some(id.parse()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// The process to enter, if the pod has come so far.
    pub fn pid(&self) -> Result<Option<u32>, Error> {
        let (inside, names) = (self.open()?, Inside::names());
        match inside.number(&names.pid())? {
            // What a stage1 of somebody's may write instead.
            None if inside.has(&names.stage1_image()) => match inside.number(&names.ppid())? {
                Some(parent) => self.only_child(parent),
                None => Ok(None),
            },
            pid => Ok(pid),
        }
    }

    /// The same, or, before that is known, the pod's parent.
    pub fn pid_or_parent(&self) -> Result<Option<u32>, Error> {
        match self.pid()? {
            None => self.open()?.number(&Inside::names().ppid()),
            pid => Ok(pid),
        }
    }

    fn only_child(&self, parent: u32) -> Result<Option<u32>, Error> {
        match children(parent).map_err(Error::io("read", Path::new("/proc")))?.as_slice() {
            [] => Ok(None),
            [child] => Ok(Some(*child)),
            _ => Err(Error::Children(parent, self.uuid)),
        }
    }

    /// All that is known of the pod.
    pub fn report(&self) -> Result<Report, Error> {
        self.report_of(&self.open()?)
    }

    /// The same of one whose directory is open.
    pub fn report_of(&self, inside: &Inside) -> Result<Report, Error> {
        let directory = PodDirectory::new(&self.path);
        let manifest = match self.state {
            // It may have none yet, and will not run with what it has.
            state if state.is_unfinished() => PodManifest::new(Vec::new()),
            _ => self.manifest_of(inside)?,
        };
        let times = [inside.created(), inside.started()];
        let volumes = pod::volumes::assign(&manifest)?;
        let start = self.start_of_apps(&manifest, inside);
        let apps = manifest.apps.iter().zip(&volumes.mounts).map(|(app, mounts)| {
            let mounts = mounts.iter().filter_map(|mount| {
                Some(mount_report(volumes.volumes.get(mount.volume)?, mount, &directory))
            });
            self.report_app(app, inside, start, times, mounts.collect())
        });
        let [created, started] = times;
        Ok(Report {
            name: self.uuid.to_string(),
            state: self.state.to_string(),
            networks: self.networks(),
            app_names: manifest.apps.iter().map(|app| app.name.to_string()).collect(),
            apps: apps.collect::<Result<_, _>>()?,
            created,
            started,
            user_annotations: manifest.user_annotations,
            user_labels: manifest.user_labels,
        })
    }

    fn start_of_apps(&self, manifest: &PodManifest, inside: &Inside) -> Start {
        let names = Inside::names();
        if inside.has(&names.stage1_image()) {
            Start::AloneElsewhere
        } else if manifest.is_mutable() {
            Start::Alone
        } else {
            Start::Together { ready: self.state == State::Running && inside.has(&names.supervisor_status()) }
        }
    }

    fn report_app(
        &self,
        app: &RuntimeApp,
        inside: &Inside,
        start: Start,
        times: [Option<SystemTime>; 2],
        mounts: Vec<MountReport>,
    ) -> Result<AppReport, Error> {
        let names = Inside::names();
        let status = names.status(&app.name);
        let exit_code = inside.number(&status)?;
        let alone = |created: PathBuf, started: PathBuf| {
            Some((inside.modified(&created)?, inside.modified(&started)))
        };
        let alone = match start {
            Start::Together { .. } => None,
            Start::Alone => alone(names.app_created(&app.name), names.app_started(&app.name)),
            Start::AloneElsewhere => alone(names.created_marker(&app.name), names.started_marker(&app.name)),
        };
        let ([created, started], runs) = match alone {
            Some((created, started)) => ([Some(created), started], started.is_some()),
            None => (times, start == Start::Together { ready: true }),
        };
        let state = match (exit_code, self.state) {
            (Some(_), _) | (None, State::Exited | State::ExitedDeleting | State::ExitedGarbage) => "exited",
            (None, State::Running) if runs => "running",
            (None, _) => "created",
        };
        let section = app.app.as_ref();
        Ok(AppReport {
            name: app.name.to_string(),
            state,
            created,
            started,
            finished: exit_code.and_then(|_| inside.modified(&status)),
            exit_code,
            restarts: inside.number(&names.restarts(&app.name))?.unwrap_or(0),
            oom_kills: inside.number(&names.oom_kills(&app.name))?,
            image_id: app.image.id.to_string(),
            mounts,
            user_annotations: section.map(|app| app.user_annotations.clone()).unwrap_or_default(),
            user_labels: section.map(|app| app.user_labels.clone()).unwrap_or_default(),
        })
    }
}

/// How the apps of a pod are started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// With the pod, which is ready, or not any more, or not yet.
    Together { ready: bool },
    /// Each when somebody says so.
    Alone,
    /// Likewise, and a stage1 of somebody's tells of it.
    AloneElsewhere,
}

fn mount_report(volume: &PodVolume, mount: &AppMount, directory: &PodDirectory) -> MountReport {
    MountReport {
        name: volume.key.clone(),
        container_path: mount.target.clone(),
        host_path: match &volume.source {
            VolumeSource::Host { path, .. } => path.clone(),
            VolumeSource::Empty(_) => directory.shared_volume(&volume.key),
        },
        read_only: mount.read_only || volume.read_only,
    }
}

/// The processes whose parent is this one (proc_pid_stat(5)); not every kernel lists them.
fn children(parent: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile. The name of the program, which may hold anything, ends with the last parenthesis.
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        let fields =
            stat.rsplit(|byte| *byte == b')').next().and_then(|fields| std::str::from_utf8(fields).ok());
        if fields.and_then(|fields| fields.split_ascii_whitespace().nth(1))
            == Some(parent.to_string().as_str())
        {
            children.push(pid);
        }
    }
    Ok(children)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn seconds<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    serializer.serialize_u64(since.unwrap_or_default().as_secs())
}

fn nanoseconds<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let nanoseconds = u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    serializer.serialize_u64(nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pods::{Place, Pods};
    use uuid::Uuid;

    #[test]
    fn half_a_manifest_of_a_pod_in_the_making_is_none() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let error_in = |place| {
            let path = pods.path(place, Uuid::from_u128(1));
            fs::create_dir_all(&path).unwrap();
            fs::write(PodDirectory::new(&path).manifest(), "{\"acVersion\":").unwrap();
            let error = pods.find("0").unwrap().manifest().unwrap_err();
            fs::remove_dir_all(&path).unwrap();
            error
        };
        assert!(matches!(error_in(Place::Prepare), Error::NoManifest { .. }));
        assert!(matches!(error_in(Place::Run), Error::Manifest(_)));
    }
}
