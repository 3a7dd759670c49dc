//! Pods on disk, `<dir>/pods`. A pod's state is the directory it is in and the lock (flock) on its own directory, nothing
//! else:
//!
//! | directory | locked | unlocked |
//! |---|---|---|
//! | `embryo/<uuid>` | being made | not locked yet, or left from a crash |
//! | `prepare/<uuid>` | preparing | left from a crash |
//! | `prepared/<uuid>` | | prepared |
//! | `run/<uuid>` | running | exited |
//! | `exited-garbage/<uuid>` | being removed | marked by gc |
//! | `garbage/<uuid>`, which never ran, or is only files | being removed | marked by gc |
//!
//! Which ports of the host they have is in `<dir>/ports` ([`ports`]).
//!
//! Nothing is synced to disk while a pod is made that runs: after a crash of the machine no lock is held, so whatever is
//! there of a pod is garbage, complete or not. A prepared pod is on disk before it is in its place.

mod alter;
pub mod command;
pub mod create;
pub mod environment;
pub mod foreign;
pub mod gc;
pub mod given;
pub mod guest_tree;
mod inside;
pub mod listing;
pub mod manifest;
pub mod merged;
pub mod mounts;
pub mod ports;
mod prepared;
pub mod report;
pub mod startable;
mod state;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pod::ports::PortMapping;
use uuid::Uuid;

use crate::cli::PodChoice;
pub use inside::Inside;
pub use state::{Place, State};

/// How often a pod that somebody else has for a moment is looked at.
const PAUSE: Duration = Duration::from_millis(1);

/// Why something cannot be done with a pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a pod cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The manifest of a new pod would be wrong.
    #[error("the pod cannot be run")]
    Manifest(#[from] pod::Error),
    /// The manifest that the user gives.
    #[error("{} is not a good pod manifest", path.display())]
    PodManifestFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pod::Error,
    },
    /// An app cannot be run.
    #[error("app \"{app}\" (image {image}): {what}")]
    App {
        /// The app.
        app: String,
        /// Its image.
        image: String,
        /// What is wrong.
        what: String,
    },
    /// The image of an app cannot be read.
    #[error("cannot read the image of app \"{app}\"; fetch it again")]
    Image {
        /// The app.
        app: String,
        /// Why.
        #[source]
        source: erofs::Error,
    },
    /// What a guest says that an app has left cannot be an image.
    #[error("cannot take what app \"{app}\" has left from the guest that reads it")]
    GuestTree {
        /// The app.
        app: String,
        /// Why.
        #[source]
        source: crate::image::Error,
    },
    /// An image without a name for its app.
    #[error("image {0} has no name that an app can have; give it one with --name")]
    NoAppName(String),
    /// Several variables or annotations of one name.
    #[error("\"{0}\" is set twice by {1}")]
    VariableTwice(String, &'static str),
    /// A line of `--set-env-file`.
    #[error("line {line} of {}: {what}", path.display())]
    EnvironmentFile {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// No such pod.
    #[error("no matches found for \"{0}\"; rkt list shows the pods")]
    NoMatch(String),
    /// A file that should hold a UUID.
    #[error("cannot read a pod's UUID from {}", path.display())]
    UuidFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pod that has not come so far.
    #[error("pod \"{uuid}\" is {state} and has no manifest")]
    NoManifest {
        /// Which.
        uuid: Uuid,
        /// Its state.
        state: State,
    },
    /// Several such pods.
    #[error("ambiguous uuid \"{0}\", {1} matches")]
    Ambiguous(String, usize),
    /// A pod that is in use.
    #[error("pod \"{uuid}\" is {state} and cannot be removed")]
    InUse {
        /// Which.
        uuid: Uuid,
        /// Its state.
        state: State,
    },
    /// Another pod has a port of the host.
    #[error("the host's {port} is taken by pod \"{pod}\"; choose another, or end that pod")]
    PortTaken {
        /// The port.
        port: PortMapping,
        /// Whose it is.
        pod: Uuid,
    },
    /// A pod that cannot be run, or not any more.
    #[error("pod \"{uuid}\" is not prepared: it is {state}")]
    NotPrepared {
        /// Which.
        uuid: Uuid,
        /// Its state.
        state: State,
    },
    /// An image cannot be unpacked into a pod.
    #[error(transparent)]
    Store(Box<crate::store::Error>),
    /// A pod's parent has not one child.
    #[error(
        "process {0} of pod \"{1}\" has several children, so which of them is the pod cannot be told; its stage1 should write \"pid\""
    )]
    Children(u32, Uuid),
    /// The stage1 of a pod cannot be asked.
    #[error("the stage1 of pod \"{uuid}\" cannot clean up; the pod stays for another try")]
    Stage1 {
        /// Which pod.
        uuid: Uuid,
        /// Why.
        #[source]
        source: Box<crate::stage1::Error>,
    },
    /// The metadata service may still know the pod.
    #[error("cannot unregister the pod from the metadata service; the pod stays for another try")]
    Registered(#[from] metadata::Error),
    /// The stage1's own clean-up failed.
    #[error("the stage1's gc of pod \"{0}\" failed ({1}); the pod stays for another try")]
    Stage1Gc(Uuid, String),
}

impl Error {
    /// What was being done to a file when it failed.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.into(), source }
    }
}

/// All pods.
#[derive(Clone, Debug)]
pub struct Pods {
    root: PathBuf,
}

/// A pod that was there a moment ago.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub uuid: Uuid,
    /// Where it is.
    pub place: Place,
    /// What that and its lock say.
    pub state: State,
    /// Its directory.
    pub path: PathBuf,
}

impl Pods {
    /// The pods of a data directory; nothing is made yet.
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("pods") }
    }

    /// The directory of all of them.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a pod is when it is in some place.
    pub fn path(&self, place: Place, uuid: Uuid) -> PathBuf {
        self.root.join(place.directory()).join(uuid.to_string())
    }

    /// The place of embryos comes last: another process that finds it there may use all the others.
    fn make_directories(&self) -> io::Result<()> {
        Place::ALL.iter().rev().try_for_each(|place| {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(self.root.join(place.directory()))
        })
    }

    /// The pods in some places, by UUID. One that vanishes meanwhile is left out; one that moves on to a later one of the places is
    /// there once.
    pub fn list(&self, places: &[Place]) -> Result<Vec<Pod>, Error> {
        let mut pods = BTreeMap::new();
        self.visit(places, &mut |pod, _| drop(pods.insert(pod.uuid, pod)))?;
        Ok(pods.into_values().collect())
    }

    /// Looks into each pod in some places, in no order; into one that moves on to a later one of the places, it may look twice.
    pub fn visit(&self, places: &[Place], look: &mut dyn FnMut(Pod, &Inside)) -> Result<(), Error> {
        self.visit_those(places, &|_| true, look)
    }

    /// Looks into each pod in some places that is called such.
    fn visit_those(
        &self,
        places: &[Place],
        is_wanted: &dyn Fn(&str) -> bool,
        look: &mut dyn FnMut(Pod, &Inside),
    ) -> Result<(), Error> {
        for place in places {
            let directory = self.root.join(place.directory());
            let opened = Inside::open(&directory).and_then(|all| Ok((all, fs::read_dir(&directory)?)));
            let (all, entries) = match opened {
                Ok(opened) => opened,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", &directory)(error)),
            };
            for entry in entries {
                let name = entry.map_err(Error::io("read", &directory))?.file_name();
                let Some(name) = name.to_str().filter(|name| is_wanted(name)) else { continue };
                let Ok(uuid) = name.parse() else { continue };
                if let Some((pod, inside)) = Pod::of(*place, uuid, directory.join(name), all.enter(name))? {
                    look(pod, &inside);
                }
            }
        }
        Ok(())
    }

    /// The pod whose UUID begins with `prefix`.
    pub fn find(&self, prefix: &str) -> Result<Pod, Error> {
        let lower = prefix.to_lowercase();
        let mut pods = BTreeMap::new();
        let is_wanted = |name: &str| !lower.is_empty() && name.starts_with(&lower);
        self.visit_those(&Place::VISIBLE, &is_wanted, &mut |pod, _| drop(pods.insert(pod.uuid, pod)))?;
        match (pods.len(), pods.pop_last()) {
            (1, Some((_, pod))) => Ok(pod),
            (0, _) => Err(Error::NoMatch(prefix.into())),
            (several, _) => Err(Error::Ambiguous(prefix.into(), several)),
        }
    }

    /// The pod that the command line means.
    pub fn choose(&self, choice: &PodChoice) -> Result<Pod, Error> {
        match choice {
            PodChoice::Uuid(prefix) => self.find(prefix),
            PodChoice::File(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| Error::UuidFile { path: path.clone(), source })?;
                self.find(text.trim())
            }
        }
    }

    /// The pod as it is now, wherever it is by now.
    pub fn look_again(&self, pod: &Pod) -> Result<Pod, Error> {
        self.look_in(&Place::VISIBLE, pod.uuid)?.ok_or_else(|| Error::NoMatch(pod.uuid.to_string()))
    }

    /// Does something with a pod, wherever it is by now: what fails while the pod moves on is done again where it is then.
    pub fn follow<T, E: From<Error>>(
        &self,
        mut pod: Pod,
        mut act: impl FnMut(&Pod) -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match act(&pod) {
                Err(_) if !pod.path.exists() => pod = self.look_again(&pod)?,
                done => return done,
            }
        }
    }

    fn look_in(&self, places: &[Place], uuid: Uuid) -> Result<Option<Pod>, Error> {
        // It may move on to a place that was looked at before.
        for place in places.iter().chain(places) {
            if let Some(pod) = self.probe(*place, uuid)? {
                return Ok(Some(pod));
            }
        }
        Ok(None)
    }

    fn probe(&self, place: Place, uuid: Uuid) -> Result<Option<Pod>, Error> {
        let path = self.path(place, uuid);
        let opened = Inside::open(&path);
        Ok(Pod::of(place, uuid, path, opened)?.map(|(pod, _)| pod))
    }

    /// Moves a pod to another place; `None` if another process was faster.
    fn rename(&self, pod: &Pod, to: Place) -> Result<Option<Pod>, Error> {
        let path = self.path(to, pod.uuid);
        self.make_directories().map_err(Error::io("make the directories in", &self.root))?;
        match fs::rename(&pod.path, &path) {
            Ok(()) => Ok(Some(Pod { uuid: pod.uuid, place: to, state: to.state(false), path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("move", &pod.path)(error)),
        }
    }
}

/// Whether any process holds the lock, which is what a pod lives by.
fn is_locked(directory: &File) -> io::Result<bool> {
    match directory.try_lock_shared() {
        // Who wants the lock is not to find it taken while the pod is looked into.
        Ok(()) => directory.unlock().map(|()| false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

impl Pod {
    /// The pod whose directory has been opened; `None` if it is not there any more.
    fn of(
        place: Place,
        uuid: Uuid,
        path: PathBuf,
        opened: io::Result<Inside>,
    ) -> Result<Option<(Self, Inside)>, Error> {
        match opened.and_then(|inside| Ok((is_locked(inside.directory())?, inside))) {
            Ok((locked, inside)) => {
                Ok(Some((Self { uuid, place, state: place.state(locked), path }, inside)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("probe the lock of", &path)(error)),
        }
    }

    /// How long ago it came to its place: a move changes the time of change.
    fn age(&self) -> io::Result<Duration> {
        let metadata = fs::metadata(&self.path)?;
        let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
        let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        Ok(SystemTime::now().duration_since(changed).unwrap_or_default())
    }
}
