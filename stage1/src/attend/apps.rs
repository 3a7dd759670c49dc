//! What the parent knows of the apps. The supervisor may be hostile: it tells of no app that the pod does not have.

use ::pod::plan::Plan;
use ::pod::types::AcName;

/// An app.
#[derive(Debug)]
struct App {
    name: AcName,
    state: State,
    /// Whether it has run at all.
    has_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way, for the first time or again.
    Starting,
    Running,
    Ended,
}

/// The apps of a pod.
#[derive(Debug)]
pub struct Apps(Vec<App>);

impl Apps {
    /// Those of a plan, which are all on their way.
    pub fn new(plan: &Plan) -> Self {
        let app = |name: &AcName| App { name: name.clone(), state: State::Starting, has_run: false };
        Self(plan.apps.iter().map(|planned| app(&planned.name)).collect())
    }

    fn find(&self, name: &AcName) -> Option<&App> {
        self.0.iter().find(|app| app.name == *name)
    }

    fn set(&mut self, name: &AcName, state: State) -> Option<State> {
        let app = self.0.iter_mut().find(|app| app.name == *name)?;
        app.has_run |= state == State::Running;
        Some(std::mem::replace(&mut app.state, state))
    }

    /// Whether the pod has such an app.
    pub fn has(&self, name: &AcName) -> bool {
        self.find(name).is_some()
    }

    /// Whether an app's program runs.
    pub fn is_running(&self, name: &AcName) -> bool {
        self.find(name).is_some_and(|app| app.state == State::Running)
    }

    /// Whether an app has ended, and does not begin again by itself.
    pub fn has_ended(&self, name: &AcName) -> bool {
        self.find(name).is_some_and(|app| app.state == State::Ended)
    }

    /// An app's program runs.
    pub fn start(&mut self, name: &AcName) {
        self.set(name, State::Running);
    }

    /// An app will be started again; `false` if the pod has no such app.
    pub fn restart(&mut self, name: &AcName) -> bool {
        self.set(name, State::Starting).is_some()
    }

    /// An app has ended; `false` if the pod has no such app.
    pub fn end(&mut self, name: &AcName) -> bool {
        self.set(name, State::Ended).is_some()
    }

    /// Whether every app has run.
    pub fn have_run(&self) -> bool {
        self.0.iter().all(|app| app.has_run)
    }

    /// Whether every app has ended.
    pub fn have_ended(&self) -> bool {
        self.0.iter().all(|app| app.state == State::Ended)
    }
}
