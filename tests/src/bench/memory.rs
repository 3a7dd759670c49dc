//! The memory of a VMM beyond its guest's, from `/proc/PID/smaps`.
//!
//! The guest's memory and images are mapped without a reservation of swap (the `nr` flag), in pieces that lie side by
//! side; so are the heaps of the allocator, which are far smaller.

use std::fs;

use crate::Error;

/// No heap is as large, and every guest of the benchmark is larger.
const GUEST_KIB_MIN: u64 = 100 << 10;

/// One mapping.
#[derive(Debug, Default)]
struct Mapping {
    start: u64,
    end: u64,
    path: String,
    rss_kib: u64,
    pss_kib: u64,
    private_kib: u64,
    no_reserve: bool,
}

/// What is resident of a process, in KiB, without its guest's memory and images.
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
    pub fn and(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib + other.rss_kib,
            pss_kib: self.pss_kib + other.pss_kib,
            private_kib: self.private_kib + other.private_kib,
        }
    }
}

/// All that is resident of a process.
pub fn of_process(process: u32) -> Result<Resident, Error> {
    Ok(sum(&parse(&fs::read_to_string(format!("/proc/{process}/smaps"))?)))
}

/// The resident memory that `smaps` tells of.
pub fn beyond_guest(smaps: &str) -> Resident {
    let mappings = parse(smaps);
    sum(side_by_side(&mappings).into_iter().filter(|group| !is_guest(group)).flatten())
}

/// What is resident of the images that a guest has mapped.
pub fn of_images(smaps: &str) -> Resident {
    sum(parse(smaps).iter().filter(|mapping| is_image(mapping)))
}

fn is_image(mapping: &Mapping) -> bool {
    mapping.path.ends_with(".erofs")
}

fn sum<'m>(mappings: impl IntoIterator<Item = &'m Mapping>) -> Resident {
    mappings.into_iter().fold(Resident::default(), |sum, mapping| Resident {
        rss_kib: sum.rss_kib + mapping.rss_kib,
        pss_kib: sum.pss_kib + mapping.pss_kib,
        private_kib: sum.private_kib + mapping.private_kib,
    })
}

fn is_guest(group: &[&Mapping]) -> bool {
    let kib: u64 = group.iter().map(|mapping| (mapping.end - mapping.start) >> 10).sum();
    let no_reserve = group.iter().all(|mapping| mapping.no_reserve);
    no_reserve && (kib >= GUEST_KIB_MIN || group.iter().any(|mapping| is_image(mapping)))
}

/// Groups of mappings that follow each other without a gap and agree in their reservation.
fn side_by_side(mappings: &[Mapping]) -> Vec<Vec<&Mapping>> {
    let mut groups: Vec<Vec<&Mapping>> = Vec::new();
    for mapping in mappings {
        match groups.last_mut() {
            Some(group)
                if group.last().is_some_and(|last| {
                    last.end == mapping.start && last.no_reserve == mapping.no_reserve
                }) =>
            {
                group.push(mapping);
            }
            _ => groups.push(vec![mapping]),
        }
    }
    groups
}

fn parse(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = header(line) {
            mappings.push(mapping);
        } else if let Some(mapping) = mappings.last_mut() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let kib = || value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            match name {
                "Rss" => mapping.rss_kib = kib(),
                "Pss" => mapping.pss_kib = kib(),
                "Private_Clean" | "Private_Dirty" => mapping.private_kib += kib(),
                "VmFlags" => mapping.no_reserve = value.split_whitespace().any(|flag| flag == "nr"),
                _ => {}
            }
        }
    }
    mappings
}

/// From a line like `7f00-7f10 rw-p 00000000 00:00 0   /path`.
fn header(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let path = words.nth(4).unwrap_or_default().to_owned();
    Some(Mapping { start, end, path, ..Mapping::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(range: &str, path: &str, rss: u64, flags: &str) -> String {
        format!(
            "{range} rw-p 00000000 00:00 0 {path}\nSize: 1 kB\nRss: {rss} kB\nPss: {rss} kB\nPrivate_Clean: 1 kB\n\
             Private_Dirty: {} kB\nVmFlags: rd wr {flags}\n",
            rss - 1
        )
    }

    #[test]
    fn the_guest_is_left_out() {
        let smaps = [
            mapping("400000-500000", "/usr/lib/rkt/stage1-kvm", 900, "mr"),
            // Guest memory of 128 MiB, with the kernel in its midst.
            mapping("100000000-101000000", "", 4000, "nr nh"),
            mapping("101000000-102000000", "", 8000, "nr hg"),
            mapping("102000000-108000000", "", 50000, "nr nh"),
            // A thread's stack that happens to follow it.
            mapping("108000000-108020000", "", 16, "ac"),
            mapping("200000000-200200000", "/var/lib/rkt/image.erofs", 700, "nr"),
            // A heap of the allocator.
            mapping("7f0000000000-7f0000021000", "", 100, "nr"),
        ];
        assert_eq!(
            beyond_guest(&smaps.concat()),
            Resident { rss_kib: 1016, pss_kib: 1016, private_kib: 1016 }
        );
        assert_eq!(of_images(&smaps.concat()), Resident { rss_kib: 700, pss_kib: 700, private_kib: 700 });
    }
}
