//! `rkt status` and `rkt cat-manifest`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use net::PodNetwork;
use net::cni::{Cache, DEFAULT_DIRECTORY};
use pod::abi::PodDirectory;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::statistics::rows;
use super::timestamp::timestamp;
use super::{Outcome, table};
use crate::cli::{Globals, PodChoice, StatusFlags, StatusFormat, Wait};
use crate::pods::report::Report;
use crate::pods::{Pod, Pods, State};
use crate::stage1;

/// How often a wait looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a wait was in vain.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("timed out after {}s: pod \"{uuid}\" {what}", .limit.as_secs_f64())]
    TimedOut { limit: Duration, uuid: uuid::Uuid, what: &'static str },
    #[error("pod \"{}\" is {}, not running: it uses nothing, and has no network", .0.uuid, .0.state)]
    NotRunning(Pod),
    #[error("pod \"{}\" is {} and will not become ready", .0.uuid, .0.state)]
    NeverReady(Pod),
}

/// Prints what a pod is doing, or has done.
pub fn status(globals: &Globals, choice: &PodChoice, flags: StatusFlags) -> Outcome {
    let pods = Pods::new(&globals.directory);
    let pod = pods.choose(choice)?;
    let pod = wait(&pods, pod, flags.wait, "has not ended", |pod| Ok(has_ended(pod)))?;
    let pod = wait(&pods, pod, flags.wait_ready, "is not ready", is_ready)?;
    pods.follow(pod, |pod| {
        if flags.stats {
            return statistics(pod, flags.format);
        }
        if flags.check_networks {
            return check_networks(pod);
        }
        let report = pod.report()?;
        let pid = pod.pid_or_parent()?;
        print(flags.format, &report, |out| out.write_all(text(pod, &report, pid).as_bytes()))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints a report in some form, of which `text` is one.
pub fn print(
    format: StatusFormat,
    report: &impl Serialize,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    match format {
        StatusFormat::Text => text(&mut out)?,
        StatusFormat::Json => writeln!(out, "{}", serde_json::to_string(report)?)?,
        StatusFormat::JsonPretty => writeln!(out, "{}", indented(report)?)?,
    }
    Ok(())
}

fn statistics(pod: &Pod, format: StatusFormat) -> Outcome {
    if pod.state != State::Running {
        return Err(Error::NotRunning(pod.clone()).into());
    }
    let statistics = stage1::statistics(&pod.path, pod.uuid)?;
    print(format, &statistics, |out| table::write(out, &rows(&statistics)))?;
    Ok(ExitCode::SUCCESS)
}

fn check_networks(pod: &Pod) -> Outcome {
    if pod.state != State::Running {
        return Err(Error::NotRunning(pod.clone()).into());
    }
    let networks = PodNetwork::open(&PodDirectory::new(&pod.path).network())?;
    let checked = networks.as_ref().map(|networks| networks.check(Cache::new(DEFAULT_DIRECTORY)));
    for (attachment, checked) in checked.transpose()?.unwrap_or_default() {
        let outcome = if checked { "ok" } else { "unchecked" };
        writeln!(io::stdout(), "network-{}={outcome}", attachment.network.name)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a pod's manifest.
pub fn cat_manifest(globals: &Globals, choice: &PodChoice, pretty: bool) -> Outcome {
    let pods = Pods::new(&globals.directory);
    let manifest = pods.follow(pods.choose(choice)?, Pod::manifest)?;
    let json = if pretty { indented(&manifest)? } else { serde_json::to_string(&manifest)? };
    writeln!(std::io::stdout(), "{json}")?;
    Ok(ExitCode::SUCCESS)
}

/// JSON as upstream indents it: by tabs.
pub fn indented(value: &impl Serialize) -> Result<String, Box<dyn std::error::Error>> {
    let mut json = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"\t");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))?;
    Ok(String::from_utf8(json)?)
}

/// Looks at the pod until `done`; the pod as it is then.
fn wait(
    pods: &Pods,
    mut pod: Pod,
    wait: Wait,
    what: &'static str,
    done: impl Fn(&Pod) -> Result<bool, Error>,
) -> Result<Pod, Box<dyn std::error::Error>> {
    let begin = Instant::now();
    while wait != Wait::No && !done(&pod)? {
        match wait {
            Wait::AtMost(limit) if begin.elapsed() >= limit => {
                return Err(Error::TimedOut { limit, uuid: pod.uuid, what }.into());
            }
            _ => std::thread::sleep(PAUSE),
        }
        pod = pods.look_again(&pod)?;
    }
    Ok(pod)
}

fn has_ended(pod: &Pod) -> bool {
    !matches!(pod.state, State::Embryo | State::Preparing | State::Prepared | State::Running)
}

fn is_ready(pod: &Pod) -> Result<bool, Error> {
    match PodDirectory::new(&pod.path).supervisor_status().is_symlink() {
        true => Ok(true),
        false if has_ended(pod) => Err(Error::NeverReady(pod.clone())),
        false => Ok(false),
    }
}

/// Upstream's form, a `key=value` a line.
fn text(pod: &Pod, report: &Report, pid: Option<u32>) -> String {
    let mut lines = vec![format!("state={}", report.state)];
    lines.extend(report.created.map(|time| format!("created={}", timestamp(time))));
    lines.extend(report.started.map(|time| format!("started={}", timestamp(time))));
    if matches!(pod.state, State::Running | State::Exited) {
        let networks: Vec<String> = report.networks.iter().map(ToString::to_string).collect();
        lines.push(format!("networks={}", networks.join(", ")));
    }
    let exited = matches!(pod.state, State::Exited | State::ExitedDeleting | State::ExitedGarbage);
    if exited || matches!(pod.state, State::Running | State::Deleting) {
        lines.extend(pid.map(|pid| format!("pid={pid}")));
        lines.push(format!("exited={exited}"));
    }
    let restarted = report.apps.iter().filter(|app| app.restarts > 0);
    lines.extend(restarted.map(|app| format!("restarts-{}={}", app.name, app.restarts)));
    if pod.state != State::Running {
        let ended = report.apps.iter().filter_map(|app| Some((&app.name, app.exit_code?)));
        lines.extend(ended.map(|(name, code)| format!("app-{name}={code}")));
    }
    let killed = report.apps.iter().filter_map(|app| Some((&app.name, app.oom_kills?)));
    lines.extend(killed.map(|(name, kills)| format!("oom-kills-{name}={kills}")));
    lines.join("\n") + "\n"
}
