//! `rkt list`, `rkt gc` and `rkt rm`.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use pod::abi::EXIT_ERROR;
use pod::pod_manifest::RuntimeApp;

use super::images::SHORT_ID_CHARACTERS;
use super::{Outcome, status, table};
use crate::cli::{Globals, ListFlags, PodChoice, StatusFormat};
use crate::pods::gc::{Collection, Event};
use crate::pods::report::Report;
use crate::pods::{Place, Pod, Pods};
use crate::{network, render, store, users};

/// Prints the pods.
pub fn list(globals: &Globals, flags: ListFlags) -> Outcome {
    let pods = Pods::new(&globals.directory).list(&Place::VISIBLE)?;
    match flags.format {
        StatusFormat::Text => {
            let mut rows = if flags.no_legend { Vec::new() } else { vec![titles(flags.full)] };
            rows.extend(pods.iter().flat_map(|pod| rows_of(pod, flags.full)));
            table::write(&mut std::io::stdout().lock(), &rows)?;
        }
        format => status::print(format, &reports(&pods), |_| Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of the pods; that one cannot be read is told, and keeps nobody from the rest.
fn reports(pods: &[Pod]) -> Vec<Report> {
    let report = |pod: &Pod| match pod.report() {
        Ok(report) => Some(report),
        // It may be gone by now.
        Err(_) if !pod.path.exists() => None,
        Err(error) => {
            eprint!("{}", render("list", &error));
            None
        }
    };
    pods.iter().filter_map(report).collect()
}

fn titles(full: bool) -> Vec<String> {
    let id = full.then_some("IMAGE ID");
    let titles = ["UUID", "APP", "IMAGE NAME"].into_iter().chain(id);
    titles.chain(["STATE", "CREATED", "STARTED", "NETWORKS"]).map(str::to_owned).collect()
}

/// A row an app; the first has what is the pod's. A pod that is not complete has one row without an app.
fn rows_of(pod: &Pod, full: bool) -> Vec<Vec<String>> {
    const SHORT_UUID_CHARACTERS: usize = 8;
    let apps: Vec<[String; 3]> = match pod.manifest().ok() {
        None => vec![["-", "-", "-"].map(str::to_owned)],
        Some(manifest) => manifest.apps.into_iter().map(cells).collect(),
    };
    let networks: Vec<String> = pod.networks().iter().map(ToString::to_string).collect();
    let uuid = pod.uuid.to_string();
    let of_pod = [
        if full { uuid } else { uuid.chars().take(SHORT_UUID_CHARACTERS).collect() },
        pod.state.to_string(),
        table::time(pod.created(), full),
        table::time(pod.started(), full),
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
fn cells(app: RuntimeApp) -> [String; 3] {
    let version = app.image.labels.iter().find(|label| label.name.as_str() == "version");
    let version = version.map(|label| format!(":{}", label.value)).unwrap_or_default();
    let image = app.image.name.map_or_else(|| "-".into(), |name| format!("{name}{version}"));
    let id = app.image.id.as_str().chars().take(SHORT_ID_CHARACTERS).collect();
    [app.name.into(), image, id]
}

/// Marks and removes ended pods; clears what imports that were killed have left.
pub fn gc(globals: &Globals, collection: Collection) -> Outcome {
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
