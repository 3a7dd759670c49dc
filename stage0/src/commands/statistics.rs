//! What a pod uses, as a table for people.

use pod::statistics::{
    Cpu, GuestStatistics, Memory, Pids, PodStatistics, Pressure, Statistics, VmmStatistics,
};

use super::table;

/// A line for each app, one for the pod where it has a cgroup, and those of a VM: its guest's kernel, all of the guest, and the VMM.
pub fn rows(statistics: &PodStatistics) -> Vec<Vec<String>> {
    let titles = [
        "NAME",
        "CPU",
        "USER",
        "SYSTEM",
        "THROTTLED",
        "MEMORY",
        "PEAK",
        "LIMIT",
        "OOM KILLS",
        "READ",
        "WRITTEN",
        "PIDS",
        "PRESSURE CPU/MEMORY/IO",
    ];
    let apps = statistics.apps.iter().map(|app| row(app.name.as_str(), &app.statistics));
    let pod = statistics.pod.iter().map(|pod| row("(pod)", pod));
    let guest = statistics.guest.iter().flat_map(guest);
    let vmm = statistics.vmm.iter().map(vmm);
    let titles = std::iter::once(titles.map(str::to_owned).to_vec());
    titles.chain(apps).chain(pod).chain(guest).chain(vmm).collect()
}

fn row(name: &str, statistics: &Statistics) -> Vec<String> {
    let Statistics { cpu, memory, io, pids, pressure } = statistics;
    let number = |value: Option<u64>| value.map_or_else(none, |value| value.to_string());
    let read = io.as_ref().map(|io| io.read_bytes);
    let written = io.as_ref().map(|io| io.written_bytes);
    let pids = match pids.limit {
        Some(limit) => format!("{}/{limit}", number(pids.current)),
        None => number(pids.current),
    };
    let waited =
        [&pressure.cpu, &pressure.memory, &pressure.io].map(|of| of.as_ref().map_or_else(none, share));
    let waited = if waited.iter().all(|share| *share == none()) { none() } else { waited.join("/") };
    vec![
        name.to_owned(),
        time(cpu.usage_us),
        time(cpu.user_us),
        time(cpu.system_us),
        time(cpu.throttled_us),
        bytes(memory.current_bytes),
        bytes(memory.peak_bytes),
        bytes(memory.limit_bytes),
        number(memory.oom_kills),
        bytes(read),
        bytes(written),
        pids,
        waited,
    ]
}

/// What the guest's kernel takes of its RAM, and what of all its RAM the host has in memory.
fn guest(guest: &GuestStatistics) -> [Vec<String>; 2] {
    let row_of = |name: &str, current_bytes, limit_bytes| {
        let memory = Memory { current_bytes, limit_bytes, ..Memory::default() };
        row(name, &Statistics { memory, ..Statistics::default() })
    };
    [row_of("(kernel)", guest.kernel_bytes, None), row_of("(guest)", guest.resident_bytes, guest.ram_bytes)]
}

/// The VMM: all of its time, the guest's included, and its own memory.
fn vmm(vmm: &VmmStatistics) -> Vec<String> {
    let cpu = Cpu {
        usage_us: Some(vmm.user_us.saturating_add(vmm.system_us)),
        user_us: Some(vmm.user_us),
        system_us: Some(vmm.system_us),
        ..Cpu::default()
    };
    let memory = Memory { current_bytes: vmm.own_bytes, ..Memory::default() };
    let pids = Pids { current: vmm.threads, limit: None };
    row("(vmm)", &Statistics { cpu, memory, pids, ..Statistics::default() })
}

fn none() -> String {
    "-".to_owned()
}

fn time(us: Option<u64>) -> String {
    us.map_or_else(none, |us| format!("{}.{:03}s", us / 1_000_000, us % 1_000_000 / 1000))
}

/// A limit of cgroup v1 that is none is a number of this order.
const UNLIMITED: u64 = 1 << 60;

fn bytes(bytes: Option<u64>) -> String {
    bytes.filter(|bytes| *bytes < UNLIMITED).map_or_else(none, table::bytes)
}

/// How much of the last 10 seconds something has waited.
fn share(pressure: &Pressure) -> String {
    format!("{}%", pressure.some.avg10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pod::statistics::AppStatistics;

    #[test]
    fn every_row_has_every_column() {
        let statistics =
            Statistics { cpu: Cpu { usage_us: Some(1_234_567), ..Cpu::default() }, ..Statistics::default() };
        let app = AppStatistics { name: "web".parse().unwrap(), statistics: statistics.clone() };
        let guest =
            GuestStatistics { ram_bytes: Some(64 << 20), kernel_bytes: Some(5 << 20), ..Default::default() };
        let vmm = VmmStatistics { own_bytes: Some(2 << 20), user_us: 1000, ..Default::default() };
        let pod =
            PodStatistics { apps: vec![app], pod: Some(statistics), guest: Some(guest), vmm: Some(vmm) };
        let rows = rows(&pod);
        assert_eq!(rows.len(), 6);
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
        assert_eq!((rows[1][0].as_str(), rows[1][1].as_str(), rows[1][5].as_str()), ("web", "1.234s", "-"));
        assert_eq!((rows[3][0].as_str(), rows[3][5].as_str()), ("(kernel)", "5.0 MiB"));
        assert_eq!((rows[4][5].as_str(), rows[4][7].as_str()), ("-", "64.0 MiB"));
        assert_eq!(
            (rows[5][2].as_str(), rows[5][5].as_str(), rows[5][12].as_str()),
            ("0.001s", "2.0 MiB", "-")
        );
        assert_eq!(bytes(Some(i64::MAX as u64)), "-");
    }
}
