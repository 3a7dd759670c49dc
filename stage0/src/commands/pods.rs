//! `rkt list`, `rkt gc` and `rkt rm`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use pod::abi::EXIT_ERROR;

use super::images::SHORT_ID_CHARACTERS;
use super::run::need_root;
use super::{Outcome, status, table};
use crate::cli::{Globals, ListFlags, PodChoice, StatusFormat};
use crate::pods::gc::{Collection, Event};
use crate::pods::listing::{self, ListedApp};
use crate::pods::report::Report;
use crate::pods::{self, Inside, Place, Pod, Pods};
use crate::{network, render, store, users};

/// Prints the pods.
pub fn list(globals: &Globals, flags: ListFlags) -> Outcome {
    let pods = Pods::new(&globals.directory);
    match flags.format {
        StatusFormat::Text => {
            let titles = (!flags.no_legend).then(|| titles(flags.full));
            let rows = seen(&pods, &mut |pod, inside| Some(rows_of(pod, inside, flags.full)))?;
            let rows: Vec<_> = titles.into_iter().chain(rows.into_iter().flatten()).collect();
            table::write(&mut std::io::stdout().lock(), &rows)?;
        }
        format => status::print(format, &seen(&pods, &mut report)?, |_| Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is seen in each pod, by UUID.
fn seen<T>(pods: &Pods, see: &mut dyn FnMut(&Pod, &Inside) -> Option<T>) -> Result<Vec<T>, pods::Error> {
    let mut seen = BTreeMap::new();
    pods.visit(&Place::VISIBLE, &mut |pod, inside| seen.extend(see(&pod, inside).map(|it| (pod.uuid, it))))?;
    Ok(seen.into_values().collect())
}

/// What is known of a pod; that it cannot be read is told, and keeps nobody from the rest.
fn report(pod: &Pod, inside: &Inside) -> Option<Report> {
    match pod.report_of(inside) {
        Ok(report) => Some(report),
        // It may be gone by now.
        Err(_) if !pod.path.exists() => None,
        Err(error) => {
            eprint!("{}", render("list", &error));
            None
        }
    }
}

fn titles(full: bool) -> Vec<String> {
    let id = full.then_some("IMAGE ID");
    let titles = ["UUID", "APP", "IMAGE NAME"].into_iter().chain(id);
    titles.chain(["STATE", "CREATED", "STARTED", "NETWORKS"]).map(str::to_owned).collect()
}

/// A row an app; the first has what is the pod's. A pod that has none, or is not complete, has one row without an app.
fn rows_of(pod: &Pod, inside: &Inside, full: bool) -> Vec<Vec<String>> {
    const SHORT_UUID_CHARACTERS: usize = 8;
    let apps = inside.manifest().ok().and_then(|manifest| listing::apps(&manifest));
    let apps: Vec<[String; 3]> = match apps {
        Some(apps) if !apps.is_empty() => apps.into_iter().map(cells).collect(),
        _ => vec![["-", "-", "-"].map(str::to_owned)],
    };
    let networks: Vec<String> = pod.networks().iter().map(ToString::to_string).collect();
    let uuid = pod.uuid.to_string();
    let of_pod = [
        if full { uuid } else { uuid.get(..SHORT_UUID_CHARACTERS).unwrap_or_default().to_owned() },
        pod.state.to_string(),
        table::time(inside.created(), full),
        table::time(inside.started(), full),
        networks.join(", "),
    ];
    let mut of_pod = Some(of_pod);
    let row = |[app, image, id]: [String; 3]| {
        let [uuid, state, created, started, networks] = of_pod.take().unwrap_or_default();
        let of_app = [uuid, app, image].into_iter().chain(full.then_some(id));
        of_app.chain([state, created, started, networks]).collect()
    };
    apps.into_iter().map(row).collect()
}

/// An app's name, and the name and the ID of its image.
fn cells(app: ListedApp) -> [String; 3] {
    let version = app.image.labels.iter().find(|label| label.name.as_str() == "version");
    let version = version.map(|label| format!(":{}", label.value)).unwrap_or_default();
    let image = app.image.name.map_or_else(|| "-".into(), |name| format!("{name}{version}"));
    let id = app.image.id.as_str().get(..SHORT_ID_CHARACTERS).unwrap_or_default().to_owned();
    [app.name.into(), image, id]
}

/// Marks and removes ended pods; clears what imports that were killed have left.
pub fn gc(globals: &Globals, collection: Collection) -> Outcome {
    need_root()?;
    let (mut failed, mut written) = (false, Ok(()));
    let pods = Pods::new(&globals.directory);
    pods.gc(collection, globals.into(), &mut |event| match event {
        Event::Marked(pod) => eprintln!("gc: moving pod \"{}\" to garbage", pod.uuid),
        Event::Removed(pod) => {
            let line = writeln!(std::io::stdout(), "Garbage collecting pod \"{}\"", pod.uuid);
            written = std::mem::replace(&mut written, Ok(())).and(line);
        }
        Event::Kept(pod) => eprintln!(
            "gc: pod \"{}\" not removed: still within grace period ({}s)",
            pod.uuid,
            collection.grace.as_secs_f64()
        ),
        Event::Failed(error) => {
            failed = true;
            eprint!("{}", render("gc", &error));
        }
    })?;
    if !collection.mark_only {
        store::remove_abandoned(&globals.directory)?;
        users::collect()?;
        for error in network::collect(&pods, &globals.local_config)? {
            failed = true;
            eprint!("{}", render("gc", &error));
        }
    }
    written?;
    Ok(if failed { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS })
}

/// Removes pods; goes on after one that cannot be removed.
pub fn rm(globals: &Globals, choices: &[PodChoice]) -> Outcome {
    need_root()?;
    let pods = Pods::new(&globals.directory);
    let mut failed = false;
    for choice in choices {
        let removed = pods.choose(choice).and_then(|pod| {
            let uuid = pod.uuid;
            pods.remove(pod, globals.into()).map(|()| uuid)
        });
        match removed {
            Ok(uuid) => writeln!(std::io::stdout(), "\"{uuid}\"")?,
            Err(error) => {
                failed = true;
                eprint!("{}", render("rm", &error as &dyn Error));
            }
        }
    }
    Ok(if failed { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS })
}
