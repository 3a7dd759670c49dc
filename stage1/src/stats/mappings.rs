//! What a VMM's memory is, by the text of its `/proc/PID/smaps` (proc_pid_smaps(5)).
//!
//! The guest's RAM is what the VMM has mapped for itself, writable, without a reservation of swap (`nr`), and with advice on
//! huge pages (`hg`, `nh`); no allocator does all of that. Parts of it are a template's file. Its images are the files that it shares (`r--s`).

/// The guest's RAM, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ram {
    /// Its size.
    pub bytes: u64,
    /// What of it is resident and nobody's else: what it shares with other guests by a template is not counted.
    pub resident_bytes: u64,
}

/// What of a VMM is resident, and what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// For the guest; nothing if this kernel does not show which mappings it has: with huge pages left out, or with strict
    /// accounting of memory (`vm.overcommit_memory` 2).
    pub ram: Option<Ram>,
    /// For the VMM itself, and if there is no `ram`, for the guest as well.
    pub own_bytes: u64,
}

/// From the whole text.
pub fn parse(smaps: &str) -> Mappings {
    let mut all = Mappings::default();
    for mapping in each(smaps) {
        match mapping.purpose() {
            Purpose::Ram => {
                let ram = all.ram.get_or_insert_default();
                ram.bytes = ram.bytes.saturating_add(mapping.bytes);
                ram.resident_bytes = ram.resident_bytes.saturating_add(mapping.anonymous_bytes);
            }
            Purpose::Image => {}
            Purpose::Own => all.own_bytes = all.own_bytes.saturating_add(mapping.resident_bytes),
        }
    }
    all
}

/// The mappings that the text tells of, one by one.
pub fn each(smaps: &str) -> impl Iterator<Item = Mapping> {
    let mut mapping = Mapping::default();
    smaps.lines().filter_map(move |line| {
        mapping = match Mapping::begin(line) {
            Some(next) => next,
            None => mapping.with(line),
        };
        // The last line of a mapping.
        line.starts_with(FLAGS).then_some(mapping)
    })
}

const FLAGS: &str = "VmFlags:";

/// What a VMM has mapped something for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The guest's memory.
    Ram,
    /// The guest's images.
    Image,
    /// Itself.
    Own,
}

/// One mapping.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mapping {
    /// Its size.
    pub bytes: u64,
    /// What of it is resident (proc_pid_smaps(5), `Rss`).
    pub resident_bytes: u64,
    /// The same, with what several processes share divided among them (`Pss`): this can be summed up over processes.
    pub proportional_bytes: u64,
    /// What no other process shares.
    pub private_bytes: u64,
    private_writable: bool,
    shared_read_only: bool,
    has_file: bool,
    guest_flags: bool,
    /// What of it is not a file's.
    anonymous_bytes: u64,
}

impl Mapping {
    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        if self.private_writable && self.guest_flags {
            Purpose::Ram
        } else if self.shared_read_only && self.has_file {
            Purpose::Image
        } else {
            Purpose::Own
        }
    }

    /// From a line like `7f00-7f10 rw-p 00000000 00:00 0   /path`.
    fn begin(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let bytes = address(end)?.checked_sub(address(start)?)?;
        let permissions = words.next()?;
        let inode = words.nth(2)?;
        Some(Self {
            private_writable: permissions == "rw-p",
            shared_read_only: permissions == "r--s",
            has_file: inode != "0",
            bytes,
            ..Self::default()
        })
    }

    /// With what a further line tells of it.
    fn with(mut self, line: &str) -> Self {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let bytes = || {
            let kib = value.trim().trim_end_matches("kB").trim_end().parse::<u64>();
            kib.unwrap_or_default().saturating_mul(1 << 10)
        };
        match name {
            "Rss" => self.resident_bytes = bytes(),
            "Pss" => self.proportional_bytes = bytes(),
            "Anonymous" => self.anonymous_bytes = bytes(),
            "Private_Clean" | "Private_Dirty" => {
                self.private_bytes = self.private_bytes.saturating_add(bytes());
            }
            "VmFlags" => {
                let has = |wanted: &str| value.split_whitespace().any(|flag| flag == wanted);
                self.guest_flags = has("nr") && (has("hg") || has("nh"));
            }
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template's file, of which one page is shared in each mapping.
    const TEMPLATE: u8 = 9;

    fn mapping(range: &str, permissions: &str, inode: u8, rss: u64, flags: &str) -> String {
        let anonymous = if inode == TEMPLATE { rss - 4 } else { rss };
        format!(
            "{range} {permissions} 00000000 00:00 {inode}   /x y\nSize:  4 kB\nRss:   {rss} kB\nPss: 1 kB\n\
             Private_Clean: 2 kB\nPrivate_Dirty: 3 kB\nAnonymous: {anonymous} kB\nVmFlags: rd wr mr {flags}\n"
        )
    }

    #[test]
    fn each_kind() {
        let smaps = [
            // RAM, in pieces, one of them a template's.
            mapping("200000-400000", "rw-p", 0, 100, "nr nh"),
            mapping("400000-600000", "rw-p", 0, 4, "nr hg"),
            mapping("600000-700000", "rw-p", TEMPLATE, 7, "nr hg"),
            // Stacks, heaps, the program, and what somebody has mapped of a file.
            mapping("700000-800000", "rw-p", 0, 1, "ac nh"),
            mapping("800000-900000", "rw-p", 0, 2, "nr"),
            mapping("a00000-a01000", "r-xp", 5, 4, ""),
            mapping("b00000-b01000", "rw-p", 5, 8, "ac nh"),
            // An image, and what it does not fill.
            mapping("c00000-e00000", "r--s", 7, 1000, "nr"),
            mapping("e00000-f00000", "r--p", 0, 16, "nr"),
        ];
        let ram = Ram { bytes: 5 << 20, resident_bytes: 107 << 10 };
        assert_eq!(parse(&smaps.concat()), Mappings { ram: Some(ram), own_bytes: 31 << 10 });
    }

    #[test]
    fn what_is_shared_is_told_apart() {
        let smaps =
            mapping("a00000-a01000", "r-xp", 5, 8, "") + &mapping("b00000-b01000", "r--s", 5, 9, "nr");
        let told: Vec<_> = each(&smaps)
            .map(|m| (m.purpose(), m.resident_bytes >> 10, m.proportional_bytes >> 10, m.private_bytes >> 10))
            .collect();
        assert_eq!(told, [(Purpose::Own, 8, 1, 5), (Purpose::Image, 9, 1, 5)]);
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(parse(""), Mappings::default());
        assert_eq!(
            parse("x\n-\nVmFlags:\nRss: x\n9-8 rw-p 0 0 0\nRss: 1 MB\nVmFlags: nr nh"),
            Mappings::default()
        );
    }
}
