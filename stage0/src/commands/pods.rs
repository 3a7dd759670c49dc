//! `rkt list`, `rkt gc` and `rkt rm`.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use pod::abi::{EXIT_ERROR, PodDirectory};

use super::{Outcome, table};
use crate::cli::{Globals, ListFlags, PodChoice};
use crate::pods::gc::{Collection, Event};
use crate::pods::{Place, Pod, Pods};
use crate::{network, render, store};

/// Prints the pods.
pub fn list(globals: &Globals, flags: ListFlags) -> Outcome {
    let titles = ["UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "NETWORKS"].map(str::to_owned).to_vec();
    let mut rows = if flags.no_legend { Vec::new() } else { vec![titles] };
    for pod in Pods::new(&globals.directory).list(&Place::VISIBLE)? {
        rows.extend(rows_of(&pod, flags.full));
    }
    table::write(&mut std::io::stdout().lock(), &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// A row an app; the first has what is the pod's. A pod that is not complete has one row without an app.
fn rows_of(pod: &Pod, full: bool) -> Vec<Vec<String>> {
    const SHORT_UUID_CHARACTERS: usize = 8;
    let directory = PodDirectory::new(&pod.path);
    let apps: Vec<(String, String)> = match pod.manifest().ok() {
        None => vec![("-".into(), "-".into())],
        Some(manifest) => manifest
            .apps
            .into_iter()
            .map(|app| (app.name.into(), app.image.name.map_or_else(|| "-".into(), String::from)))
            .collect(),
    };
    let created = fs::metadata(directory.created()).and_then(|metadata| metadata.modified()).ok();
    let age = created.and_then(|created| SystemTime::now().duration_since(created).ok());
    let networks: Vec<String> = pod.networks().iter().map(ToString::to_string).collect();
    let uuid = pod.uuid.to_string();
    let of_pod = [
        if full { uuid } else { uuid.chars().take(SHORT_UUID_CHARACTERS).collect() },
        pod.state.to_string(),
        age.map(table::ago).unwrap_or_default(),
        networks.join(", "),
    ];
    let mut of_pod = Some(of_pod);
    let row = |(app, image)| {
        let [uuid, state, created, networks] = of_pod.take().unwrap_or_default();
        vec![uuid, app, image, state, created, networks]
    };
    apps.into_iter().map(row).collect()
}

/// Marks and removes ended pods; clears what imports that were killed have left.
pub fn gc(globals: &Globals, collection: Collection) -> Outcome {
    let (mut failed, mut written) = (false, Ok(()));
    let pods = Pods::new(&globals.directory);
    pods.gc(collection, &mut |event| match event {
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
            pods.remove(pod).map(|()| uuid)
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
