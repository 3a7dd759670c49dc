//! The results as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::measure::Summary;
use crate::namespaces::{PEERS, Rounds};
use crate::vm::Vm;

/// The table.
pub fn table(namespaces: &Rounds, vm: &Vm) -> String {
    let mut text = String::from("\nbusybox /bin/true, from start to exit\n");
    heading(&mut text, "ms");
    row(&mut text, "rkt run --stage1=nspawn", Summary::of(&namespaces.rkt));
    for (peer, times) in PEERS.iter().zip(&namespaces.peers) {
        row(&mut text, &format!("{peer} run"), Summary::of(times));
        row(&mut text, &format!("  rkt / {peer}, pair by pair"), namespaces.ratio(times));
    }
    text.push_str("\nrkt run --stage1=kvm of the same, since the start\n");
    heading(&mut text, "ms");
    for (name, time) in &vm.marks {
        row(&mut text, name, Some(*time));
    }
    text.push_str("\nthe VMM's memory beyond its guest's, while the pod sleeps\n");
    for (name, kib) in [("resident", vm.resident.rss_kib), ("of it private", vm.resident.private_kib)] {
        let _ = writeln!(text, "  {name:<36}{:>10.2} MiB", kib as f64 / 1024.0);
    }
    text
}

fn heading(text: &mut String, unit: &str) {
    let _ = writeln!(text, "  {unit:<36}{:>10}{:>10}{:>10}", "median", "min", "max");
}

fn row(text: &mut String, name: &str, summary: Option<Summary>) {
    if let Some(Summary { median, min, max }) = summary {
        let _ = writeln!(text, "  {name:<36}{median:>10.2}{min:>10.2}{max:>10.2}");
    }
}

/// The same for programs; times in milliseconds of the clock that `tests/bench` sets.
pub fn json(namespaces: &Rounds, vm: &Vm) -> Value {
    let summary = |values: &[f64]| Summary::of(values).map(Summary::json);
    let peers = PEERS.iter().zip(&namespaces.peers);
    let peers: serde_json::Map<String, Value> = peers
        .map(|(peer, times)| {
            let ratio = namespaces.ratio(times).map(Summary::json);
            ((*peer).to_owned(), json!({ "run_ms": summary(times), "rkt_ratio": ratio }))
        })
        .collect();
    let marks: Vec<Value> =
        vm.marks.iter().map(|(name, time)| json!({ "mark": name, "since_start_ms": time.json() })).collect();
    json!({
        "nspawn": { "run_ms": summary(&namespaces.rkt), "peers": peers },
        "kvm": {
            "timeline": marks,
            "vmm_rss_beyond_guest_kib": vm.resident.rss_kib,
            "vmm_private_beyond_guest_kib": vm.resident.private_kib,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Resident;

    #[test]
    fn table_and_json_agree() {
        let rounds = Rounds { rkt: vec![10.0, 12.0, 11.0], peers: [vec![20.0, 24.0, 44.0], vec![60.0; 3]] };
        let marks = vec![("init".to_owned(), Summary { median: 90.0, min: 89.5, max: 91.0 })];
        let vm = Vm { marks, resident: Resident { rss_kib: 2048, private_kib: 1024 } };
        let text = table(&rounds, &vm);
        assert!(text.contains("0.50      0.25      0.50"), "{text}");
        assert!(text.contains("2.00 MiB"), "{text}");
        let json = json(&rounds, &vm);
        assert_eq!(json.pointer("/nspawn/peers/crun/rkt_ratio/median"), Some(&json!(0.5)));
        assert_eq!(json.pointer("/kvm/timeline/0/since_start_ms/max"), Some(&json!(91.0)));
    }
}
