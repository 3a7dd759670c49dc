//! The manifest of a new pod: the images' manifests with the command line's changes.

use std::collections::BTreeMap;

use pod::image_manifest::{App, ImageManifest, NameValue, Port};
use pod::isolator::{RawIsolator, names};
use pod::life::{ExitPolicy, Restart, annotations};
use pod::plan::NOTIFY_ANNOTATION;
use pod::pod_manifest::{ANNOTATION_MUTABLE, PodManifest, RuntimeApp, RuntimeImage};
use pod::ports::Protocol;
use pod::streams::{
    ANNOTATION_LOG_MAX_FILES, ANNOTATION_LOG_MAX_SIZE, ANNOTATION_STDERR, ANNOTATION_STDIN, ANNOTATION_STDOUT,
};
use pod::types::{AcName, ImageId};
use pod::volumes::{Mount, clean};
use serde_json::json;

use super::Error;
use super::environment::{PodEnvironment, check_names, check_unique};
use crate::cli::{AppArguments, AppFlags, NoteFlags, PodFlags};
use crate::image::{ARCHITECTURE, DEFAULT_ARGUMENTS_ANNOTATION};

/// The annotations of an image that are defaults of its apps.
const OF_IMAGE: [&str; 2] = [NOTIFY_ANNOTATION, annotations::KILL_SIGNAL];

/// An app's image as far as the manifest needs it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The image's ID.
    pub id: &'a ImageId,
    /// Its manifest.
    pub manifest: &'a ImageManifest,
}

/// The manifest of a pod of these apps; `mounts` are for all of them.
pub fn generate(
    apps: &[(Source<'_>, &AppArguments)],
    flags: &PodFlags,
    environment: &PodEnvironment,
    mounts: &[Mount],
) -> Result<PodManifest, Error> {
    let apps = apps.iter().map(|(source, arguments)| runtime_app(*source, arguments, environment, mounts));
    let mut manifest = PodManifest::new(apps.collect::<Result<_, _>>()?);
    manifest.ports = flags.port.clone();
    manifest.volumes = flags.volume.clone();
    manifest.isolators = flags.isolators.iter().chain(&flags.disk_space).cloned().collect();
    if flags.exit_policy != ExitPolicy::default() {
        manifest.annotations.push(annotation(annotations::EXIT_POLICY, flags.exit_policy)?);
    }
    if flags.mutable {
        manifest.annotations.push(annotation(ANNOTATION_MUTABLE, true)?);
    }
    check_annotations(&flags.annotation)?;
    add(&mut manifest.annotations, &flags.annotation);
    (manifest.user_annotations, manifest.user_labels) = notes(&flags.notes)?;
    manifest.check()?;
    Ok(manifest)
}

/// An app's own mounts, which win, and those of all apps.
fn merged(own: &[Mount], of_all: &[Mount]) -> Result<Vec<Mount>, Error> {
    let mut merged = own.to_vec();
    let paths = own.iter().map(|mount| clean(&mount.path)).collect::<Result<Vec<_>, _>>()?;
    for mount in of_all {
        let path = clean(&mount.path)?;
        if !paths.contains(&path) {
            merged.push(mount.clone());
        }
    }
    Ok(merged)
}

/// One app of the pod; also tells whether an image can be run at all with these arguments.
pub fn runtime_app(
    source: Source<'_>,
    arguments: &AppArguments,
    environment: &PodEnvironment,
    mounts: &[Mount],
) -> Result<RuntimeApp, Error> {
    let image = source.manifest;
    image.check_platform(ARCHITECTURE)?;
    Ok(RuntimeApp {
        name: app_name(image, arguments)?,
        image: RuntimeImage {
            id: source.id.clone(),
            name: Some(image.name.clone()),
            labels: image.labels.clone(),
        },
        app: Some(app(image, arguments, environment)?),
        read_only_root_fs: arguments.flags.readonly_rootfs,
        mounts: merged(&[&arguments.flags.mount[..], &arguments.flags.mnt_volume].concat(), mounts)?,
        annotations: annotations(image, &arguments.flags)?,
    })
}

/// What flags say of an app's life; of all that is not said, stage1 knows the default.
fn life(flags: &AppFlags) -> Result<Vec<NameValue>, Error> {
    let mut life = Vec::new();
    if flags.restart != Restart::No {
        life.push(annotation(annotations::RESTART, flags.restart)?);
    }
    if let Some(signal) = flags.kill_signal {
        life.push(annotation(annotations::KILL_SIGNAL, signal)?);
    }
    if let Some(timeout) = flags.kill_timeout {
        life.push(annotation(annotations::KILL_TIMEOUT_MS, timeout.as_millis())?);
    }
    Ok(life)
}

fn annotation(name: &str, value: impl ToString) -> Result<NameValue, Error> {
    Ok(NameValue { name: name.parse()?, value: value.to_string() })
}

fn check_annotations(annotations: &[NameValue]) -> Result<(), Error> {
    check_names(annotations.iter().map(|annotation| annotation.name.as_str()), "--annotation")
}

/// A user's annotations and labels.
type Notes = (BTreeMap<String, String>, BTreeMap<String, String>);

/// What the user has noted.
fn notes(flags: &NoteFlags) -> Result<Notes, Error> {
    let map = |pairs: &[(String, String)], flag| {
        check_names(pairs.iter().map(|(name, _)| name.as_str()), flag)?;
        Ok::<_, Error>(pairs.iter().cloned().collect())
    };
    Ok((map(&flags.user_annotation, "--user-annotation")?, map(&flags.user_label, "--user-label")?))
}

/// What the command line says, and of the image what is about how it runs.
fn annotations(image: &ImageManifest, flags: &AppFlags) -> Result<Vec<NameValue>, Error> {
    check_annotations(&flags.annotation)?;
    let mut all = [life(flags)?, stream_annotations(flags)?].concat();
    add(&mut all, &flags.annotation);
    add_annotations_of(image, &mut all);
    Ok(all)
}

/// Adds what an image says about how it runs, where nobody has said it.
pub fn add_annotations_of(image: &ImageManifest, all: &mut Vec<NameValue>) {
    add(all, image.annotations.iter().filter(|of| OF_IMAGE.contains(&of.name.as_str())));
}

fn add<'a>(all: &mut Vec<NameValue>, more: impl IntoIterator<Item = &'a NameValue>) {
    for annotation in more {
        if !all.iter().any(|known| known.name == annotation.name) {
            all.push(annotation.clone());
        }
    }
}

/// What the command line says of the app's streams.
fn stream_annotations(flags: &AppFlags) -> Result<Vec<NameValue>, Error> {
    let said = [
        (ANNOTATION_STDIN, flags.stdin.map(|mode| mode.to_string())),
        (ANNOTATION_STDOUT, flags.stdout.map(|mode| mode.to_string())),
        (ANNOTATION_STDERR, flags.stderr.map(|mode| mode.to_string())),
        (ANNOTATION_LOG_MAX_SIZE, flags.log_max_size.map(|bytes| bytes.to_string())),
        (ANNOTATION_LOG_MAX_FILES, flags.log_max_files.map(|files| files.to_string())),
    ];
    said.into_iter().filter_map(|(name, value)| Some(annotation(name, value?))).collect()
}

/// What `--name` says, or the last part of the image's name.
fn app_name(image: &ImageManifest, arguments: &AppArguments) -> Result<AcName, Error> {
    if let Some(name) = &arguments.flags.name {
        return Ok(name.clone());
    }
    let name = image.name.as_str();
    let last = name.rsplit('/').next().unwrap_or(name);
    AcName::sanitise(last).ok_or_else(|| Error::NoAppName(name.into()))
}

fn app(image: &ImageManifest, arguments: &AppArguments, environment: &PodEnvironment) -> Result<App, Error> {
    let flags = &arguments.flags;
    check_unique(&flags.environment, "--environment")?;
    let mut app = image.app.clone().unwrap_or_else(root_app);
    if let Some(exec) = &flags.exec {
        app.exec = vec![exec.clone()];
    }
    if app.exec.is_empty() {
        return Err(Error::App {
            app: app_name(image, arguments)?.to_string(),
            image: arguments.image.clone(),
            what: match image.app {
                Some(_) => "the image has an empty \"exec\" (try --exec=BINARY)".into(),
                None => "the image has no app section (try --exec=BINARY)".into(),
            },
        });
    }
    if flags.exec.is_none() && !arguments.arguments.is_empty() {
        drop_default_arguments(image, &mut app.exec);
    }
    app.exec.extend(arguments.arguments.iter().cloned());
    if let Some(user) = &flags.user {
        app.user = user.clone();
    }
    if let Some(group) = &flags.group {
        app.group = group.clone();
    }
    if !flags.supplementary_gids.is_empty() {
        app.supplementary_gids = flags.supplementary_gids.clone();
    }
    if let Some(directory) = &flags.working_dir {
        app.working_directory = Some(directory.clone());
    }
    environment.apply(&mut app.environment, &flags.environment);
    for (protocol, port) in &flags.socket_activated {
        activate(&mut app.ports, *protocol, *port)?;
    }
    // The last isolator of a kind wins.
    let limits = [("resource/cpu", flags.cpu), ("resource/memory", flags.memory)];
    app.isolators
        .extend(limits.into_iter().filter_map(|(name, limit)| Some(RawIsolator::of_limit(name, limit?))));
    let others = [
        &flags.cpu_shares,
        &flags.pids,
        &flags.apparmor_profile,
        &flags.selinux_context,
        &flags.landlock,
        &flags.oom_score_adj,
    ];
    app.isolators.extend(others.into_iter().flatten().cloned());
    let capabilities = flags.caps_retain.as_ref().or(flags.caps_remove.as_ref());
    replace(&mut app.isolators, &[names::CAPABILITIES_RETAIN, names::CAPABILITIES_REMOVE], capabilities);
    replace(&mut app.isolators, &[names::SECCOMP_RETAIN, names::SECCOMP_REMOVE], flags.seccomp.as_ref());
    let (annotations, labels) = notes(&flags.notes)?;
    app.user_annotations.extend(annotations);
    app.user_labels.extend(labels);
    if !flags.rlimit.is_empty() {
        app.isolators.push(RawIsolator { name: names::RLIMITS.into(), value: json!(flags.rlimit) });
    }
    Ok(app)
}

/// Has a port's socket passed to the app; a port that the image does not name gets the name that OCI's have.
fn activate(ports: &mut Vec<Port>, protocol: Protocol, number: u16) -> Result<(), Error> {
    let protocol = protocol.to_string();
    match ports.iter_mut().find(|port| port.protocol == protocol && port.port == number) {
        Some(port) => port.socket_activated = true,
        None => {
            let name = format!("{number}-{protocol}").parse()?;
            ports.push(Port { name, protocol, port: number, count: 1, socket_activated: true });
        }
    }
    Ok(())
}

/// Puts an isolator of the command line in place of the image's of the same kind.
fn replace(isolators: &mut Vec<RawIsolator>, kind: &[&str], new: Option<&RawIsolator>) {
    if let Some(new) = new {
        isolators.retain(|old| !kind.contains(&old.name.as_str()));
        isolators.push(new.clone());
    }
}

/// Takes those arguments away that an OCI image has only for lack of others.
fn drop_default_arguments(image: &ImageManifest, exec: &mut Vec<String>) {
    let annotation = image.annotations.iter().find(|a| a.name.as_str() == DEFAULT_ARGUMENTS_ANNOTATION);
    let defaults = annotation.and_then(|a| serde_json::from_str::<Vec<String>>(&a.value).ok());
    if let Some(defaults) = defaults
        && exec.len() > defaults.len()
        && exec.ends_with(&defaults)
    {
        exec.truncate(exec.len() - defaults.len());
    }
}

/// For an image that is no app by itself.
fn root_app() -> App {
    App {
        exec: Vec::new(),
        user: "0".into(),
        group: "0".into(),
        supplementary_gids: Vec::new(),
        working_directory: None,
        environment: Vec::new(),
        event_handlers: Vec::new(),
        isolators: Vec::new(),
        mount_points: Vec::new(),
        ports: Vec::new(),
        user_annotations: Default::default(),
        user_labels: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use pod::limits::PodLimits;

    fn image(app: &str) -> ImageManifest {
        let json = format!(
            r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/my_app.v2",
            "labels":[{{"name":"os","value":"linux"}},{{"name":"arch","value":"amd64"}}]{app}}}"#
        );
        ImageManifest::parse(json.as_bytes()).unwrap()
    }

    const APP: &str = r#","app":{"exec":["/a","1"],"user":"7","group":"8",
        "environment":[{"name":"A","value":"image"},{"name":"B","value":"image"}],
        "isolators":[{"name":"resource/memory","value":{"limit":"1G"}}]}"#;

    fn pod(images: &[ImageManifest], line: &str) -> Result<PodManifest, Error> {
        let words: Vec<String> = format!("rkt run {line}").split_whitespace().map(str::to_owned).collect();
        let (_, cli::Action::Run { line, .. }) = cli::parse(&words).unwrap() else { panic!() };
        let cli::PodLine { flags, mounts, apps } = line;
        let id: ImageId = format!("sha512-{}", "0".repeat(64)).parse().unwrap();
        let sources = images.iter().map(|manifest| Source { id: &id, manifest });
        let environment = PodEnvironment::of(&flags)?;
        generate(&sources.zip(&apps).collect::<Vec<_>>(), &flags, &environment, &mounts)
    }

    #[test]
    fn flags_change_the_image() {
        let line = "--set-env A=pod --set-env B=pod i --environment=B=app --user www --memory 64M --cpu 1500m \
            --working-dir=/w --readonly-rootfs -- x y";
        let manifest = pod(&[image(APP)], line).unwrap();
        let limits = PodLimits::of(&manifest).unwrap();
        assert_eq!((limits.cpu_milli(), limits.memory_bytes()), (1500, 64_000_000));
        let runtime = &manifest.apps[0];
        assert_eq!((runtime.name.as_str(), runtime.read_only_root_fs), ("my-app-v2", true));
        let app = runtime.app.as_ref().unwrap();
        assert_eq!(app.exec, ["/a", "1", "x", "y"]);
        assert_eq!((app.user.as_str(), app.group.as_str()), ("www", "8"));
        assert_eq!(app.working_directory.as_deref(), Some("/w"));
        let variables: Vec<_> = app.environment.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        assert_eq!(variables, [("A", "pod"), ("B", "app")]);
    }

    #[test]
    fn isolators_of_the_command_line_replace_the_images() {
        let image = image(
            r#","app":{"exec":["/a"],"user":"0","group":"0","isolators":[
            {"name":"os/linux/seccomp-remove-set","value":{"set":["mkdir"]}},
            {"name":"os/linux/capabilities-remove-set","value":{"set":["CAP_KILL"]}},
            {"name":"os/linux/rlimits","value":[{"name":"CORE","soft":0,"hard":0}]},
            {"name":"os/linux/oom-score-adj","value":7}]}"#,
        );
        let names = |line| {
            let app = pod(std::slice::from_ref(&image), line).unwrap().apps.remove(0).app.unwrap();
            app.isolators.into_iter().map(|isolator| isolator.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names("i"),
            [
                "os/linux/seccomp-remove-set",
                "os/linux/capabilities-remove-set",
                "os/linux/rlimits",
                "os/linux/oom-score-adj"
            ]
        );
        assert_eq!(
            names("i --seccomp=mode=retain,@rkt/default-whitelist --caps-retain=CAP_CHOWN --rlimit=NOFILE=5"),
            [
                "os/linux/rlimits",
                "os/linux/oom-score-adj",
                "os/linux/capabilities-retain-set",
                "os/linux/seccomp-retain-set",
                "os/linux/rlimits"
            ]
        );
    }

    #[test]
    fn lives() {
        let pairs = |annotations: &[NameValue]| {
            annotations.iter().map(|a| format!("{}={}", a.name, a.value)).collect::<Vec<_>>().join(" ")
        };
        let stop = r#","annotations":[{"name":"rkt/app/kill-signal","value":"SIGQUIT"}]"#;
        let images = [image(&format!("{APP}{stop}"))];
        let life = |line| pairs(&pod(&images, line).unwrap().apps[0].annotations);
        assert_eq!(life("i"), "rkt/app/kill-signal=SIGQUIT");
        // An annotation wins over the image, and a flag over that.
        assert_eq!(life("i --annotation=rkt/app/kill-signal=HUP"), "rkt/app/kill-signal=HUP");
        assert!(pod(&images, "i --annotation=a=1 --annotation=a=2").is_err());
        let both = life("i --annotation=rkt/app/kill-signal=HUP --kill-signal=int");
        assert_eq!(both, "rkt/app/kill-signal=SIGINT");
        assert_eq!(
            life("i --restart=always --kill-signal=int --kill-timeout=1m"),
            "rkt/app/restart=always rkt/app/kill-signal=SIGINT rkt/app/kill-timeout-ms=60000"
        );
        assert_eq!(pairs(&pod(&[image(APP)], "i").unwrap().apps[0].annotations), "");
        let manifest = pod(&images, "--exit-policy=until-all i").unwrap();
        assert_eq!(pairs(&manifest.annotations), "rkt/pod/exit-policy=until-all");
    }

    #[test]
    fn an_apps_own_mounts_win() {
        let line = "--volume=v,kind=empty --volume=w,kind=empty --mount=volume=v,target=/a --mount=volume=v,target=/b \
            i --mount=volume=w,target=/b/.";
        let manifest = pod(&[image(APP)], line).unwrap();
        let mounts: Vec<_> = manifest.apps[0]
            .mounts
            .iter()
            .map(|mount| (mount.volume.as_str(), mount.path.as_str()))
            .collect();
        assert_eq!(mounts, [("w", "/b/."), ("v", "/a")]);
        assert_eq!(manifest.volumes.len(), 2);
    }

    #[test]
    fn exec_replaces_the_command() {
        let manifest = pod(&[image(APP)], "i --exec /b -- x").unwrap();
        assert_eq!(manifest.apps[0].app.as_ref().unwrap().exec, ["/b", "x"]);
        let manifest = pod(&[image("")], "i --exec /b --name n").unwrap();
        assert_eq!(
            (manifest.apps[0].name.as_str(), &manifest.apps[0].app.as_ref().unwrap().user[..]),
            ("n", "0")
        );
    }

    #[test]
    fn arguments_replace_defaults() {
        let annotations = r#","annotations":[{"name":"appc.io/docker/cmd","value":"[\"1\"]"}]"#;
        let image = image(&format!("{APP}{annotations}"));
        let exec = |line| pod(std::slice::from_ref(&image), line).unwrap().apps.remove(0).app.unwrap().exec;
        assert_eq!(exec("i"), ["/a", "1"]);
        assert_eq!(exec("i -- x"), ["/a", "x"]);
        assert_eq!(exec("i --exec=/b -- x"), ["/b", "x"]);
    }

    #[test]
    fn refused() {
        let two = [image(APP), image(APP)];
        for (images, line, expected) in [
            (&[image("")][..], "i", "no app section (try --exec"),
            (&two[..1], "--set-env=A=1 --set-env=A=2 i", "\"A\" is set twice"),
            (&two[..], "i j", "\"my-app-v2\" stands twice"),
            (&two[..1], "--port=web:80 i", "\"web\" could not be found"),
            (&two[..1], "i --environment=A=1 --environment=A=2", "--environment"),
        ] {
            let error = pod(images, line).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let text = format!("{error} {source}");
            assert!(text.contains(expected), "{line}: {text}");
        }
        let empty = image(r#","app":{"exec":[],"user":"0","group":"0"}"#);
        assert!(pod(&[empty], "i").unwrap_err().to_string().contains("empty \"exec\""));
    }
}
