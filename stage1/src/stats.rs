//! The `stats` entrypoint: what a running pod uses, as JSON ([`PodStatistics`]). In namespaces the host's cgroups tell it; of a
//! guest's apps only the guest's supervisor knows, and is asked by way of the pod's parent.

pub mod mappings;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ::pod::abi::{PodDirectory, StatsArguments};
use ::pod::limits::PodLimits;
use ::pod::pod_manifest::PodManifest;
use ::pod::session::{FromClient, ToClient};
use ::pod::statistics::{
    AppStatistics, GuestStatistics, Measurement, PodStatistics, Statistics, Subject, VmmStatistics,
};
use ::pod::types::AcName;
use nix::unistd::{SysconfVar, sysconf};
use uuid::Uuid;

use self::mappings::Ram;
use crate::Error;
use crate::error::Causes;
use crate::parent::Parent;
use crate::{cgroup, pod, stop};

/// How long a guest may take to measure an app; it may be hostile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints what the pod of namespaces in the working directory uses.
pub fn of_namespaces(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let (directory, uuid, manifest) = open(arguments)?;
    let cgroups = cgroup::recorded(directory.path(), uuid)?;
    let measure = |name: AcName| {
        let statistics = Statistics::of(&|file| cgroup::read(&cgroups, Some(&name), file));
        AppStatistics { name, statistics }
    };
    let pod = Statistics::of(&|file| cgroup::read(&cgroups, None, file));
    let apps = names(manifest).map(measure).collect();
    print(&PodStatistics { apps, pod: Some(pod), guest: None, vmm: None })
}

/// Prints what the VM pod in the working directory uses.
pub fn of_vm(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let (directory, uuid, manifest) = open(arguments)?;
    let limits = PodLimits::of(&manifest)
        .map_err(|source| Error::Pod { what: "cannot tell the pod's limits".into(), source })?;
    let (vmm, ram) = vmm(&directory, uuid)?;
    let apps: Vec<_> = names(manifest).map(ask_for_app).collect::<Result<_, Error>>()?;
    let guest = guest(&limits, ram, &apps)?;
    let cgroups = cgroup::recorded(directory.path(), uuid)?;
    let pod = (!cgroups.is_empty()).then(|| Statistics::of(&|file| cgroup::read(&cgroups, None, file)));
    print(&PodStatistics { apps, pod, guest: Some(guest), vmm: Some(vmm) })
}

fn open(arguments: impl Iterator<Item = String>) -> Result<(PodDirectory, Uuid, PodManifest), Error> {
    let arguments = StatsArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let directory = PodDirectory::new(".");
    let manifest = pod::read_manifest(&directory)?;
    Ok((directory, arguments.uuid, manifest))
}

fn names(manifest: PodManifest) -> impl Iterator<Item = AcName> {
    manifest.apps.into_iter().map(|app| app.name)
}

fn print(statistics: &PodStatistics) -> Result<(), Error> {
    let path = Path::new("standard output");
    let json = serde_json::to_string(statistics).map_err(|error| Error::file("write", path)(error.into()))?;
    writeln!(std::io::stdout(), "{json}").map_err(Error::file("write", path))
}

fn ask_for_app(name: AcName) -> Result<AppStatistics, Error> {
    match ask(Subject::App(name.clone()), &format!("app \"{name}\""))? {
        Measurement::App(statistics) => Ok(AppStatistics { name, statistics: *statistics }),
        Measurement::Guest(_) => Err(Error::PodGone),
    }
}

/// Where the guest's memory is. What it says of itself is believed, and contradicts what the host knows at no harm.
fn guest(limits: &PodLimits, ram: Option<Ram>, apps: &[AppStatistics]) -> Result<GuestStatistics, Error> {
    let Measurement::Guest(memory) = ask(Subject::Guest, "the guest")? else { return Err(Error::PodGone) };
    let of_apps = apps.iter().filter_map(|app| app.statistics.memory.current_bytes);
    let of_apps = of_apps.fold(memory.free_bytes, u64::saturating_add);
    Ok(GuestStatistics {
        // Apps that have come late have a machine that was there before.
        limit_bytes: ram.map_or(u64::MAX, |ram| ram.bytes).min(limits.memory_bytes()),
        ram_bytes: ram.map(|ram| ram.bytes),
        resident_bytes: ram.map(|ram| ram.resident_bytes),
        free_bytes: memory.free_bytes,
        kernel_bytes: ram.map(|ram| ram.bytes.saturating_sub(of_apps)),
    })
}

/// Asks the pod's parent what somebody uses.
fn ask(subject: Subject, name: &str) -> Result<Measurement, Error> {
    let parent = Parent::call()?;
    parent.say(&FromClient::Measure(subject))?;
    match parent.await_answer(Some(PATIENCE))? {
        ToClient::Measured(measurement) => Ok(measurement),
        ToClient::Failed(causes) => Err(Causes::new(causes)
            .map_or(Error::PodGone, |source| Error::NotMeasured { what: name.to_owned(), source })),
        ToClient::Connected | ToClient::Exited(_) => Err(Error::PodGone),
    }
}

/// What the process of the machine costs the host: a child of the pod's parent.
fn vmm(directory: &PodDirectory, uuid: Uuid) -> Result<(VmmStatistics, Option<Ram>), Error> {
    let (parent, _) = stop::living_parent(directory, uuid, "measured")?;
    let file = directory.vmm_pid();
    let pid = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
    let pid: u32 = pid.trim().parse().map_err(|_| Error::PodGone)?;
    let process = Path::new("/proc").join(pid.to_string());
    let read = |file: &str| {
        let path = process.join(file);
        fs::read_to_string(&path).map_err(Error::file("read", &path))
    };
    // The kernel has it in clock ticks (proc_pid_stat(5)).
    let stat = read("stat")?;
    // A number may be somebody else's by now.
    if parent_of(&stat) != Some(parent) {
        return Err(Error::PodGone);
    }
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    let vmm = parse_process(pid, &stat, &read("status")?, ticks.unwrap_or(100).max(1));
    let mappings = mappings::parse(&read("smaps")?);
    Ok((VmmStatistics { own_bytes: Some(mappings.own_bytes), ..vmm }, mappings.ram))
}

/// From the text of `/proc/PID/stat`, where it is the fourth field.
fn parent_of(stat: &str) -> Option<i32> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(1)?.parse().ok()
}

/// From the texts of `/proc/PID/stat` and `/proc/PID/status`.
fn parse_process(pid: u32, stat: &str, status: &str, ticks_per_second: u64) -> VmmStatistics {
    const US_PER_SECOND: u64 = 1_000_000;
    // A program's name may hold blanks and parentheses. Behind it the state is the third field, user time the 14th.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let time_us = |field: usize| {
        let ticks = behind.split_whitespace().nth(field - 3).and_then(|text| text.parse::<u64>().ok());
        ticks.unwrap_or_default().saturating_mul(US_PER_SECOND) / ticks_per_second
    };
    let row = |name: &str| {
        let text = status.lines().find_map(|line| line.strip_prefix(name))?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name| row(name).map(|kib| kib.saturating_mul(1 << 10));
    VmmStatistics {
        pid,
        user_us: time_us(14),
        system_us: time_us(15),
        resident_bytes: bytes("VmRSS:"),
        peak_bytes: bytes("VmHWM:"),
        own_bytes: None,
        threads: row("Threads:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 10";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t4\n";
        assert_eq!((parent_of(stat), parent_of("7 (a) S x"), parent_of("")), (Some(1), None, None));
        let vmm = parse_process(7, stat, status, 100);
        assert_eq!((vmm.user_us, vmm.system_us), (2_500_000, 500_000));
        assert_eq!((vmm.resident_bytes, vmm.peak_bytes), (Some(1 << 20), Some(2 << 20)));
        assert_eq!(vmm.threads, Some(4));
        assert_eq!(parse_process(7, "", "", 100), VmmStatistics { pid: 7, ..VmmStatistics::default() });
    }
}
