//! What is resident of a process, in the bench's unit, from `/proc/PID/smaps`.

use std::fs;

use stage1::stats::mappings::{Mapping, Purpose, each};

use crate::Error;

/// In KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// All of it.
    pub rss_kib: u64,
    /// The same, with what several processes share divided among them (proc(5), `Pss`): this can be summed up.
    pub pss_kib: u64,
    /// What no other process shares.
    pub private_kib: u64,
}

impl Resident {
    /// The sum.
    fn and(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib + other.rss_kib,
            pss_kib: self.pss_kib + other.pss_kib,
            private_kib: self.private_kib + other.private_kib,
        }
    }

    fn of(mapping: Mapping) -> Self {
        Self {
            rss_kib: mapping.resident_bytes >> 10,
            pss_kib: mapping.proportional_bytes >> 10,
            private_kib: mapping.private_bytes >> 10,
        }
    }
}

/// All that is resident of a process.
pub fn of_process(process: u32) -> Result<Resident, Error> {
    Ok(sum(each(&fs::read_to_string(format!("/proc/{process}/smaps"))?)))
}

/// What is resident of a VMM without its guest's memory and images, by its `smaps`.
pub fn beyond_guest(smaps: &str) -> Resident {
    sum(each(smaps).filter(|mapping| mapping.purpose() == Purpose::Own))
}

/// What is resident of the images that a guest has mapped.
pub fn of_images(smaps: &str) -> Resident {
    sum(each(smaps).filter(|mapping| mapping.purpose() == Purpose::Image))
}

fn sum(mappings: impl Iterator<Item = Mapping>) -> Resident {
    mappings.map(Resident::of).fold(Resident::default(), Resident::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_left_out() {
        let mapping = |range: &str, permissions: &str, inode: u8, flags: &str| {
            format!(
                "{range} {permissions} 0 00:00 {inode} /x\nRss: 9 kB\nPss: 5 kB\nPrivate_Dirty: 1 kB\nVmFlags: {flags}\n"
            )
        };
        let smaps = mapping("400000-500000", "r-xp", 7, "mr")
            + &mapping("100000000-108000000", "rw-p", 0, "nr nh")
            + &mapping("200000000-200200000", "r--s", 8, "nr")
            + &mapping("7f0000000000-7f0000021000", "rw-p", 0, "nr");
        assert_eq!(beyond_guest(&smaps), Resident { rss_kib: 18, pss_kib: 10, private_kib: 2 });
        assert_eq!(of_images(&smaps), Resident { rss_kib: 9, pss_kib: 5, private_kib: 1 });
    }
}
