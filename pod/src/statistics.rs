//! What apps use, by the files of their cgroups (kernel: admin-guide/cgroup-v2 and cgroup-v1). The files are read by whoever
//! has them, on a host or in a guest; here is what they mean.

use serde::{Deserialize, Serialize};

use crate::types::AcName;

/// What the processes of a cgroup use and have used. What a kernel or a cgroup does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Time on CPUs.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Block devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Io>,
    /// Processes and threads.
    pub pids: Pids,
    /// How long they have waited.
    pub pressure: Pressures,
}

/// Time on CPUs, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// In all.
    pub usage_us: Option<u64>,
    /// In programs.
    pub user_us: Option<u64>,
    /// In the kernel.
    pub system_us: Option<u64>,
    /// In how many periods of 100 ms the limit was reached.
    pub throttled_periods: Option<u64>,
    /// How long the limit has kept them waiting.
    pub throttled_us: Option<u64>,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Now, with what the kernel caches for them.
    pub current_bytes: Option<u64>,
    /// The most so far.
    pub peak_bytes: Option<u64>,
    /// The most that is allowed.
    pub limit_bytes: Option<u64>,
    /// How many of their processes were killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// What went from and to block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Io {
    /// In bytes.
    pub read_bytes: u64,
    /// In bytes.
    pub written_bytes: u64,
    /// How many.
    pub reads: u64,
    /// How many.
    pub writes: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pids {
    /// Now.
    pub current: Option<u64>,
    /// The most that is allowed.
    pub limit: Option<u64>,
}

/// How long they have waited, and for what (kernel: accounting/psi).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressures {
    /// For a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    /// For memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    /// For block devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

/// Waiting for one thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one of them.
    pub some: Stall,
    /// All of them at once.
    pub full: Stall,
}

/// How much was waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Per cent of the last 10 seconds.
    pub avg10: f64,
    /// Per cent of the last minute.
    pub avg60: f64,
    /// Per cent of the last 5 minutes.
    pub avg300: f64,
    /// In all, in microseconds.
    pub total_us: u64,
}

/// An app's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppStatistics {
    /// The app.
    pub name: AcName,
    /// What it uses.
    #[serde(flatten)]
    pub statistics: Statistics,
}

/// What can be measured of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// An app.
    App(AcName),
    /// The guest as a whole, where there is one.
    Guest,
}

/// What a [`Subject`] uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measurement {
    /// An app.
    App(Box<Statistics>),
    /// The guest.
    Guest(GuestMemory),
}

/// A guest's memory as its kernel sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemory {
    /// What nobody uses, not even as a cache.
    pub free_bytes: u64,
}

/// Where the memory of a VM is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatistics {
    /// What the apps may use together.
    pub limit_bytes: u64,
    /// The guest's RAM: that, and room for its kernel.
    pub ram_bytes: Option<u64>,
    /// What of its RAM the host has in memory now.
    pub resident_bytes: Option<u64>,
    /// What of its RAM is free, as the guest says.
    pub free_bytes: u64,
    /// What the guest uses beside its apps, as it says: its kernel, the supervisor, and caches that are no app's.
    pub kernel_bytes: Option<u64>,
}

/// What the process that is a VM costs its host, the guest included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VmmStatistics {
    /// Its number.
    pub pid: u32,
    /// Time in programs, the guest's included, in microseconds.
    pub user_us: u64,
    /// Time in the host's kernel, in microseconds.
    pub system_us: u64,
    /// Memory that is resident, the guest's included.
    pub resident_bytes: Option<u64>,
    /// The most of it so far.
    pub peak_bytes: Option<u64>,
    /// What of it is resident now and neither the guest's RAM nor an image, which all VMs share.
    pub own_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// A pod's, as a stage1's `stats` entrypoint prints it in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodStatistics {
    /// In starting order.
    pub apps: Vec<AppStatistics>,
    /// The pod as its host sees it; only where it has a cgroup: all apps together, or all processes of its VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Statistics>,
    /// Only of a VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestStatistics>,
    /// Only of a VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm: Option<VmmStatistics>,
}

impl Statistics {
    /// From a cgroup's files, by `read`; of a cgroup in several v1 hierarchies, from whichever has the file.
    pub fn of(read: &dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            cpu: Cpu::of(read),
            memory: Memory::of(read),
            io: read("io.stat").map(|text| Io::of(&text)).or_else(|| Io::of_v1(read)),
            pids: Pids { current: number(read, "pids.current"), limit: number(read, "pids.max") },
            pressure: Pressures {
                cpu: read("cpu.pressure").map(|text| Pressure::of(&text)),
                memory: read("memory.pressure").map(|text| Pressure::of(&text)),
                io: read("io.pressure").map(|text| Pressure::of(&text)),
            },
        }
    }
}

/// Processes of a cgroup that were killed for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomKills {
    /// How many.
    pub count: u64,
    /// Whether the cgroup has ever reached its own limit. If not, there was no memory left in what it is a part of.
    pub own_limit: bool,
}

/// What was killed for want of memory.
pub fn oom_kills(read: &dyn Fn(&str) -> Option<String>) -> Option<OomKills> {
    if let Some(events) = read("memory.events") {
        let count = row(&events, "oom_kill")?;
        return Some(OomKills { count, own_limit: row(&events, "oom") != Some(0) });
    }
    let count = row(&read("memory.oom_control")?, "oom_kill")?;
    // cgroup v1 does not tell, and its `failcnt` counts nothing in newer kernels.
    let (limit, most) = (number(read, "memory.limit_in_bytes"), number(read, "memory.max_usage_in_bytes"));
    let own_limit =
        limit.zip(most).is_none_or(|(limit, most)| most.saturating_add(NEAR_LIMIT_BYTES) >= limit);
    Some(OomKills { count, own_limit })
}

/// How near to its limit a cgroup has been that has reached it: memory is charged in pieces.
const NEAR_LIMIT_BYTES: u64 = 1 << 20;

const NS_PER_US: u64 = 1000;

impl Cpu {
    fn of(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let stat = read("cpu.stat").unwrap_or_default();
        let v1 = |file| number(read, file).map(|ns| ns / NS_PER_US);
        Self {
            usage_us: row(&stat, "usage_usec").or_else(|| v1("cpuacct.usage")),
            user_us: row(&stat, "user_usec").or_else(|| v1("cpuacct.usage_user")),
            system_us: row(&stat, "system_usec").or_else(|| v1("cpuacct.usage_sys")),
            throttled_periods: row(&stat, "nr_throttled"),
            throttled_us: row(&stat, "throttled_usec")
                .or_else(|| row(&stat, "throttled_time").map(|ns| ns / NS_PER_US)),
        }
    }
}

impl Memory {
    fn of(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let either = |v2, v1| number(read, v2).or_else(|| number(read, v1));
        Self {
            current_bytes: either("memory.current", "memory.usage_in_bytes"),
            peak_bytes: either("memory.peak", "memory.max_usage_in_bytes"),
            limit_bytes: either("memory.max", "memory.limit_in_bytes"),
            oom_kills: oom_kills(read).map(|kills| kills.count),
        }
    }
}

impl Io {
    /// A device a line: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
    fn of(text: &str) -> Self {
        let sum = |name: &str| {
            let fields = text.split_whitespace().filter_map(|field| field.split_once('='));
            let values = fields.filter(|(key, _)| *key == name).filter_map(|(_, value)| value.parse().ok());
            values.fold(0, u64::saturating_add)
        };
        Self {
            read_bytes: sum("rbytes"),
            written_bytes: sum("wbytes"),
            reads: sum("rios"),
            writes: sum("wios"),
        }
    }

    /// Four lines and more a device, `8:0 Read 1`, and `Total 1` of all; that alone is of a cgroup that has used no device yet, or of
    /// a kernel that does not count (since 6.10, before something is throttled).
    fn of_v1(read: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let (bytes, numbers) = (
            read("blkio.throttle.io_service_bytes_recursive")?,
            read("blkio.throttle.io_serviced_recursive")?,
        );
        let sum = |text: &str, direction: &str| {
            let values = text.lines().filter_map(|line| {
                let (_, rest) = line.split_once(' ')?;
                rest.strip_prefix(direction)?.trim().parse::<u64>().ok()
            });
            values.reduce(u64::saturating_add)
        };
        Some(Self {
            read_bytes: sum(&bytes, "Read ")?,
            written_bytes: sum(&bytes, "Write ")?,
            reads: sum(&numbers, "Read ")?,
            writes: sum(&numbers, "Write ")?,
        })
    }
}

impl Pressure {
    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
    fn of(text: &str) -> Self {
        let stall = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
            let value = |name: &str| {
                line.split_whitespace()
                    .filter_map(|field| field.split_once('='))
                    .find(|(key, _)| *key == name)
            };
            let average = |name| value(name).and_then(|(_, text)| text.parse().ok()).unwrap_or_default();
            Stall {
                avg10: average("avg10"),
                avg60: average("avg60"),
                avg300: average("avg300"),
                total_us: value("total").and_then(|(_, text)| text.parse().ok()).unwrap_or_default(),
            }
        };
        Self { some: stall("some"), full: stall("full") }
    }
}

/// The number in a file; none if it says that there is no limit.
fn number(read: &dyn Fn(&str) -> Option<String>, file: &str) -> Option<u64> {
    read(file)?.trim().parse().ok()
}

/// The number behind a name, a pair a line.
fn row(text: &str, name: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Statistics {
        let read = |name: &str| {
            files.iter().find(|(file, _)| *file == name).map(|(_, content)| (*content).to_owned())
        };
        Statistics::of(&read)
    }

    #[test]
    fn unified() {
        let statistics = of(&[
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 2\nthrottled_usec 7\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n8:16 rbytes=10 wbytes=20 rios=30 wios=40\n9:0\n",
            ),
            ("pids.current", "5\n"),
            ("pids.max", "64\n"),
            ("memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.25 total=4\n"),
        ]);
        assert_eq!((statistics.cpu.usage_us, statistics.cpu.throttled_us), (Some(30), Some(7)));
        assert_eq!((statistics.memory.current_bytes, statistics.memory.limit_bytes), (Some(4096), None));
        assert_eq!(statistics.memory.oom_kills, Some(2));
        let io = statistics.io.clone().unwrap();
        assert_eq!((io.read_bytes, io.written_bytes, io.reads, io.writes), (11, 22, 33, 44));
        assert_eq!(statistics.pids, Pids { current: Some(5), limit: Some(64) });
        let memory = statistics.pressure.memory.clone().unwrap();
        assert_eq!((memory.some.avg10, memory.full.avg10, memory.full.total_us), (1.5, 0.25, 4));
        let json = serde_json::to_string(&statistics).unwrap();
        assert_eq!(serde_json::from_str::<Statistics>(&json).unwrap(), statistics);
    }

    #[test]
    fn legacy() {
        let statistics = of(&[
            ("cpu.stat", "nr_periods 9\nnr_throttled 2\nthrottled_time 7000\n"),
            ("cpuacct.usage", "30000"),
            ("memory.limit_in_bytes", "65536"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1"),
        ]);
        assert_eq!((statistics.cpu.usage_us, statistics.cpu.throttled_us), (Some(30), Some(7)));
        assert_eq!((statistics.memory.limit_bytes, statistics.memory.oom_kills), (Some(65536), Some(1)));
        assert_eq!(statistics.io, None);
    }

    #[test]
    fn who_is_killed_within_its_limit_is_not_to_blame() {
        let kills = |files: &[(&str, &str)]| {
            let read = |name: &str| files.iter().find(|file| file.0 == name).map(|file| file.1.to_owned());
            oom_kills(&read).map(|kills| (kills.count, kills.own_limit))
        };
        assert_eq!(kills(&[("memory.events", "oom 1\noom_kill 2\n")]), Some((2, true)));
        assert_eq!(kills(&[("memory.events", "oom 0\noom_kill 2\n")]), Some((2, false)));
        let legacy = |most| {
            let (limit, control) =
                (("memory.limit_in_bytes", "100663296"), ("memory.oom_control", "oom_kill 1"));
            kills(&[limit, control, ("memory.max_usage_in_bytes", most)])
        };
        assert_eq!([legacy("100630528"), legacy("37834752")], [Some((1, true)), Some((1, false))]);
        assert_eq!(kills(&[]), None);
    }

    #[test]
    fn legacy_disks() {
        let of = |bytes: &str, numbers: &str| {
            let files = [
                ("blkio.throttle.io_service_bytes_recursive", bytes),
                ("blkio.throttle.io_serviced_recursive", numbers),
            ];
            of(&files).io
        };
        let bytes = "8:16 Read 16384\n8:16 Write 4096\n8:16 Sync 20480\n8:16 Async 0\n8:16 Discard 0\n8:16 Total 20480\n\
            8:0 Read 512\n8:0 Write 0\n8:0 Sync 512\n8:0 Async 0\n8:0 Discard 0\n8:0 Total 512\nTotal 20992\n";
        let numbers = "8:16 Read 4\n8:16 Write 1\n8:16 Sync 5\n8:16 Async 0\n8:16 Discard 0\n8:16 Total 5\n\
            8:0 Read 1\n8:0 Write 0\n8:0 Sync 1\n8:0 Async 0\n8:0 Discard 0\n8:0 Total 1\nTotal 6\n";
        let sum = Io { read_bytes: 16896, written_bytes: 4096, reads: 5, writes: 1 };
        assert_eq!(of(bytes, numbers), Some(sum));
        assert_eq!(of("Total 0\n", "Total 0\n"), None, "nothing, or not counted");
        assert_eq!(of("8:0 Read x\n", "8:0\n"), None);
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(of(&[]), Statistics::default());
        let nonsense =
            of(&[("cpu.stat", "usage_usec\nuser_usec x"), ("io.stat", "="), ("cpu.pressure", "some")]);
        assert_eq!(nonsense.cpu, Cpu::default());
    }
}
