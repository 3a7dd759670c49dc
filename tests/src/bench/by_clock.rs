//! What is measured by the clock of the machine that the benchmark is started on, and not by virtual milliseconds: what takes long for
//! its disk, its processors' instructions for hashes, or a kernel that is not emulated.

use std::fs;
use std::path::Path;

use crate::crowd::{self, QUESTIONS};
use crate::fetch::Fetch;
use crate::measure::{Summary, time_ms};
use crate::{Bench, Error};

const ROUNDS: usize = 5;

/// The milliseconds of each round of each of [`QUESTIONS`], asked of ten thousand pods that have ended.
pub type Lists = [Vec<f64>; QUESTIONS.len()];

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct ByClock {
    pub fetch: Fetch,
    pub lists: Lists,
}

impl ByClock {
    /// Measures in a directory of the disk.
    pub fn measure(rkt: &Path, images: &Path, work: &Path) -> Result<Self, Error> {
        Ok(Self { fetch: Fetch::measure(rkt, work)?, lists: lists(rkt, images, work)? })
    }

    /// What [`Self::write`] has written.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (rkt, hash_and_write, lists) = serde_json::from_slice(&fs::read(path)?)?;
        Ok(Self { fetch: Fetch { rkt, hash_and_write }, lists })
    }

    /// Writes the figures down for the report, which is made elsewhere.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let Self { fetch: Fetch { rkt, hash_and_write }, lists } = self;
        Ok(fs::write(path, serde_json::to_vec(&(rkt, hash_and_write, lists))?)?)
    }

    /// Each question: its name, and what it comes to.
    pub fn lists(&self) -> impl Iterator<Item = (&'static str, Option<Summary>)> {
        QUESTIONS.iter().zip(&self.lists).map(|((name, _), times)| (*name, Summary::of(times)))
    }
}

fn lists(rkt: &Path, images: &Path, work: &Path) -> Result<Lists, Error> {
    let data = work.join("crowd");
    crowd::make_pods(rkt, &images.join("busybox.aci"), &data)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_the_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let fetch = Fetch { rkt: vec![4.0, 5.0], hash_and_write: vec![4.0, 4.0] };
        let lists = [vec![90.0], vec![250.0], vec![3.0]];
        ByClock { fetch, lists }.write(file.path()).unwrap();
        let read = ByClock::read(file.path()).unwrap();
        assert_eq!(read.fetch.rkt, [4.0, 5.0]);
        assert_eq!(read.fetch.speed().unwrap(), Summary { median: 0.8, min: 0.8, max: 1.0 });
        let (name, time) = read.lists().nth(1).unwrap();
        assert_eq!((name, time.unwrap().median), ("list --format=json", 250.0));
    }
}
