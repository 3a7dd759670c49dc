//! `rkt enter`, `rkt attach` and `rkt port-forward`: find out what is meant, then become the stage1's client.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use pod::abi::{AttachArguments, EnterArguments, PortForwardArguments};
use pod::pod_manifest::RuntimeApp;
use pod::types::AcName;
use uuid::Uuid;

use crate::cli::{AttachFlags, EnterFlags, Globals, PodChoice, PortForwardFlags};
use crate::pods::{Pod, Pods, State};
use crate::stage1::{self, Running};

/// How often a pod that has just begun is looked at.
const PAUSE: Duration = Duration::from_millis(100);
/// What runs where the app's environment has no SHELL.
const SHELL: &str = "/bin/sh";

/// Why a pod cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("cannot run as unprivileged user: to enter a pod, to attach or to connect to one is for root")]
    Unprivileged,
    #[error("pod \"{0}\" is {1}, not running")]
    NotRunning(Uuid, State),
    #[error("the pod has several apps, name one with --app: {0}")]
    WhichApp(String),
    #[error("the pod has no apps")]
    NoApps,
    #[error("the pod has no app \"{0}\"; it has {1}")]
    NoApp(String, String),
}

/// An error for everybody but root.
pub fn need_root() -> Result<(), Refused> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Refused::Unprivileged) }
}

/// Runs a command in an app; returns only if that fails.
pub fn enter(globals: &Globals, flags: &EnterFlags) -> Result<Infallible, Box<dyn Error>> {
    need_root()?;
    let pods = Pods::new(&globals.directory);
    pods.follow(pods.find(&flags.uuid)?, |pod| {
        let (pod, pid) = wait_for_pid(&pods, pod.clone())?;
        let manifest = pod.manifest()?;
        let app = choose(&manifest.apps, flags.app.as_ref())?;
        let command = match flags.command.as_slice() {
            [] => vec![shell(app)],
            command => command.to_vec(),
        };
        let arguments = EnterArguments { pid, app: app.name.clone(), privileged: flags.privileged, command };
        Ok(stage1::enter(&pod.path, pod.uuid, &arguments)?)
    })
}

/// Attaches to an app; returns only if that fails.
pub fn attach(
    globals: &Globals,
    choice: &PodChoice,
    flags: &AttachFlags,
) -> Result<Infallible, Box<dyn Error>> {
    need_root()?;
    let pods = Pods::new(&globals.directory);
    pods.follow(pods.choose(choice)?, |pod| {
        let (pod, pid) = wait_for_pid(&pods, pod.clone())?;
        let manifest = pod.manifest()?;
        let app = choose(&manifest.apps, flags.app.as_ref())?.name.clone();
        let running = Running { uuid: pod.uuid, pid, debug: globals.debug };
        Ok(stage1::attach(&pod.path, running, &AttachArguments { mode: flags.mode, app })?)
    })
}

/// Forwards ports into a pod; returns only if that fails.
pub fn port_forward(globals: &Globals, flags: &PortForwardFlags) -> Result<Infallible, Box<dyn Error>> {
    need_root()?;
    let pods = Pods::new(&globals.directory);
    pods.follow(pods.find(&flags.uuid)?, |pod| {
        let (pod, _) = wait_for_pid(&pods, pod.clone())?;
        let arguments =
            PortForwardArguments { debug: globals.debug, uuid: pod.uuid, forwards: flags.forwards.clone() };
        Ok(stage1::port_forward(&pod.path, pod.uuid, &arguments)?)
    })
}

/// A pod can be entered as soon as it has told whom to enter (stage1 ABI).
pub fn wait_for_pid(pods: &Pods, mut pod: Pod) -> Result<(Pod, u32), Box<dyn Error>> {
    loop {
        if pod.state != State::Running {
            return Err(Refused::NotRunning(pod.uuid, pod.state).into());
        }
        if let Some(pid) = pod.pid()? {
            return Ok((pod, pid));
        }
        std::thread::sleep(PAUSE);
        pod = pods.look_again(&pod)?;
    }
}

pub fn choose<'a>(apps: &'a [RuntimeApp], wanted: Option<&AcName>) -> Result<&'a RuntimeApp, Refused> {
    let names = || match apps {
        [] => "none".to_owned(),
        apps => apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    match (wanted, apps) {
        (None, []) => Err(Refused::NoApps),
        (None, [only]) => Ok(only),
        (None, _) => Err(Refused::WhichApp(names())),
        (Some(name), apps) => {
            apps.iter().find(|app| app.name == *name).ok_or_else(|| Refused::NoApp(name.to_string(), names()))
        }
    }
}

/// The shell of the app's environment.
fn shell(app: &RuntimeApp) -> String {
    let mut variables = app.app.iter().flat_map(|section| &section.environment);
    let shell = variables.rfind(|variable| variable.name == "SHELL");
    shell.map(|variable| variable.value.clone()).filter(|shell| !shell.is_empty()).unwrap_or(SHELL.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps(names: &[&str]) -> Vec<RuntimeApp> {
        let app = |name: &&str| {
            serde_json::from_value(serde_json::json!({
                "name": name, "image": {"id": format!("sha512-{}", "0".repeat(64))},
                "app": {"exec": ["/a"], "user": "0", "group": "0",
                    "environment": [{"name": "SHELL", "value": format!("/bin/{name}")}]}
            }))
        };
        names.iter().map(app).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn which_app() {
        let (one, two) = (apps(&["a"]), apps(&["a", "b"]));
        let b: AcName = "b".parse().unwrap();
        assert_eq!(choose(&one, None).unwrap().name.as_str(), "a");
        assert_eq!(choose(&two, Some(&b)).unwrap().name.as_str(), "b");
        assert!(choose(&two, None).unwrap_err().to_string().ends_with("a, b"));
        assert!(choose(&one, Some(&b)).is_err());
    }

    #[test]
    fn which_shell() {
        let mut app = apps(&["zsh"]).remove(0);
        assert_eq!(shell(&app), "/bin/zsh");
        app.app = None;
        assert_eq!(shell(&app), "/bin/sh");
    }
}
