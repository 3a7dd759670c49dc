//! Reading a file of the image beside reading it in a volume, and what memory a second pod of the image costs.
//!
//! The host has all of it in its page cache, the guest has read none of it yet: what is measured is the way from one to the other.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::measure::{Summary, run};
use crate::memory::{Resident, of_images};
use crate::sleeping::SleepingPod;
use crate::{Bench, Error};

const RUNS: usize = 3;
/// What `tests/bench` has made: `/reader` and `/data` beside busybox.
const IMAGE: &str = "reading.aci";
const MEMORY: &str = "--memory=256Mi";

/// What was measured of reading.
#[derive(Debug)]
pub struct Reading {
    /// Pages of 4 KiB in a random order.
    pub random: Speeds,
    /// MiB after MiB.
    pub sequential: Speeds,
    /// What a second pod of the image costs the host.
    pub second: SecondPod,
}

/// In MiB a second, of the same bytes in the same guest.
#[derive(Clone, Debug, Default)]
pub struct Speeds {
    /// In the image.
    pub image: Vec<f64>,
    /// In a volume of the host.
    pub volume: Vec<f64>,
}

impl Speeds {
    /// How much faster the image is, pair by pair.
    pub fn ratio(&self) -> Option<Summary> {
        let ratios: Vec<f64> =
            self.image.iter().zip(&self.volume).map(|(image, volume)| image / volume).collect();
        Summary::of(&ratios)
    }
}

/// A second pod beside one of the same image.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecondPod {
    /// What it has mapped of its images.
    pub images: Resident,
    /// By how much the host's page cache has grown, without the files of the pod itself.
    pub page_cache_kib: i64,
}

/// Reads, and looks at two pods that sleep.
pub fn measure(bench: &Bench) -> Result<Reading, Error> {
    let (mut random, mut sequential) = (Speeds::default(), Speeds::default());
    for round in 0..=RUNS {
        let volume = format!("--volume=v,kind=host,source={}", bench.images.join("reading").display());
        let mut command = bench.rkt();
        command.args(["run", "--stage1=kvm", &volume]).arg(bench.images.join(IMAGE));
        command.args([MEMORY, "--mount=volume=v,target=/volume", "--exec=/bin/sh", "--", "-c"]);
        let output = run(command.arg("/reader /data && /reader /volume/data"))?;
        bench.collect_garbage()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let [image_random, image_sequential, volume_random, volume_sequential] = speeds(&told)?;
        if round > 0 {
            random.image.push(image_random);
            random.volume.push(volume_random);
            sequential.image.push(image_sequential);
            sequential.volume.push(volume_sequential);
        }
    }
    Ok(Reading { random, sequential, second: second(bench)? })
}

/// MiB a second, of lines like `random 33554432 1000000`.
fn speeds(told: &str) -> Result<[f64; 4], Error> {
    let speed = |line: &str| {
        let mut words = line.split_whitespace().skip(1).map(str::parse::<f64>);
        let (bytes, ns) = (words.next()?.ok()?, words.next()?.ok()?);
        Some(bytes / (1 << 20) as f64 / (ns / 1e9))
    };
    let speeds: Vec<f64> = told.lines().filter_map(speed).collect();
    speeds.try_into().map_err(|_| format!("the reader has said: {told}").into())
}

fn second(bench: &Bench) -> Result<SecondPod, Error> {
    let first = SleepingPod::start(bench, "kvm", &[MEMORY])?;
    let cost = beside(bench);
    first.stop()?;
    bench.collect_garbage()?;
    cost
}

fn beside(bench: &Bench) -> Result<SecondPod, Error> {
    let pods = bench.work.join("rkt/pods");
    let (cached, files) = (cached_kib()?, files_kib(&pods)?);
    let pod = SleepingPod::start(bench, "kvm", &[MEMORY])?;
    let look = || -> Result<SecondPod, Error> {
        let page_cache_kib = (cached_kib()? - cached) - (files_kib(&pods)? - files);
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", pod.child()?))?;
        Ok(SecondPod { images: of_images(&smaps), page_cache_kib })
    };
    let cost = look();
    pod.stop()?;
    cost
}

fn cached_kib() -> Result<i64, Error> {
    let told = fs::read_to_string("/proc/meminfo")?;
    let line =
        told.lines().find_map(|line| line.strip_prefix("Cached:")).ok_or("no Cached in /proc/meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// What the files in a directory take, but for those that are links of others: of the images.
fn files_kib(directory: &Path) -> Result<i64, Error> {
    let mut kib = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            kib += files_kib(&entry.path())?;
        } else if metadata.nlink() == 1 {
            kib += i64::try_from(metadata.blocks() / 2)?;
        }
    }
    Ok(kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_lines_are_four_speeds() {
        let told = "random 1048576 1000000000\nsequential 2097152 1000000000\nrandom 1048576 2000000000\nsequential 1048576 500000000\n";
        assert_eq!(speeds(told).unwrap(), [1.0, 2.0, 0.5, 2.0]);
        assert!(speeds("random 1 1\n").is_err());
        let speeds = Speeds { image: vec![6.0, 9.0], volume: vec![2.0, 1.0] };
        assert_eq!(speeds.ratio().unwrap(), Summary { median: 3.0, min: 3.0, max: 9.0 });
    }
}
