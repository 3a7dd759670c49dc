//! What a pod uses, as a table for people.

use pod::statistics::{PodStatistics, Pressure, Statistics, VmmStatistics};

use super::table;

/// A line for each app, one for the pod, and one for the process that is its VM.
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
    let vmm = statistics.vmm.iter().map(vmm);
    std::iter::once(titles.map(str::to_owned).to_vec()).chain(apps).chain(pod).chain(vmm).collect()
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
        waited.join("/"),
    ]
}

/// What the machine costs its host, the guest included.
fn vmm(vmm: &VmmStatistics) -> Vec<String> {
    let mut row = vec![
        "(vmm)".to_owned(),
        time(Some(vmm.user_us.saturating_add(vmm.system_us))),
        time(Some(vmm.user_us)),
        time(Some(vmm.system_us)),
        none(),
        bytes(vmm.resident_bytes),
        bytes(vmm.peak_bytes),
    ];
    row.extend([
        none(),
        none(),
        none(),
        none(),
        vmm.threads.map_or_else(none, |threads| threads.to_string()),
        none(),
    ]);
    row
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
    use pod::statistics::{AppStatistics, Cpu};

    #[test]
    fn every_row_has_every_column() {
        let statistics =
            Statistics { cpu: Cpu { usage_us: Some(1_234_567), ..Cpu::default() }, ..Statistics::default() };
        let app = AppStatistics { name: "web".parse().unwrap(), statistics: statistics.clone() };
        let pod =
            PodStatistics { apps: vec![app], pod: Some(statistics), vmm: Some(VmmStatistics::default()) };
        let rows = rows(&pod);
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
        assert_eq!((rows[1][0].as_str(), rows[1][1].as_str(), rows[1][5].as_str()), ("web", "1.234s", "-"));
        assert_eq!(bytes(Some(i64::MAX as u64)), "-");
    }
}
