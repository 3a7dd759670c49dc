//! What is measured by the clock of the machine that the benchmark is started on, and not by virtual milliseconds: what takes long for
//! its disk, its processors' instructions for hashes, or a kernel that is not emulated.

use std::fs;
use std::path::Path;

use crate::crowd::{self, QUESTIONS};
use crate::fetch::Fetch;
use crate::measure::{self, Summary, settle, time_ms};
use crate::{Bench, Error};

const ROUNDS: usize = 5;
/// A start varies by more than what a namespace costs.
const PAIRS: usize = 40;

/// The milliseconds of each round of each of [`QUESTIONS`], asked of ten thousand pods that have ended.
pub type Lists = [Vec<f64>; QUESTIONS.len()];

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct ByClock {
    pub fetch: Fetch,
    pub lists: Lists,
    /// The milliseconds that a pod of namespaces takes more with `--net=none` than with `--net=host`, pair by pair.
    pub net_none_ms: Vec<f64>,
}

impl ByClock {
    /// Measures in a directory of the disk.
    pub fn measure(rkt: &Path, images: &Path, work: &Path) -> Result<Self, Error> {
        let image = images.join("busybox.aci");
        Ok(Self {
            fetch: Fetch::measure(rkt, work)?,
            lists: lists(rkt, &image, work)?,
            net_none_ms: net_none_ms(rkt, &image, work)?,
        })
    }

    /// What [`Self::write`] has written.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (rkt, hash_and_write, lists, net_none_ms) = serde_json::from_slice(&fs::read(path)?)?;
        Ok(Self { fetch: Fetch { rkt, hash_and_write }, lists, net_none_ms })
    }

    /// Writes the figures down for the report, which is made elsewhere.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let Self { fetch: Fetch { rkt, hash_and_write }, lists, net_none_ms } = self;
        Ok(fs::write(path, serde_json::to_vec(&(rkt, hash_and_write, lists, net_none_ms))?)?)
    }

    /// Each question: its name, and what it comes to.
    pub fn lists(&self) -> impl Iterator<Item = (&'static str, Option<Summary>)> {
        QUESTIONS.iter().zip(&self.lists).map(|((name, _), times)| (*name, Summary::of(times)))
    }
}

fn lists(rkt: &Path, image: &Path, work: &Path) -> Result<Lists, Error> {
    let data = work.join("crowd");
    crowd::make_pods(rkt, image, &data)?;
    let mut lists = Lists::default();
    for round in 0..=ROUNDS {
        for ((_, words), times) in QUESTIONS.iter().zip(&mut lists) {
            let time = time_ms(Bench::rkt_in(rkt, &data).args(*words))?;
            // The first round is to warm up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    fs::remove_dir_all(&data)?;
    Ok(lists)
}

/// Which of a pair is first changes from pair to pair: the kernel takes a namespace away while the next pod runs.
fn net_none_ms(rkt: &Path, image: &Path, work: &Path) -> Result<Vec<f64>, Error> {
    let data = work.join("none");
    let start = |net| {
        let mut command = Bench::rkt_in(rkt, &data);
        command.args(["run", "--stage1=nspawn", net]).arg(image).args(["--exec=/bin/true"]);
        settle();
        time_ms(&mut command)
    };
    let mut beyond = Vec::new();
    for pair in 0..=PAIRS {
        let (host, none) = if pair % 2 == 0 {
            let host = start("--net=host")?;
            (host, start("--net=none")?)
        } else {
            let none = start("--net=none")?;
            (start("--net=host")?, none)
        };
        // The first pair is to warm up.
        if pair > 0 {
            beyond.push(none - host);
        }
    }
    measure::run(Bench::rkt_in(rkt, &data).args(["gc", "--grace-period=0s"]))?;
    fs::remove_dir_all(&data)?;
    Ok(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_the_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let fetch = Fetch { rkt: vec![4.0, 5.0], hash_and_write: vec![4.0, 4.0] };
        let lists = [vec![90.0], vec![250.0], vec![3.0]];
        ByClock { fetch, lists, net_none_ms: vec![0.5] }.write(file.path()).unwrap();
        let read = ByClock::read(file.path()).unwrap();
        assert_eq!(read.fetch.rkt, [4.0, 5.0]);
        assert_eq!(read.fetch.speed().unwrap(), Summary { median: 0.8, min: 0.8, max: 1.0 });
        assert_eq!(read.net_none_ms, [0.5]);
        let (name, time) = read.lists().nth(1).unwrap();
        assert_eq!((name, time.unwrap().median), ("list --format=json", 250.0));
    }
}
