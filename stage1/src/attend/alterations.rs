//! Apps that come into the pod and leave it, one after another: what the parent has to do with it.
//!
//! The manifest in the pod's directory follows. It needs no care for a crash of the parent, with which the pod ends.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::error::Error as Cause;
use std::os::fd::OwnedFd;

use ::pod::abi::PodDirectory;
use ::pod::control::{FromSupervisor, Stream};
use ::pod::plan::{NewApp, Operation, teardown};
use ::pod::pod_manifest::{PodManifest, RuntimeApp};
use ::pod::session::{Action, Change, SessionId};
use ::pod::types::AcName;

use crate::Error;
use crate::error::report;
use crate::{pod, status};

/// What an isolation does for apps that come into a pod that runs, and leave it.
pub trait Site {
    /// Makes what the last app of `after`, which `before` has not, needs of the host, and hands it to the supervisor for this
    /// session. Nothing of it stays if that fails.
    fn add(
        &mut self,
        session: SessionId,
        before: &PodManifest,
        after: &PodManifest,
    ) -> Result<Added, Box<dyn Cause>>;

    /// Removes what an app needed of the host.
    fn remove(&mut self, app: &AcName);
}

/// What was made for an app.
#[derive(Debug)]
pub struct Added {
    /// What the supervisor is told.
    pub new: NewApp,
    /// The parent's ends of its streams.
    pub streams: Vec<(Stream, OwnedFd)>,
}

/// The changes of the pod.
pub struct Alterations<'a> {
    directory: &'a PodDirectory,
    /// The pod as it is, with an app that is on its way.
    manifest: Cow<'a, PodManifest>,
    /// Only pods whose apps come and go have one.
    site: Option<Box<dyn Site + 'a>>,
    waiting: VecDeque<(SessionId, Change)>,
    under_way: Option<(SessionId, Change)>,
}

impl<'a> Alterations<'a> {
    pub fn new(
        directory: &'a PodDirectory,
        manifest: &'a PodManifest,
        site: Option<Box<dyn Site + 'a>>,
    ) -> Self {
        let manifest = Cow::Borrowed(manifest);
        Self { directory, manifest, site, waiting: VecDeque::new(), under_way: None }
    }

    /// The pod as it is now.
    pub fn manifest(&self) -> &PodManifest {
        &self.manifest
    }

    /// Whether there are any.
    pub fn are_possible(&self) -> bool {
        self.site.is_some()
    }

    pub fn ask(&mut self, session: SessionId, change: Change) {
        self.waiting.push_back((session, change));
    }

    /// The next one, if none is under way.
    pub fn next(&mut self) -> Option<(SessionId, Change)> {
        if self.under_way.is_some() { None } else { self.waiting.pop_front() }
    }

    /// Begins to take an app in.
    pub fn add(&mut self, session: SessionId, change: &Change) -> Result<Added, Box<dyn Cause>> {
        let site = self.site.as_mut().ok_or(Error::Immutable)?;
        let app = addition(self.directory, &change.app)?;
        let after = self
            .manifest
            .with(app)
            .map_err(|source| Error::Pod { what: "the pod cannot have this app".into(), source })?;
        // Before anything is handed over, for there is no taking it back.
        pod::write_manifest(self.directory, &after)?;
        let added = match site.add(session, &self.manifest, &after) {
            Ok(added) => added,
            Err(error) => {
                let restored = pod::write_manifest(self.directory, &self.manifest);
                restored.unwrap_or_else(|error| report(&error));
                return Err(error);
            }
        };
        self.manifest = Cow::Owned(after);
        self.under_way = Some((session, change.clone()));
        Ok(added)
    }

    /// Begins to let an app go: what the supervisor undoes.
    pub fn remove(&mut self, session: SessionId, change: &Change) -> Result<Vec<Operation>, Box<dyn Cause>> {
        if self.site.is_none() {
            return Err(Error::Immutable.into());
        }
        let operations = teardown(&self.manifest, &self.manifest.without(&change.app))?;
        self.under_way = Some((session, change.clone()));
        Ok(operations)
    }

    /// Ends what is under way, if `message` is about that; the app that is not in the pod any more, or has not come.
    pub fn end(&mut self, message: &FromSupervisor) -> Option<AcName> {
        let (ended, success) = match message {
            FromSupervisor::SessionExited { session, .. } => (session, true),
            FromSupervisor::SessionFailed { session, .. } => (session, false),
            _ => return None,
        };
        let (_, change) = self.under_way.take_if(|(session, _)| session == ended)?;
        let stays = match change.action {
            Action::Add => success,
            // What is left in the pod's root of an app that is gone is nobody's.
            _ => false,
        };
        let result = match stays {
            true => status::write_created(self.directory, &change.app),
            false => self.forget(&change.app),
        };
        result.unwrap_or_else(|error| report(&error));
        (!stays).then_some(change.app)
    }

    /// Nothing is known of an app any more.
    pub fn forget(&mut self, app: &AcName) -> Result<(), Error> {
        self.under_way.take_if(|(_, change)| change.app == *app);
        if let Some(site) = &mut self.site {
            site.remove(app);
        }
        let without = self.manifest.without(app);
        let written = pod::write_manifest(self.directory, &without);
        self.manifest = Cow::Owned(without);
        written.and(status::remove_app(self.directory, app))
    }
}

/// What stage0 says of an app that is to come.
fn addition(directory: &PodDirectory, app: &AcName) -> Result<RuntimeApp, Error> {
    let path = directory.addition(app);
    let json = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let unusable = |source| Error::Pod { what: format!("cannot use {}", path.display()), source };
    let added: RuntimeApp = serde_json::from_slice(&json)
        .map_err(|source| unusable(::pod::Error::Json { what: "app of a pod", source }))?;
    match added.name == *app {
        true => Ok(added),
        false => Err(unusable(::pod::Error::Invalid(format!("it is app \"{}\"", added.name)))),
    }
}
