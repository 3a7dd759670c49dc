//! What the parent wants to become of apps while the pod runs, until it is so.

use std::time::Instant;

use pod::control::{ExitStatus, FromSupervisor};
use pod::session::{Action, Change, SessionId};

use crate::app::App;

/// The changes that are under way.
#[derive(Debug, Default)]
pub struct Changes {
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    session: SessionId,
    change: Change,
    /// Whether the app knows of it.
    has_begun: bool,
}

impl Changes {
    /// Takes a change on; [`Self::advance`] begins it.
    pub fn add(&mut self, session: SessionId, change: Change) {
        self.pending.push(Pending { session, change, has_begun: false });
    }

    /// Goes on with every change; what the parent is to be told of those that are made by now, or will not be. No app is
    /// started unless the pod goes on.
    pub fn advance(&mut self, apps: &mut [App<'_>], now: Instant, goes_on: bool) -> Vec<FromSupervisor> {
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
        apps: &mut [App<'_>],
        now: Instant,
        goes_on: bool,
    ) -> Option<Result<(), Vec<String>>> {
        let name = &self.change.app;
        let Some(app) = apps.iter_mut().find(|app| app.plan.name == *name) else {
            return Some(Err(vec![format!("the pod has no app \"{name}\"")]));
        };
        match self.change.action {
            Action::Stop => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    app.hold(now);
                }
                app.has_ended().then_some(Ok(()))
            }
            Action::Start if !goes_on => Some(Err(vec!["the pod ends".into()])),
            // What is about to end can begin again after that.
            Action::Start if !self.has_begun && app.is_stopping() => None,
            Action::Start => {
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
