//! What the parent knows of the apps. The supervisor may be hostile: it tells of no app that the pod does not have.

use ::pod::plan::{AppPlan, Plan};
use ::pod::types::AcName;

/// An app.
#[derive(Debug)]
struct App {
    name: AcName,
    state: State,
    /// Whether it tells itself when it is ready; else it is once it runs.
    notifies: bool,
    /// Whether it has been ready at all.
    was_ready: bool,
    /// How many of its processes were killed for want of memory, as far as is known.
    oom_kills: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way, for the first time or again.
    Starting,
    Running,
    Ended,
}

impl App {
    fn new(planned: &AppPlan, state: State) -> Self {
        let (name, notifies) = (planned.name.clone(), planned.notify);
        Self { name, state, notifies, was_ready: false, oom_kills: 0 }
    }
}

/// The apps of a pod.
#[derive(Debug)]
pub struct Apps(Vec<App>);

impl Apps {
    /// Those of a plan, which are all on their way.
    pub fn new(plan: &Plan) -> Self {
        Self(plan.apps.iter().map(|app| App::new(app, State::Starting)).collect())
    }

    /// One comes into the pod, and does not run yet.
    pub fn add(&mut self, app: &AppPlan) {
        self.0.push(App::new(app, State::Ended));
    }

    /// One leaves the pod.
    pub fn remove(&mut self, name: &AcName) {
        self.0.retain(|app| app.name != *name);
    }

    fn find(&self, name: &AcName) -> Option<&App> {
        self.0.iter().find(|app| app.name == *name)
    }

    fn find_mut(&mut self, name: &AcName) -> Option<&mut App> {
        self.0.iter_mut().find(|app| app.name == *name)
    }

    fn set(&mut self, name: &AcName, state: State) -> Option<State> {
        let app = self.find_mut(name)?;
        app.was_ready |= state == State::Running && !app.notifies;
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

    /// An app has told that it is ready.
    pub fn tell_ready(&mut self, name: &AcName) {
        if let Some(app) = self.find_mut(name) {
            app.was_ready |= app.notifies;
        }
    }

    /// Takes how many processes of an app were killed for want of memory; whether those are more than were known.
    pub fn count_oom_kills(&mut self, name: &AcName, kills: u64) -> bool {
        self.find_mut(name).is_some_and(|app| kills > std::mem::replace(&mut app.oom_kills, kills))
    }

    /// Whether every app has been ready.
    pub fn have_been_ready(&self) -> bool {
        self.0.iter().all(|app| app.was_ready)
    }

    /// Whether every app has ended.
    pub fn have_ended(&self) -> bool {
        self.0.iter().all(|app| app.state == State::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(notifies: bool) -> App {
        let (name, state) = ("web".parse().unwrap(), State::Starting);
        App { name, state, notifies, was_ready: false, oom_kills: 0 }
    }

    #[test]
    fn who_tells_is_ready_only_then_and_stays_it() {
        let name: AcName = "web".parse().unwrap();
        for notifies in [false, true] {
            let mut apps = Apps(vec![app(notifies)]);
            apps.tell_ready(&name);
            assert_eq!(apps.have_been_ready(), notifies);
            apps.start(&name);
            assert!(apps.have_been_ready());
            apps.restart(&name);
            assert!(apps.have_been_ready());
        }
        let mut apps = Apps(vec![app(true)]);
        apps.start(&name);
        assert!(!apps.have_been_ready());
    }

    #[test]
    fn kills_are_news_once() {
        let (mut apps, name) = (Apps(vec![app(false)]), "web".parse().unwrap());
        assert_eq!([0, 1, 1, 3].map(|kills| apps.count_oom_kills(&name, kills)), [false, true, false, true]);
        assert!(!apps.count_oom_kills(&"other".parse().unwrap(), 1));
    }
}
