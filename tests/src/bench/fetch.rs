//! Fetching a large image beside what no import can do without: hashing it once, as sha512sum(1) does, and writing it to the disk once.
//!
//! By the clock of the machine that this is built on, with its disk and its processors' instructions for hashes, none of which is
//! in virtual milliseconds.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use erofs::{Kind, Metadata};

use crate::measure::{Summary, time_ms};
use crate::{Bench, Error, aci};

const ROUNDS: usize = 5;
const BYTES: u64 = 500_000_000;

/// The milliseconds of each round.
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// Of `rkt fetch`.
    pub rkt: Vec<f64>,
    /// Of sha512sum and dd, together.
    pub hash_and_write: Vec<f64>,
}

impl Fetch {
    /// The speed of rkt, of which the other is 1, pair by pair.
    pub fn speed(&self) -> Option<Summary> {
        let speeds: Vec<f64> =
            self.hash_and_write.iter().zip(&self.rkt).map(|(other, rkt)| other / rkt).collect();
        Summary::of(&speeds)
    }

    /// Fetches in a directory of the disk.
    pub fn measure(rkt: &Path, work: &Path) -> Result<Self, Error> {
        let (image, copy, data) = (work.join("large.aci"), work.join("copy"), work.join("rkt"));
        make(&image)?;
        let mut fetch = Self::default();
        for round in 0..=ROUNDS {
            let hash = time_ms(Command::new("sha512sum").arg(&image))?;
            let mut write = Command::new("dd");
            write.args(["bs=1M", "conv=fsync", "status=none"]);
            write.arg(format!("if={}", image.display())).arg(format!("of={}", copy.display()));
            let write = time_ms(&mut write)?;
            fs::remove_file(&copy)?;
            let import = time_ms(Bench::rkt_in(rkt, &data).arg("fetch").arg(&image))?;
            fs::remove_dir_all(&data)?;
            // The first round is to warm up.
            if round > 0 {
                fetch.hash_and_write.push(hash + write);
                fetch.rkt.push(import);
            }
        }
        fs::remove_file(&image)?;
        Ok(fetch)
    }
}

/// An ACI with one file that nothing can make smaller.
fn make(path: &Path) -> Result<(), Error> {
    let mut archive = aci::begin(File::create(path)?, "example.com/large")?;
    let mut data = File::open("/dev/urandom")?.take(BYTES);
    let metadata = Metadata::root_owned(0o644);
    let node = pack::Node {
        kind: Kind::Regular,
        metadata: &metadata,
        target: b"",
        data: &mut data,
        size: BYTES,
        identity: None,
    };
    archive.add(b"data", node)?;
    archive.finish()?.sync_all()?;
    Ok(())
}
