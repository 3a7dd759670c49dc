//! The part of a plan that is about pods without isolation (`--stage1=fly`). The one app of such a pod has a root and a mount
//! namespace of its own, and everything else of the host: its process is the one that was started, so that nothing of rkt is
//! there while it runs. What would need more than that is refused here, by its name.

use std::path::Path;

use super::{MountFlags, NOTIFY_ANNOTATION, Operation, directory, notifies};
use crate::Error;
use crate::capability::CapabilitySet;
use crate::image_manifest::{App, Event};
use crate::isolator::{Isolator, names};
use crate::life::{Life, Restart, annotations};
use crate::pod_manifest::{PodManifest, RuntimeApp};
use crate::seccomp::{self, Filter};
use crate::streams::{InputMode, OutputMode, StreamModes};

/// What the app has of the host, with all that is mounted in there.
const OF_HOST: [&str; 3] = ["dev", "proc", "sys"];
/// Where the pod's root has that, before it becomes the app's.
const HOST: &str = "host";

/// Isolators that are settings of a cgroup, and the flags that make them.
const OF_CGROUPS: [(&str, &str); 4] = [
    ("resource/cpu", "--cpu"),
    ("resource/memory", "--memory"),
    (names::PIDS, "--pids"),
    (names::CPU_SHARES, "--cpu-shares"),
];

/// Whether a pod can run so.
pub fn check(manifest: &PodManifest) -> Result<(), Error> {
    let [app] = manifest.apps.as_slice() else {
        return Err(Error::Invalid(format!(
            "--stage1=fly runs pods of one app, and this one has {}; use --stage1=nspawn, or a pod for each",
            manifest.apps.len()
        )));
    };
    match obstacle(app)? {
        None => Ok(()),
        Some(what) => Err(Error::Invalid(format!(
            "app \"{}\" asks for {what}: leave it out, or use --stage1=nspawn",
            app.name
        ))),
    }
}

/// What an app asks for and cannot have, and why not.
fn obstacle(app: &RuntimeApp) -> Result<Option<String>, Error> {
    const NOBODY_THERE: &str = "and with --stage1=fly nothing of rkt is there while it runs";
    if let Some((isolator, flag)) = app.app.as_ref().and_then(isolator_of_cgroup) {
        return Ok(Some(format!("isolator {isolator} ({flag}), and --stage1=fly makes no cgroup")));
    }
    let handlers = app.app.iter().flat_map(|section| &section.event_handlers);
    if handlers.into_iter().any(|handler| handler.name == Event::PostStop) {
        return Ok(Some(format!("a post-stop handler, {NOBODY_THERE}")));
    }
    let restart = Life::of(app)?.restart;
    if restart != Restart::No {
        return Ok(Some(format!("--restart={restart}, {NOBODY_THERE}")));
    }
    if app.annotations.iter().any(|found| found.name.as_str() == annotations::KILL_TIMEOUT_MS) {
        return Ok(Some(format!("--kill-timeout, {NOBODY_THERE}")));
    }
    if notifies(app) {
        return Ok(Some(format!(
            "a socket to tell that it is ready on, {NOBODY_THERE} to hear of it (--annotation={NOTIFY_ANNOTATION}=false runs \
            it without)"
        )));
    }
    let modes = StreamModes::of(app, true, false)?;
    Ok(carried_stream(&modes).map(|flag| format!("{flag}, {NOBODY_THERE} to carry its streams")))
}

fn isolator_of_cgroup(section: &App) -> Option<(&'static str, &'static str)> {
    OF_CGROUPS.into_iter().find(|(name, _)| section.isolators.iter().any(|raw| raw.name == *name))
}

/// The flag of a stream that is neither the caller's nor empty.
fn carried_stream(modes: &StreamModes) -> Option<String> {
    if !matches!(modes.stdin, InputMode::Null | InputMode::Inherit) {
        return Some(format!("--stdin={}", modes.stdin));
    }
    [("stdout", modes.stdout), ("stderr", modes.stderr)]
        .into_iter()
        .find(|(_, mode)| ![OutputMode::NULL, OutputMode::INHERIT].contains(mode))
        .map(|(name, mode)| format!("--{name}={mode}"))
}

/// Keeps the host's directories at hand until the app's root has places for them: only then can no link of the image lead
/// elsewhere.
pub fn pod_setup(pod_root: &Path) -> Vec<Operation> {
    let keep = |name: &&str| {
        let target = pod_root.join(HOST).join(name);
        let source = Path::new("/").join(name);
        [directory(&target, 0o755), Operation::Bind { source, target, flags: MountFlags::default() }]
    };
    OF_HOST.iter().flat_map(keep).collect()
}

/// The file systems of the app's world, over its root.
pub fn file_systems(root: &Path) -> Vec<Operation> {
    let bind = |name: &&str| {
        let target = root.join(name);
        let source = Path::new("/").join(HOST).join(name);
        [directory(&target, 0o755), Operation::Bind { source, target, flags: MountFlags::default() }]
    };
    OF_HOST.iter().flat_map(bind).collect()
}

/// What the app keeps: everything, unless it has a set of its own, which means the same as elsewhere.
pub fn capabilities(isolators: &[Isolator]) -> Result<CapabilitySet, Error> {
    let of_app =
        |i: &Isolator| matches!(i, Isolator::CapabilitiesRetain(_) | Isolator::CapabilitiesRemove(_));
    if isolators.iter().any(of_app) { CapabilitySet::of_isolators(isolators) } else { Ok(CapabilitySet::ALL) }
}

/// The filter of its system calls: none, unless it has a set of its own.
pub fn filter(isolators: &[Isolator], capabilities: CapabilitySet) -> Result<Option<Filter>, Error> {
    let of_app = |i: &Isolator| matches!(i, Isolator::SeccompRetain(_) | Isolator::SeccompRemove(_));
    if isolators.iter().any(of_app) { seccomp::of_isolators(isolators, capabilities) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, world};
    use super::super::{ImageSource, Isolation, Plan, World, compute};
    use super::*;
    use crate::abi::Insecure;
    use crate::image_manifest::{EventHandler, NameValue};
    use crate::isolator::RawIsolator;

    fn fly() -> World {
        let isolation = Isolation::Fly { pod_root: "/p".into(), volumes: Vec::new() };
        world(isolation, ImageSource::File("/i".into()))
    }

    fn refusal(change: impl FnOnce(&mut PodManifest)) -> String {
        let mut manifest = manifest();
        change(&mut manifest);
        compute(&manifest, &fly()).unwrap_err().to_string()
    }

    fn plan_with(isolator: Option<(&str, serde_json::Value)>, insecure: Insecure) -> Plan {
        let mut manifest = manifest();
        let isolators = &mut manifest.apps[0].app.as_mut().unwrap().isolators;
        isolators.extend(isolator.map(|(name, value)| RawIsolator { name: name.into(), value }));
        compute(&manifest, &World { insecure, ..fly() }).unwrap()
    }

    #[test]
    fn the_hosts_directories_are_bound_before_the_root_is_the_apps() {
        let plan = compute(&manifest(), &fly()).unwrap();
        assert_eq!(plan.setup[0], Operation::SlaveRoot);
        assert!(matches!(plan.setup.last(), Some(Operation::Root { path }) if path == Path::new("/p")));
        let bound = |operations: &[Operation], from: &str, to: &str| {
            operations.iter().any(|operation| {
                matches!(operation, Operation::Bind { source, target, .. }
                    if source == Path::new(from) && target == Path::new(to))
            })
        };
        for name in OF_HOST {
            assert!(bound(&plan.setup, &format!("/{name}"), &format!("/p/host/{name}")), "{name}");
            let app = &plan.apps[0].setup;
            assert!(bound(app, &format!("/host/{name}"), &format!("/apps/a/{name}")), "{name}");
        }
        assert!(matches!(plan.apps[0].setup.last(), Some(Operation::Root { .. })));
        let foreign = |operation: &Operation| {
            matches!(operation, Operation::Hostname(_) | Operation::Protect { .. } | Operation::Device { .. })
        };
        assert!(!plan.setup.iter().chain(&plan.apps[0].setup).any(foreign));
    }

    #[test]
    fn nothing_is_confined_unless_the_app_asks_for_it() {
        let free = plan_with(None, Insecure::default()).apps.remove(0);
        assert_eq!((free.process.capabilities, free.process.filter), (CapabilitySet::ALL, None));
        assert_eq!((free.devices, free.cgroup), (None, None));
        let caps = || Some((names::CAPABILITIES_RETAIN, serde_json::json!({ "set": ["CAP_KILL"] })));
        let confined = plan_with(caps(), Insecure::default()).apps.remove(0).process;
        assert_eq!(confined.capabilities, CapabilitySet::named(["KILL"]).unwrap());
        let lifted = Insecure { capabilities: true, ..Insecure::default() };
        assert_eq!(plan_with(caps(), lifted).apps.remove(0).process.capabilities, CapabilitySet::ALL);
        let calls = || Some((names::SECCOMP_REMOVE, serde_json::json!({ "set": ["mkdir"] })));
        assert!(plan_with(calls(), Insecure::default()).apps.remove(0).process.filter.is_some());
        let lifted = Insecure { seccomp: true, ..Insecure::default() };
        assert!(plan_with(calls(), lifted).apps.remove(0).process.filter.is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        let two = refusal(|manifest| {
            let mut second = manifest.apps[0].clone();
            second.name = "b".parse().unwrap();
            manifest.apps.push(second);
        });
        assert!(two.contains("has 2"), "{two}");
        for (name, flag) in OF_CGROUPS {
            let value = match name {
                names::CPU_SHARES => serde_json::json!(100),
                names::PIDS => serde_json::json!({ "limit": 100 }),
                _ => serde_json::json!({ "limit": "1G" }),
            };
            let isolator = RawIsolator { name: name.into(), value };
            let text = refusal(|pod| pod.apps[0].app.as_mut().unwrap().isolators.push(isolator));
            assert!(text.contains(name) && text.contains(flag), "{text}");
        }
        let handler = EventHandler { name: Event::PostStop, exec: vec!["/x".into()] };
        let text = refusal(|pod| pod.apps[0].app.as_mut().unwrap().event_handlers.push(handler));
        assert!(text.contains("post-stop"), "{text}");
        for (name, value, expected) in [
            (annotations::RESTART, "always", "--restart=always"),
            (annotations::KILL_TIMEOUT_MS, "10", "--kill-timeout"),
            (NOTIFY_ANNOTATION, "true", "=false"),
            (crate::streams::ANNOTATION_STDIN, "stream", "--stdin=stream"),
            (crate::streams::ANNOTATION_STDOUT, "inherit,log", "--stdout=inherit,log"),
            (crate::streams::ANNOTATION_STDERR, "tty", "--stdin=tty"),
        ] {
            let annotation = NameValue { name: name.parse().unwrap(), value: value.into() };
            let text = refusal(|pod| pod.apps[0].annotations.push(annotation));
            assert!(text.contains(expected) && text.contains("nspawn"), "{name}: {text}");
        }
    }

    #[test]
    fn a_terminal_is_the_callers_own() {
        let interactive = World { interactive: true, ..fly() };
        let app = compute(&manifest(), &interactive).unwrap().apps.remove(0);
        assert_eq!(app.stdio.streams(), super::super::Stdio::THREE);
    }
}
