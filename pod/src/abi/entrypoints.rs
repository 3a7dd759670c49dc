//! The arguments of the entrypoints that concern a running pod (stage1 implementor's guide, "rkt enter", "rkt stop").

use uuid::Uuid;

use crate::Error;
use crate::attach::{AttachMode, Endpoints};
use crate::forward::Forward;
use crate::session::Change;
use crate::types::AcName;

/// The arguments of the `stop` entrypoint: `[--force] UUID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopArguments {
    /// At once, not in an orderly way.
    pub force: bool,
    /// The pod.
    pub uuid: Uuid,
}

impl StopArguments {
    /// Without the entrypoint itself.
    pub fn to_arguments(self) -> Vec<String> {
        let force = self.force.then(|| "--force".to_owned());
        force.into_iter().chain([self.uuid.to_string()]).collect()
    }

    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let (mut force, mut uuid) = (false, None);
        for argument in arguments {
            match argument.as_str() {
                "--force" => force = true,
                text if !text.starts_with('-') && uuid.is_none() => {
                    uuid = Some(text.parse().map_err(|_| Error::syntax(text, "a pod's UUID"))?);
                }
                _ => return Err(Error::Unsupported(format!("argument {argument} of stop"))),
            }
        }
        let uuid = uuid.ok_or_else(|| Error::Invalid("the pod's UUID is missing".into()))?;
        Ok(Self { force, uuid })
    }
}

/// The arguments of the `stats` entrypoint, which is ours: `UUID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsArguments {
    /// The pod.
    pub uuid: Uuid,
}

impl StatsArguments {
    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        match StopArguments::parse(arguments)? {
            StopArguments { force: false, uuid } => Ok(Self { uuid }),
            StopArguments { force: true, .. } => Err(Error::Unsupported("argument --force of stats".into())),
        }
    }
}

/// The arguments of the `enter` entrypoint: `--pid=N --appname=NAME [--privileged] -- COMMAND [ARGS...]`, of which `--privileged` is
/// ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnterArguments {
    /// What the pod's `pid` file says. Our stage1s are told by the pod's own socket whom they talk to.
    pub pid: u32,
    /// The app.
    pub app: AcName,
    /// As root, with nothing that confines the app.
    pub privileged: bool,
    /// The program and its arguments; not empty.
    pub command: Vec<String>,
}

impl EnterArguments {
    /// Without the entrypoint itself.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--pid={}", self.pid), format!("--appname={}", self.app)];
        arguments.extend(self.privileged.then(|| "--privileged".to_owned()));
        arguments.push("--".into());
        arguments.extend(self.command.iter().cloned());
        arguments
    }

    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut arguments = arguments.into_iter();
        let (mut pid, mut app, mut privileged) = (None, None, false);
        for argument in arguments.by_ref() {
            match argument.split_once('=') {
                Some(("--pid", text)) => {
                    pid = Some(text.parse().map_err(|_| Error::syntax(text, "a process's number"))?);
                }
                Some(("--appname", text)) => app = Some(text.parse()?),
                None if argument == "--privileged" => privileged = true,
                None if argument == "--" => break,
                _ => return Err(Error::Unsupported(format!("argument {argument} of enter"))),
            }
        }
        let missing = |what: &str| Error::Invalid(format!("{what} is missing"));
        let command: Vec<String> = arguments.collect();
        Ok(Self {
            pid: pid.ok_or_else(|| missing("--pid"))?,
            app: app.ok_or_else(|| missing("--appname"))?,
            privileged,
            command: if command.is_empty() { return Err(missing("the command")) } else { command },
        })
    }
}

/// The arguments of the `app` entrypoint: `start|stop|add|rm --appname=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppArguments {
    /// What is to change.
    pub change: Change,
}

impl AppArguments {
    /// Without the entrypoint itself.
    pub fn to_arguments(&self) -> Vec<String> {
        vec![self.change.action.to_string(), format!("--appname={}", self.change.app)]
    }

    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let arguments: Vec<String> = arguments.into_iter().collect();
        let [action, app] = arguments.as_slice() else {
            return Err(Error::Invalid("app takes an action and --appname=NAME".into()));
        };
        let unknown = || Error::Unsupported(format!("argument {app} of app"));
        let app = app.strip_prefix("--appname=").ok_or_else(unknown)?.parse()?;
        Ok(Self { change: Change { app, action: action.parse()? } })
    }
}

/// The arguments of the `port-forward` entrypoint, which is ours: `[--debug] UUID FORWARD...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardArguments {
    /// Whether each connection is told.
    pub debug: bool,
    /// The pod.
    pub uuid: Uuid,
    /// Not empty.
    pub forwards: Vec<Forward>,
}

impl PortForwardArguments {
    /// Without the entrypoint itself.
    pub fn to_arguments(&self) -> Vec<String> {
        let debug = self.debug.then(|| "--debug".to_owned());
        let forwards = self.forwards.iter().map(Forward::to_string);
        debug.into_iter().chain([self.uuid.to_string()]).chain(forwards).collect()
    }

    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut arguments = arguments.into_iter().peekable();
        let debug = arguments.next_if(|argument| argument == "--debug").is_some();
        let missing = |what: &str| Error::Invalid(format!("{what} is missing"));
        let uuid = arguments.next().ok_or_else(|| missing("the pod's UUID"))?;
        let uuid = uuid.parse().map_err(|_| Error::syntax(&uuid, "a pod's UUID"))?;
        let forwards = arguments.map(|text| text.parse()).collect::<Result<Vec<Forward>, Error>>()?;
        if forwards.is_empty() {
            return Err(missing("the port"));
        }
        Ok(Self { debug, uuid, forwards })
    }
}

/// The arguments of the `export` entrypoint, which is ours: `--appname=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportArguments {
    /// The app.
    pub app: AcName,
}

impl ExportArguments {
    /// Without the entrypoint itself.
    pub fn to_arguments(&self) -> Vec<String> {
        vec![format!("--appname={}", self.app)]
    }

    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let arguments: Vec<String> = arguments.into_iter().collect();
        match arguments.as_slice() {
            [app] => app.strip_prefix("--appname=").and_then(|app| app.parse().ok()).map(|app| Self { app }),
            _ => None,
        }
        .ok_or_else(|| Error::Invalid("export takes --appname=NAME".into()))
    }
}

/// The arguments of the `attach` entrypoint: `--action=list|auto-attach|custom-attach --app=NAME --debug=BOOL`, and with
/// `custom-attach` a `--tty-in=BOOL`, `--stdin=BOOL`, ... for each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachArguments {
    /// To what.
    pub mode: AttachMode,
    /// The app.
    pub app: AcName,
}

impl AttachArguments {
    /// Without the entrypoint itself.
    pub fn to_arguments(&self) -> Vec<String> {
        let (action, endpoints) = match self.mode {
            AttachMode::List => ("list", None),
            AttachMode::Auto => ("auto-attach", None),
            AttachMode::Chosen(endpoints) => ("custom-attach", Some(endpoints.named())),
        };
        let head = [format!("--action={action}"), format!("--app={}", self.app), "--debug=false".to_owned()];
        let named = endpoints.into_iter().flatten().map(|(name, on)| format!("--{name}={on}"));
        head.into_iter().chain(named).collect()
    }

    /// From a stage1's command line, without the entrypoint itself.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let (mut action, mut app, mut endpoints) = (None, None, Endpoints::default());
        for argument in arguments {
            let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
            let on = || value.parse().map_err(|_| Error::syntax(value, "true or false"));
            match name {
                "--action" => action = Some(value.to_owned()),
                "--app" => app = Some(value.parse()?),
                // There is nothing more to say.
                "--debug" => drop::<bool>(on()?),
                "--tty-in" => endpoints.tty_in = on()?,
                "--tty-out" => endpoints.tty_out = on()?,
                "--stdin" => endpoints.stdin = on()?,
                "--stdout" => endpoints.stdout = on()?,
                "--stderr" => endpoints.stderr = on()?,
                _ => return Err(Error::Unsupported(format!("argument {argument} of attach"))),
            }
        }
        let mode = match action.as_deref() {
            Some("list") => AttachMode::List,
            Some("auto-attach") => AttachMode::Auto,
            Some("custom-attach") => AttachMode::Chosen(endpoints),
            _ => return Err(Error::Invalid("--action is none of list, auto-attach, custom-attach".into())),
        };
        Ok(Self { mode, app: app.ok_or_else(|| Error::Invalid("--app is missing".into()))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Action;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn stop() {
        let uuid = Uuid::from_u128(7);
        for arguments in [StopArguments { force: true, uuid }, StopArguments { force: false, uuid }] {
            assert_eq!(StopArguments::parse(arguments.to_arguments()).unwrap(), arguments);
        }
        for bad in ["", "--force", "x", "--now 00000000-0000-0000-0000-000000000007"] {
            assert!(StopArguments::parse(words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn app() {
        for action in Action::ALL {
            let arguments = AppArguments { change: Change { app: "web".parse().unwrap(), action } };
            assert_eq!(AppArguments::parse(arguments.to_arguments()).unwrap(), arguments);
        }
        for bad in ["", "start", "start web", "pause --appname=web", "stop --appname=W", "stop --appname=a x"]
        {
            assert!(AppArguments::parse(words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn export() {
        let arguments = ExportArguments { app: "web".parse().unwrap() };
        assert_eq!(ExportArguments::parse(arguments.to_arguments()).unwrap(), arguments);
        for bad in ["", "web", "--appname=W", "--appname=a --appname=b"] {
            assert!(ExportArguments::parse(words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_forward() {
        for debug in [false, true] {
            let forwards = vec!["8080:80".parse().unwrap(), "[::1]:0:53".parse().unwrap()];
            let arguments = PortForwardArguments { debug, uuid: Uuid::from_u128(7), forwards };
            assert_eq!(PortForwardArguments::parse(arguments.to_arguments()).unwrap(), arguments);
        }
        let uuid = Uuid::from_u128(7);
        for bad in [
            "".to_owned(),
            "80:80".into(),
            uuid.to_string(),
            format!("{uuid} x"),
            format!("{uuid} --debug 1:1"),
        ] {
            assert!(PortForwardArguments::parse(words(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn attach() {
        for mode in ["list", "auto", "tty", "tty-out", "stdin,stderr"] {
            let arguments = AttachArguments { mode: mode.parse().unwrap(), app: "web".parse().unwrap() };
            assert_eq!(AttachArguments::parse(arguments.to_arguments()).unwrap(), arguments);
        }
        for bad in [
            "",
            "--action=list",
            "--app=web",
            "--action=x --app=web",
            "--action=list --app=web --stdin=x",
            "x",
        ] {
            assert!(AttachArguments::parse(words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn enter() {
        let arguments = EnterArguments {
            pid: 7,
            app: "web".parse().unwrap(),
            privileged: true,
            command: words("ls -- --pid=8"),
        };
        assert_eq!(EnterArguments::parse(arguments.to_arguments()).unwrap(), arguments);
        for bad in [
            "--pid=7 --appname=web",
            "--pid=7 --appname=web --",
            "--pid=7 -- ls",
            "--appname=web -- ls",
            "--pid=x --appname=web -- ls",
            "--pid=7 --appname=WEB -- ls",
            "--pid=7 --appname=web ls",
        ] {
            assert!(EnterArguments::parse(words(bad)).is_err(), "{bad}");
        }
    }
}
