//! An OCI configuration as an appc image manifest.
//!
//! What appc cannot say is left out: labels whose names are no AC Identifiers, environment variables without a proper
//! name, malformed ports and stop signals, and the health check.

use std::collections::BTreeMap;

use pod::image_manifest::{App, EnvironmentVariable, ImageManifest, MountPoint, NameValue, Port};
use pod::life::KillSignal;
use pod::life::annotations::KILL_SIGNAL;
use pod::pod_manifest::AC_VERSION;
use pod::types::{AcIdentifier, AcName};

use super::spec::{Config, Execution};
use super::user::Accounts;
use crate::image::error::Error;
use crate::image::reference::Reference;
use crate::image::{ARCHITECTURE, DEFAULT_ARGUMENTS_ANNOTATION};

/// The manifest of an image for this machine ([`Config::check_platform`]).
pub fn manifest(config: &Config, reference: &Reference, accounts: &Accounts) -> Result<ImageManifest, Error> {
    let mut labels = vec![("os", "linux"), ("arch", ARCHITECTURE)];
    labels.extend(reference.version.as_deref().map(|version| ("version", version)));
    let execution = config.config.as_ref();
    let empty = BTreeMap::new();
    let oci_labels = execution.and_then(|execution| execution.labels.as_ref()).unwrap_or(&empty);
    let default_arguments = execution.and_then(default_arguments);
    let default_arguments = default_arguments.as_deref().map(|json| (DEFAULT_ARGUMENTS_ANNOTATION, json));
    let stop_signal = execution.and_then(stop_signal);
    let stop_signal = stop_signal.as_deref().map(|signal| (KILL_SIGNAL, signal));
    let created = config.created.as_deref().map(|created| ("created", created));
    let annotations = oci_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let manifest = ImageManifest {
        ac_kind: "ImageManifest".into(),
        ac_version: AC_VERSION.into(),
        name: reference.name.clone(),
        labels: named(labels),
        app: Some(app(execution.unwrap_or(&Execution::default()), accounts)),
        dependencies: Vec::new(),
        path_whitelist: Vec::new(),
        annotations: named(
            annotations
                .filter(|(name, _)| !matches!(*name, "created" | DEFAULT_ARGUMENTS_ANNOTATION | KILL_SIGNAL))
                .chain(created)
                .chain(stop_signal)
                .chain(default_arguments),
        ),
    };
    // One check for all images, so that nothing of this gets past it.
    let json =
        serde_json::to_vec(&manifest).map_err(|source| Error::Json { what: "manifest".into(), source })?;
    ImageManifest::parse(&json).map_err(Error::Manifest)
}

/// The arguments that others may replace, as a JSON array: with an entrypoint, `Cmd` (OCI image spec, "config.Cmd");
/// without one, `Cmd` is the command itself.
fn default_arguments(execution: &Execution) -> Option<String> {
    execution.entrypoint.as_ref().filter(|entrypoint| !entrypoint.is_empty())?;
    serde_json::to_string(execution.cmd.as_deref().filter(|cmd| !cmd.is_empty())?).ok()
}

/// The app's default kill signal (OCI image spec, "config.StopSignal").
fn stop_signal(execution: &Execution) -> Option<String> {
    execution.stop_signal.as_deref()?.parse().ok().map(|signal: KillSignal| signal.to_string())
}

fn app(execution: &Execution, accounts: &Accounts) -> App {
    let identity = accounts.identity(execution.user.as_deref().unwrap_or_default());
    let command = [&execution.entrypoint, &execution.cmd].into_iter().flatten().flatten();
    App {
        exec: command.cloned().collect(),
        user: identity.user,
        group: identity.group,
        supplementary_gids: identity.supplementary_gids,
        working_directory: execution.working_dir.as_deref().filter(|dir| !dir.is_empty()).map(absolute),
        environment: environment(execution.env.as_deref().unwrap_or_default()),
        event_handlers: Vec::new(),
        isolators: Vec::new(),
        mount_points: execution.volumes.iter().flatten().fold(Vec::new(), |mut points, (path, _)| {
            let name = AcName::sanitise(&format!("volume-{path}"));
            if let Some(name) = name.filter(|name| points.iter().all(|p: &MountPoint| p.name != *name)) {
                points.push(MountPoint { name, path: absolute(path), read_only: false });
            }
            points
        }),
        ports: execution.exposed_ports.iter().flatten().filter_map(|(port, _)| parse_port(port)).collect(),
        user_annotations: BTreeMap::new(),
        user_labels: BTreeMap::new(),
    }
}

fn named<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<NameValue> {
    let pair = |(name, value): (&str, &str)| {
        Some(NameValue { name: name.parse::<AcIdentifier>().ok()?, value: value.to_owned() })
    };
    pairs.into_iter().filter_map(pair).collect()
}

fn absolute(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// `NAME=VALUE`; of several of one name the last counts, as in an environment.
fn environment(variables: &[String]) -> Vec<EnvironmentVariable> {
    let mut environment: Vec<EnvironmentVariable> = Vec::new();
    for (name, value) in variables.iter().filter_map(|variable| variable.split_once('=')) {
        if pod::image_manifest::check_variable_name(name).is_ok() {
            environment.retain(|variable| variable.name != name);
            environment.push(EnvironmentVariable { name: name.into(), value: value.into() });
        }
    }
    environment
}

/// `PORT[-LAST][/PROTOCOL]`.
fn parse_port(text: &str) -> Option<Port> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    if first == 0 || last < first || !matches!(protocol, "tcp" | "udp") {
        return None;
    }
    Some(Port {
        name: AcName::sanitise(text)?,
        protocol: protocol.into(),
        port: first,
        count: u32::from(last - first) + 1,
        socket_activated: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(execution: &str) -> ImageManifest {
        let json = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":[]}},"config":{execution}}}"#
        );
        let config: Config = serde_json::from_str(&json).unwrap();
        let reference = Reference::parse(Some("example.com/app:v1"), "x").unwrap();
        manifest(&config, &reference, &Accounts::default()).unwrap()
    }

    #[test]
    fn everything() {
        let manifest = convert(
            r#"{"User":"7","Entrypoint":["/e","-x"],"Cmd":["c"],"WorkingDir":"srv","Env":["A=1","B=","A=2","1=x","C"],
            "Labels":{"maintainer":"me","Bad Name":"x"},"ExposedPorts":{"80/tcp":{},"8000-8001/udp":{},"x":{}},
            "Volumes":{"/data":{}}}"#,
        );
        assert_eq!((manifest.name.as_str(), manifest.label("version")), ("example.com/app", Some("v1")));
        manifest.check_platform("amd64").unwrap();
        let annotations: Vec<_> =
            manifest.annotations.iter().map(|a| (a.name.as_str(), a.value.as_str())).collect();
        assert_eq!(annotations, [("maintainer", "me"), (DEFAULT_ARGUMENTS_ANNOTATION, r#"["c"]"#)]);
        let app = manifest.app.unwrap();
        assert_eq!(app.exec, ["/e", "-x", "c"]);
        assert_eq!((app.user.as_str(), app.group.as_str()), ("7", "7"));
        assert_eq!(app.working_directory.as_deref(), Some("/srv"));
        let environment: Vec<_> = app.environment.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
        assert_eq!(environment, ["B=", "A=2"]);
        let ports: Vec<_> = app.ports.iter().map(|p| (p.name.as_str(), p.port, p.count)).collect();
        assert_eq!(ports, [("80-tcp", 80, 1), ("8000-8001-udp", 8000, 2)]);
        assert_eq!(app.mount_points[0].path, "/data");
    }

    #[test]
    fn stop_signals() {
        let signal = |execution: &str| {
            let annotations = convert(execution).annotations;
            annotations.into_iter().find(|a| a.name.as_str() == KILL_SIGNAL).map(|a| a.value)
        };
        assert_eq!(signal(r#"{"StopSignal":"SIGRTMIN+3"}"#).as_deref(), Some("SIGRTMIN+3"));
        assert_eq!(signal(r#"{"StopSignal":"3"}"#).as_deref(), Some("SIGQUIT"));
        for none in
            [r#"{"StopSignal":"x"}"#, r#"{"StopSignal":null,"Labels":{"rkt/app/kill-signal":"SIGINT"}}"#]
        {
            assert_eq!(signal(none), None, "{none}");
        }
    }

    #[test]
    fn nulls_and_nothing() {
        let manifest = convert(r#"{"Entrypoint":null,"Cmd":null,"Env":null,"User":"","WorkingDir":""}"#);
        let app = manifest.app.unwrap();
        assert!(app.exec.is_empty() && app.working_directory.is_none());
        assert_eq!((app.user.as_str(), app.group.as_str()), ("0", "0"));
        assert!(convert("null").app.is_some());
        assert!(convert(r#"{"Cmd":["/c"]}"#).annotations.is_empty(), "the command, not its arguments");
    }
}
