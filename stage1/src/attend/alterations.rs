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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ::pod::control::ExitStatus;
    use ::pod::pod_manifest::ANNOTATION_MUTABLE;
    use tempfile::TempDir;

    use super::*;

    /// Notes what it is asked for, and has nothing for apps that are called `bad`.
    struct Notes<'a>(&'a RefCell<Vec<String>>);

    impl Site for Notes<'_> {
        fn add(
            &mut self,
            session: SessionId,
            before: &PodManifest,
            after: &PodManifest,
        ) -> Result<Added, Box<dyn Cause>> {
            let app = after.apps.last().unwrap().name.clone();
            self.0.borrow_mut().push(format!("add {app} {} {session}", before.apps.len()));
            if app.as_str() == "bad" {
                return Err("nothing is left".into());
            }
            let plan = r#"{"name":"web","setup":[],"process":{"exec":["x"],"user":"0","group":"0","supplementary_gids":[],
                "working_directory":"/","environment":[],"capabilities":0,"no_new_privileges":false,"oom_score_adj":null,
                "rlimits":[],"filter":null},"pre_start":null,"post_stop":null,"stdio":{"streams":[]},"cgroup":null}"#;
            let app = serde_json::from_str(plan).unwrap();
            let new = NewApp { setup: Vec::new(), trees: 0, cgroups: 0, app, teardown: Vec::new() };
            Ok(Added { new, streams: Vec::new() })
        }

        fn remove(&mut self, app: &AcName) {
            self.0.borrow_mut().push(format!("remove {app}"));
        }
    }

    fn change(app: &str, action: Action) -> Change {
        Change { app: app.parse().unwrap(), action }
    }

    /// The directory of a pod without apps, to which these may come.
    fn pod(apps: &[&str]) -> (TempDir, PodDirectory, PodManifest) {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        let annotation = serde_json::json!({"name": ANNOTATION_MUTABLE, "value": "true"});
        let mut manifest = PodManifest::new(Vec::new());
        manifest.annotations.push(serde_json::from_value(annotation).unwrap());
        pod::write_manifest(&directory, &manifest).unwrap();
        for name in apps {
            let path = directory.addition(&name.parse().unwrap());
            let app = serde_json::json!({"name": name, "image": {"id": format!("sha512-{}", "0".repeat(64))},
                "app": {"exec": ["/a"], "user": "0", "group": "0"}});
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, app.to_string()).unwrap();
        }
        (home, directory, manifest)
    }

    fn apps(directory: &PodDirectory) -> Vec<String> {
        let apps = pod::read_manifest(directory).unwrap().apps;
        apps.iter().map(|app| app.name.to_string()).collect()
    }

    fn done(session: SessionId) -> FromSupervisor {
        FromSupervisor::SessionExited { session, status: ExitStatus::SUCCESS }
    }

    #[test]
    fn one_after_another() {
        let (_home, directory, manifest) = pod(&["web", "bad"]);
        let notes = RefCell::new(Vec::new());
        let mut alterations = Alterations::new(&directory, &manifest, Some(Box::new(Notes(&notes))));
        let (add, bad) = (change("web", Action::Add), change("bad", Action::Add));
        alterations.ask(3, add.clone());
        alterations.ask(4, bad.clone());
        assert_eq!(alterations.next(), Some((3, add.clone())));
        alterations.add(3, &add).unwrap();
        assert_eq!(apps(&directory), ["web"]);
        assert_eq!(alterations.next(), None, "one is under way");
        assert_eq!(alterations.end(&done(9)), None, "another one's");
        assert_eq!(alterations.next(), None);
        assert_eq!(alterations.end(&done(3)), None, "it is there");
        assert!(directory.app_created(&add.app).exists());
        // What cannot be leaves the manifest as it was.
        assert_eq!(alterations.next(), Some((4, bad.clone())));
        assert!(alterations.add(4, &bad).is_err());
        assert_eq!(apps(&directory), ["web"]);
        let rm = change("web", Action::Remove);
        alterations.ask(5, rm.clone());
        assert_eq!(alterations.next(), Some((5, rm.clone())));
        assert!(!alterations.remove(5, &rm).unwrap().is_empty());
        assert_eq!(apps(&directory), ["web"], "until it has gone");
        assert_eq!(alterations.end(&done(5)), Some(rm.app.clone()));
        assert!(apps(&directory).is_empty() && !directory.app_created(&rm.app).exists());
        assert_eq!(*notes.borrow(), ["add web 0 3", "add bad 1 4", "remove web"]);
    }

    #[test]
    fn an_app_that_the_supervisor_does_not_take_has_not_come() {
        let (_home, directory, manifest) = pod(&["web"]);
        let notes = RefCell::new(Vec::new());
        let mut alterations = Alterations::new(&directory, &manifest, Some(Box::new(Notes(&notes))));
        let add = change("web", Action::Add);
        alterations.add(1, &add).unwrap();
        let failed = FromSupervisor::SessionFailed { session: 1, causes: vec!["no".into()] };
        assert_eq!(alterations.end(&failed), Some(add.app));
        assert!(apps(&directory).is_empty() && alterations.manifest().apps.is_empty());
        assert_eq!(notes.borrow().last().map(String::as_str), Some("remove web"));
    }

    #[test]
    fn pods_that_do_not_change() {
        let (_home, directory, manifest) = pod(&["web"]);
        let mut alterations = Alterations::new(&directory, &manifest, None);
        assert!(!alterations.are_possible());
        let refused = alterations.add(1, &change("web", Action::Add)).unwrap_err();
        assert!(refused.to_string().contains("rkt app sandbox"), "{refused}");
        assert!(alterations.remove(1, &change("web", Action::Remove)).is_err());
    }
}
