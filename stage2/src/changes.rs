//! What the parent wants to become of apps while the pod runs, until it is so.

use std::time::Instant;

use pod::control::{ExitStatus, FromSupervisor};
use pod::plan::Operation;
use pod::session::SessionId;
use pod::types::AcName;

use crate::app::App;
use crate::error::causes;
use crate::{cgroup, newcomer};

/// The changes that are under way.
#[derive(Debug, Default)]
pub struct Changes {
    pending: Vec<Pending>,
}

/// What is to become of an app.
#[derive(Debug)]
pub enum Wanted {
    /// It runs.
    Start,
    /// It has ended, with all that it has started.
    Stop,
    /// The same, and it leaves the pod, of which this is undone.
    Removal(Vec<Operation>),
}

#[derive(Debug)]
struct Pending {
    session: SessionId,
    app: AcName,
    wanted: Wanted,
    /// Whether the app knows of it.
    has_begun: bool,
}

impl Changes {
    /// Takes a change on; [`Self::advance`] begins it.
    pub fn add(&mut self, session: SessionId, app: AcName, wanted: Wanted) {
        self.pending.push(Pending { session, app, wanted, has_begun: false });
    }

    /// Goes on with every change; what the parent is to be told of those that are made by now, or will not be. No app is
    /// started unless the pod goes on.
    pub fn advance(&mut self, apps: &mut Vec<App<'_>>, now: Instant, goes_on: bool) -> Vec<FromSupervisor> {
        let mut messages = Vec::new();
        self.pending.retain_mut(|pending| {
            let session = pending.session;
            match pending.advance(apps, now, goes_on) {
                None => return true,
                Some(Ok(())) => {
                    messages.push(FromSupervisor::SessionExited { session, status: ExitStatus::SUCCESS });
                }
                Some(Err(causes)) => messages.push(FromSupervisor::SessionFailed { session, causes }),
            }
            false
        });
        messages
    }
}

impl Pending {
    /// How it has ended, if it has; the chain of causes if in vain.
    fn advance(
        &mut self,
        apps: &mut Vec<App<'_>>,
        now: Instant,
        goes_on: bool,
    ) -> Option<Result<(), Vec<String>>> {
        let Some(place) = apps.iter().position(|app| app.plan.name == self.app) else {
            return Some(Err(vec![format!("the pod has no app \"{}\"", self.app)]));
        };
        let app = apps.get_mut(place)?;
        match &self.wanted {
            Wanted::Stop | Wanted::Removal(_) => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    app.hold(now);
                }
                if !app.has_ended() {
                    return None;
                }
                let Wanted::Removal(teardown) = &self.wanted else { return Some(Ok(())) };
                let plan = apps.remove(place).plan;
                let removed = cgroup::remove(&plan).and(newcomer::take_out(teardown));
                Some(removed.map_err(|error| causes(&error)))
            }
            Wanted::Start if !goes_on => Some(Err(vec!["the pod ends".into()])),
            // What is about to end can begin again after that.
            Wanted::Start if !self.has_begun && app.is_stopping() => None,
            Wanted::Start => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    app.resume(now);
                }
                match app.has_started() {
                    // Whether it still runs or has ended by now.
                    true => Some(Ok(())),
                    false => app.has_ended().then(|| Err(app.failure().to_vec())),
                }
            }
        }
    }
}
