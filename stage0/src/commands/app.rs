//! `rkt app`: what concerns single apps of a pod.

use std::error::Error;
use std::process::ExitCode;

use pod::abi::AppArguments;
use pod::session::{Action, Change};
use pod::types::AcName;
use uuid::Uuid;

use super::{Outcome, enter, foreign, status, table};
use crate::cli::{AppChoice, Globals, PodChoice, StatusFormat};
use crate::pods::report::AppReport;
use crate::pods::{Pod, Pods, State};
use crate::stage1::{self, Foreign, Running};

/// Why an app cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is not that kind of pod.
    #[error("pod \"{0}\" has the apps that it was started with: only those of rkt app sandbox change")]
    Immutable(Uuid),
    /// The labels of its files are the pod's.
    #[error(
        "app \"{0}\" has an SELinux context, which apps that come into a running pod cannot have: run it in a pod of its own"
    )]
    LateLabel(AcName),
}

/// Prints a pod's apps.
pub fn list(globals: &Globals, choice: &PodChoice, no_legend: bool) -> Outcome {
    let pods = Pods::new(&globals.directory);
    let report = pods.follow(pods.choose(choice)?, Pod::report)?;
    let mut rows = Vec::new();
    rows.extend((!no_legend).then(|| vec!["NAME".to_owned(), "STATE".into()]));
    rows.extend(report.apps.into_iter().map(|app| vec![app.name, app.state.to_owned()]));
    table::write(&mut std::io::stdout().lock(), &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what an app is doing, or has done.
pub fn tell(globals: &Globals, choice: &AppChoice, format: StatusFormat) -> Outcome {
    let (pod, name) = find(globals, choice)?;
    let report = Pods::new(&globals.directory).follow(pod, Pod::report)?;
    let Some(report) = report.apps.into_iter().find(|app| app.name == name) else {
        return Err(enter::Refused::NoApp(name, "no longer".into()).into());
    };
    status::print(format, &report, |out| out.write_all(text(&report).as_bytes()))?;
    Ok(ExitCode::SUCCESS)
}

/// A `key=value` a line.
fn text(app: &AppReport) -> String {
    let mut lines = vec![
        format!("name={}", app.name),
        format!("state={}", app.state),
        format!("image_id={}", app.image_id),
        format!("restarts={}", app.restarts),
    ];
    lines.extend(app.created.map(|time| format!("created_at={}", super::timestamp::timestamp(time))));
    lines.extend(app.started.map(|time| format!("started_at={}", super::timestamp::timestamp(time))));
    lines.extend(app.finished.map(|time| format!("finished_at={}", super::timestamp::timestamp(time))));
    lines.extend(app.exit_code.map(|code| format!("exit_code={code}")));
    lines.join("\n") + "\n"
}

/// Changes an app of a running pod.
pub fn change(globals: &Globals, choice: &AppChoice, action: Action) -> Outcome {
    enter::need_root()?;
    let (pod, name) = find(globals, choice)?;
    // By then its parent can be talked to.
    let (pod, pid) = enter::wait_for_pid(&Pods::new(&globals.directory), pod)?;
    let change = Change { app: name.parse()?, action };
    if let Some(foreign) = Foreign::of_pod(&pod.path)? {
        let running = Running { uuid: pod.uuid, pid, debug: globals.debug };
        return foreign::change(&foreign, running, &pod, &change);
    }
    match stage1::change(&pod.path, pod.uuid, &AppArguments { change })? {}
}

/// Takes an app out of its pod.
pub fn remove(globals: &Globals, choice: &AppChoice) -> Outcome {
    enter::need_root()?;
    let (pod, name) = find(globals, choice)?;
    if !pod.manifest()?.is_mutable() {
        return Err(Refused::Immutable(pod.uuid).into());
    }
    let name: AcName = name.parse()?;
    if let Some(foreign) = Foreign::of_pod(&pod.path)? {
        return foreign::remove(globals, &foreign, pod, &name);
    }
    if pod.state != State::Running {
        pod.remove_app_for_good(&pod.lock_apps()?, &name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (pod, _) = enter::wait_for_pid(&Pods::new(&globals.directory), pod)?;
    let change = Change { app: name.clone(), action: Action::Remove };
    stage1::alter(&pod.path, pod.uuid, &AppArguments { change })?;
    pod.remove_app(&pod.lock_apps()?, &name)?;
    Ok(ExitCode::SUCCESS)
}

fn find(globals: &Globals, choice: &AppChoice) -> Result<(Pod, String), Box<dyn Error>> {
    let pods = Pods::new(&globals.directory);
    pods.follow(pods.choose(&choice.pod)?, |pod| {
        let manifest = pod.manifest()?;
        let app = enter::choose(&manifest.apps, choice.app.as_ref())?;
        Ok((pod.clone(), app.name.to_string()))
    })
}
