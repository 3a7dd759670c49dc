//! What can be told of a pod: its manifest, and what its stage1 has left in its directory.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use net::net_info::{self, NetInfo};
use pod::abi::PodDirectory;
use pod::pod_manifest::{PodManifest, RuntimeApp};
use serde::Serialize;

use super::{Error, Pod, State};
use crate::cli::Stage1;

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
    /// The process to enter, or, before that is known, the pod's parent.
    #[serde(skip)]
    pub pid: Option<u32>,
}

/// An app.
#[derive(Debug, Serialize)]
pub struct AppReport {
    pub name: String,
    /// created, running, or exited.
    pub state: &'static str,
    /// When it came into a pod whose apps come and go.
    #[serde(rename = "created_at", serialize_with = "nanoseconds", skip_serializing_if = "Option::is_none")]
    pub created: Option<SystemTime>,
    /// When it was started last in such a pod.
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
}

impl Pod {
    /// The manifest that the pod was made with.
    pub fn manifest(&self) -> Result<PodManifest, Error> {
        let path = PodDirectory::new(&self.path).manifest();
        let json = fs::read(&path).map_err(Error::io("read", &path))?;
        Ok(PodManifest::parse(&json)?)
    }

    /// The networks that the pod is in.
    pub fn networks(&self) -> Vec<NetInfo> {
        match self.state {
            State::Running => net_info::read(&PodDirectory::new(&self.path).net_info()),
            // Whoever has its addresses now, it is another pod.
            _ => Vec::new(),
        }
    }

    /// The process to enter, if the pod has come so far.
    pub fn pid(&self) -> Result<Option<u32>, Error> {
        read_number(&PodDirectory::new(&self.path).pid())
    }

    /// The isolation that it runs in.
    pub fn isolation(&self) -> Result<Stage1, Error> {
        let path = PodDirectory::new(&self.path).flavor();
        let flavor = fs::read_link(&path).map_err(Error::io("read", &path))?;
        Ok(if flavor == Path::new("kvm") { Stage1::Kvm } else { Stage1::Nspawn })
    }

    /// All that is known of the pod.
    pub fn report(&self) -> Result<Report, Error> {
        let directory = PodDirectory::new(&self.path);
        let apps = match self.state {
            // It may have none yet, and will not run with what it has.
            State::Embryo | State::Preparing | State::AbortedPrepare => Vec::new(),
            _ => self.manifest()?.apps,
        };
        let ready = fs::symlink_metadata(directory.supervisor_status()).is_ok();
        Ok(Report {
            name: self.uuid.to_string(),
            state: self.state.to_string(),
            networks: self.networks(),
            app_names: apps.iter().map(|app| app.name.to_string()).collect(),
            apps: apps.iter().map(|app| self.report_app(app, &directory, ready)).collect::<Result<_, _>>()?,
            created: modified(&directory.created()),
            started: modified(&directory.ppid()).or_else(|| modified(&directory.pid())),
            pid: self.pid()?.or(read_number(&directory.ppid())?),
        })
    }

    fn report_app(
        &self,
        app: &RuntimeApp,
        directory: &PodDirectory,
        ready: bool,
    ) -> Result<AppReport, Error> {
        let status = directory.status(&app.name);
        let exit_code = read_number(&status)?;
        let (created, started) =
            (modified(&directory.app_created(&app.name)), modified(&directory.app_started(&app.name)));
        // Those of other pods have been started when all of them have.
        let runs = if created.is_some() { started.is_some() } else { ready };
        let state = match (exit_code, self.state) {
            (Some(_), _) | (None, State::Exited | State::ExitedDeleting | State::ExitedGarbage) => "exited",
            (None, State::Running) if runs => "running",
            (None, _) => "created",
        };
        Ok(AppReport {
            name: app.name.to_string(),
            state,
            created,
            started,
            finished: exit_code.and_then(|_| modified(&status)),
            exit_code,
            restarts: read_number(&directory.restarts(&app.name))?.unwrap_or(0),
            oom_kills: read_number(&directory.oom_kills(&app.name))?,
            image_id: app.image.id.to_string(),
        })
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The number in a file that is there in time; one that is being written is not there yet.
fn read_number<T: std::str::FromStr>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
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
