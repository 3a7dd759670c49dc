//! What a stage1 image of anybody's says of itself, and what its interface version can be told of a pod (stage1 implementor's guide).
//! Our own stage1s have more entrypoints and arguments ([`super::RunArguments`]); these are upstream's.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use uuid::Uuid;

use super::{CpuTemplate, Ipc, NamesFrom, RunArguments, default_hostname};
use crate::Error;
use crate::image_manifest::ImageManifest;
use crate::life::annotations;
use crate::pod_manifest::PodManifest;
use crate::session::Action;
use crate::streams::{ANNOTATION_LOG_MAX_FILES, ANNOTATION_LOG_MAX_SIZE};
use crate::types::{AcIdentifier, AcName};

/// The variable that tells an entrypoint that works in a pod which program enters it.
pub const ENV_ENTER_COMMAND: &str = "RKT_STAGE1_ENTERCMD";
/// The variable that tells it which process to enter.
pub const ENV_ENTER_PID: &str = "RKT_STAGE1_ENTERPID";
/// The variable that tells it which app.
pub const ENV_ENTER_APP: &str = "RKT_STAGE1_ENTERAPP";

/// The interface versions that there have been.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=super::INTERFACE_VERSION;
/// The version that has `--hostname`.
const HOSTNAME: u32 = 2;
/// The version that has `--disable-...`.
const INSECURE: u32 = 3;
/// The version that has `--dns-conf-mode`.
const NAMES: u32 = 4;
/// The version with apps that come and go, `attach`, and `--local-config` of `gc`.
const MUTABLE: u32 = 5;
/// The version that has `--ipc`.
const IPC: u32 = 6;

/// Annotations by which our stage0 tells our stage1s what no other knows. That of the kill signal is also an image's, and then no
/// wish of the user's.
const OWN_ANNOTATIONS: [&str; 5] = [
    annotations::RESTART,
    annotations::KILL_TIMEOUT_MS,
    annotations::EXIT_POLICY,
    ANNOTATION_LOG_MAX_SIZE,
    ANNOTATION_LOG_MAX_FILES,
];

/// A program of a stage1, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrypoint {
    /// Runs a pod.
    Run,
    /// Runs a command in an app.
    Enter,
    /// Cleans up after a pod.
    Gc,
    /// Ends a pod.
    Stop,
    /// Connects to an app's streams.
    Attach,
    /// Changes an app.
    App(Action),
}

impl Entrypoint {
    const REQUIRED: [Self; 3] = [Self::Run, Self::Enter, Self::Gc];

    /// The version that has it.
    fn since(self) -> u32 {
        match self {
            Self::Run | Self::Enter | Self::Gc | Self::Stop => 1,
            Self::Attach | Self::App(_) => MUTABLE,
        }
    }

    fn annotation(self) -> String {
        format!("coreos.com/rkt/stage1/{self}")
    }
}

impl fmt::Display for Entrypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => f.write_str("run"),
            Self::Enter => f.write_str("enter"),
            Self::Gc => f.write_str("gc"),
            Self::Stop => f.write_str("stop"),
            Self::Attach => f.write_str("attach"),
            Self::App(action) => write!(f, "app/{action}"),
        }
    }
}

/// The interface of a stage1 image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    name: AcIdentifier,
    version: u32,
    /// Relative paths in the image's root.
    entrypoints: Vec<(Entrypoint, PathBuf)>,
}

impl Interface {
    /// What an image's manifest says.
    pub fn of(manifest: &ImageManifest) -> Result<Self, Error> {
        let annotation = |name: &str| {
            let found = manifest.annotations.iter().find(|annotation| annotation.name.as_str() == name);
            found.map(|annotation| annotation.value.as_str())
        };
        let name = manifest.name.clone();
        let version = annotation(super::ANNOTATION_INTERFACE_VERSION).unwrap_or("1");
        let version = version.parse().ok().filter(|number| VERSIONS.contains(number)).ok_or_else(|| {
            Error::Invalid(format!(
                "the stage1 {name} has the interface version \"{version}\"; there are {} to {}",
                VERSIONS.start(),
                VERSIONS.end()
            ))
        })?;
        let known = Entrypoint::REQUIRED.into_iter().chain([Entrypoint::Stop, Entrypoint::Attach]);
        let mut entrypoints = Vec::new();
        for entrypoint in known.chain(Action::ALL.map(Entrypoint::App)) {
            let annotated = entrypoint.annotation();
            match annotation(&annotated) {
                Some(path) => entrypoints.push((entrypoint, inside(&annotated, path)?)),
                None if Entrypoint::REQUIRED.contains(&entrypoint) => {
                    return Err(Error::Invalid(format!(
                        "the image {name} is no stage1: its manifest has no annotation {annotated}"
                    )));
                }
                None => {}
            }
        }
        Ok(Self { name, version, entrypoints })
    }

    /// The image's name.
    pub fn name(&self) -> &AcIdentifier {
        &self.name
    }

    /// A program, relative to the image's root.
    pub fn entrypoint(&self, wanted: Entrypoint) -> Result<&Path, Error> {
        self.needs(wanted.since(), || format!("the {wanted} entrypoint"))?;
        let found = self.entrypoints.iter().find(|(entrypoint, _)| *entrypoint == wanted);
        found.map(|(_, path)| path.as_path()).ok_or_else(|| Error::NoEntrypoint {
            stage1: self.name.to_string(),
            entrypoint: wanted.to_string(),
        })
    }

    /// The arguments of `run`, in the order in which upstream's stage0 emits them. What this version cannot be told is an error,
    /// and so is what is ours.
    pub fn run_arguments(&self, arguments: &RunArguments) -> Result<Vec<String>, Error> {
        let RunArguments { hostname, names, insecure, ipc, mutable, .. } = arguments;
        if *hostname != default_hostname(arguments.uuid) {
            self.needs(HOSTNAME, || format!("--hostname={hostname}"))?;
        }
        if let Some(flag) = insecure.arguments().next() {
            self.needs(INSECURE, || format!("to run apps less confined ({flag})"))?;
        }
        if *names != NamesFrom::default() {
            self.needs(NAMES, || format!("--dns and --hosts-entry (--dns-conf-mode={names})"))?;
        }
        if *mutable {
            self.needs(MUTABLE, || "a pod whose apps come and go (--mutable)".into())?;
            for action in [Action::Start, Action::Stop, Action::Remove] {
                self.entrypoint(Entrypoint::App(action))?;
            }
        }
        if *ipc != Ipc::Auto {
            self.needs(IPC, || format!("--ipc={ipc}"))?;
        }
        if let Some(path) = &arguments.cgroup_parent {
            return Err(self.own(format!("--cgroup-parent={path}")));
        }
        if arguments.cpu_template != CpuTemplate::Host {
            return Err(self.own(format!("--cpu-template={}", arguments.cpu_template)));
        }
        Ok(arguments.emit(self.version >= HOSTNAME))
    }

    /// The arguments of `gc`.
    pub fn gc_arguments(&self, debug: bool, local_config: &Path, uuid: Uuid) -> Vec<String> {
        let debug = debug.then(|| "--debug".to_owned());
        let config = (self.version >= MUTABLE).then(|| format!("--local-config={}", local_config.display()));
        debug.into_iter().chain(config).chain([uuid.to_string()]).collect()
    }

    /// Refuses what a pod's manifest says to our stage1s alone. What else is in it, isolators among it, is any stage1's to carry out.
    pub fn check_manifest(&self, manifest: &PodManifest) -> Result<(), Error> {
        let of_apps = manifest.apps.iter().flat_map(|app| &app.annotations);
        let own = manifest
            .annotations
            .iter()
            .chain(of_apps)
            .find(|annotation| OWN_ANNOTATIONS.contains(&annotation.name.as_str()));
        own.map_or(Ok(()), |said| Err(self.own(format!("the annotation {}={}", said.name, said.value))))
    }

    /// That this rkt's own stage1s can do it, and no other.
    pub fn own(&self, what: String) -> Error {
        Error::OwnStage1Only { what, stage1: self.name.to_string() }
    }

    fn needs(&self, since: u32, what: impl FnOnce() -> String) -> Result<(), Error> {
        if self.version >= since {
            return Ok(());
        }
        let (stage1, version) = (self.name.to_string(), self.version);
        Err(Error::InterfaceVersion { what: what(), stage1, version, since })
    }
}

/// An entrypoint's path in the image's root.
fn inside(annotation: &str, path: &str) -> Result<PathBuf, Error> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && relative.components().next().is_some() {
        return Ok(relative.to_owned());
    }
    Err(Error::Invalid(format!(
        "the annotation {annotation} is \"{path}\", which is no path in the image's root"
    )))
}

/// The arguments of `app/add` and the like.
pub fn app_arguments(action: Action, debug: bool, uuid: Uuid, app: &AcName) -> Vec<String> {
    let uuid = (action == Action::Add).then(|| format!("--uuid={uuid}"));
    let head = [format!("--debug={debug}")];
    head.into_iter().chain(uuid).chain([format!("--app={app}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRYPOINTS: [(&str, &str); 9] = [
        ("run", "/init"),
        ("enter", "/enter"),
        ("gc", "/bin/gc"),
        ("stop", "/stop"),
        ("attach", "/attach"),
        ("app/add", "/app-add"),
        ("app/start", "/app-start"),
        ("app/stop", "/app-stop"),
        ("app/rm", "/app-rm"),
    ];

    fn of(entrypoints: &[(&str, &str)], version: Option<&str>) -> Result<Interface, Error> {
        let version = version.map(|version| ("interface-version", version));
        let annotations = entrypoints.iter().copied().chain(version).map(|(name, value)| {
            serde_json::json!({"name": format!("coreos.com/rkt/stage1/{name}"), "value": value})
        });
        let annotations: Vec<_> = annotations.collect();
        let manifest = serde_json::json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/stub",
            "annotations": annotations});
        Interface::of(&ImageManifest::parse(manifest.to_string().as_bytes()).unwrap())
    }

    fn version(version: u32) -> Interface {
        of(&ENTRYPOINTS, Some(&version.to_string())).unwrap()
    }

    fn plain() -> RunArguments {
        RunArguments::parse(["--net=host".to_owned(), Uuid::from_u128(7).to_string()]).unwrap()
    }

    #[test]
    fn what_an_image_says() {
        assert_eq!(of(&ENTRYPOINTS, None).unwrap(), version(1));
        let interface = version(6);
        assert_eq!(interface.entrypoint(Entrypoint::Gc).unwrap(), Path::new("bin/gc"));
        assert_eq!(interface.entrypoint(Entrypoint::App(Action::Remove)).unwrap(), Path::new("app-rm"));
        let least = of(&ENTRYPOINTS[..3], None).unwrap();
        let error = least.entrypoint(Entrypoint::Stop).unwrap_err().to_string();
        assert_eq!(error, "the stage1 example.com/stub has no stop entrypoint");
        for bad in ["0", "7", "x", ""] {
            let error = of(&ENTRYPOINTS, Some(bad)).unwrap_err().to_string();
            assert!(error.contains("1 to 6"), "{error}");
        }
        for missing in 0..3 {
            let mut entrypoints = ENTRYPOINTS.to_vec();
            let (name, _) = entrypoints.remove(missing);
            let error = of(&entrypoints, None).unwrap_err().to_string();
            assert!(error.contains("is no stage1") && error.ends_with(name), "{error}");
        }
        for path in ["", "/", "/../bin/sh", "a/../../b"] {
            assert!(of(&[("run", path), ("enter", "/e"), ("gc", "/g")], None).is_err(), "{path}");
        }
    }

    #[test]
    fn each_version_gets_what_it_knows() {
        let uuid = Uuid::from_u128(7);
        let cases: [(u32, &str, RunArguments); 5] = [
            (2, "--hostname=web", RunArguments { hostname: "web".into(), ..plain() }),
            (
                3,
                "--disable-paths",
                RunArguments {
                    insecure: super::super::Insecure { paths: true, ..Default::default() },
                    ..plain()
                },
            ),
            (
                4,
                "--dns-conf-mode=resolv=none,hosts=stage0",
                RunArguments { names: "resolv=none,hosts=stage0".parse().unwrap(), ..plain() },
            ),
            (5, "--mutable", RunArguments { mutable: true, ..plain() }),
            (6, "--ipc=private", RunArguments { ipc: Ipc::Private, ..plain() }),
        ];
        for number in VERSIONS {
            let interface = version(number);
            let hostname = if number >= 2 { format!("--hostname=rkt-{uuid} ") } else { String::new() };
            let given = interface.run_arguments(&plain()).unwrap().join(" ");
            assert_eq!(given, format!("--net=host {hostname}{uuid}"));
            for (since, flag, arguments) in &cases {
                match interface.run_arguments(arguments) {
                    Ok(given) => {
                        assert!(number >= *since && given.iter().any(|word| word == flag), "{given:?}")
                    }
                    Err(error) => {
                        let (error, expected) = (error.to_string(), format!("version {since}"));
                        assert!(
                            number < *since && error.contains(&expected) && error.contains(flag),
                            "{error}"
                        );
                    }
                }
            }
            for entrypoint in [Entrypoint::Attach, Entrypoint::App(Action::Add)] {
                assert_eq!(interface.entrypoint(entrypoint).is_ok(), number >= 5);
            }
            let gc = interface.gc_arguments(true, Path::new("/etc/rkt"), uuid).join(" ");
            let config = if number >= 5 { "--local-config=/etc/rkt " } else { "" };
            assert_eq!(gc, format!("--debug {config}{uuid}"));
        }
    }

    #[test]
    fn what_is_ours_is_nobody_elses() {
        let own = [
            RunArguments { cgroup_parent: Some("/machine.slice".parse().unwrap()), ..plain() },
            RunArguments { cpu_template: CpuTemplate::V2, ..plain() },
        ];
        for arguments in own {
            let error = version(6).run_arguments(&arguments).unwrap_err().to_string();
            assert!(error.contains("only rkt's own"), "{error}");
        }
        let mut manifest = PodManifest::new(Vec::new());
        version(1).check_manifest(&manifest).unwrap();
        let policy = serde_json::json!({"name": annotations::EXIT_POLICY, "value": "until-all"});
        manifest.annotations.push(serde_json::from_value(policy).unwrap());
        let error = version(6).check_manifest(&manifest).unwrap_err().to_string();
        assert!(error.contains("rkt/pod/exit-policy=until-all"), "{error}");
    }

    #[test]
    fn a_mutable_pod_needs_its_entrypoints() {
        let interface = of(&ENTRYPOINTS[..8], Some("5")).unwrap();
        let error = interface.run_arguments(&RunArguments { mutable: true, ..plain() }).unwrap_err();
        assert!(error.to_string().contains("app/rm"), "{error}");
    }

    #[test]
    fn changes_of_apps() {
        let (uuid, app) = (Uuid::from_u128(7), "web".parse().unwrap());
        assert_eq!(app_arguments(Action::Start, false, uuid, &app), ["--debug=false", "--app=web"]);
        let add = app_arguments(Action::Add, true, uuid, &app).join(" ");
        assert_eq!(add, format!("--debug=true --uuid={uuid} --app=web"));
    }
}
