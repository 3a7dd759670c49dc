//! The results as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::Results;
use crate::by_clock::ByClock;
use crate::crowd::Crowd;
use crate::measure::Summary;
use crate::memory::Resident;
use crate::namespaces::{PEERS, Rounds};
use crate::network::Network;
use crate::reading::{Reading, Speeds};
use crate::sleeping::Idle;
use crate::vm::Vm;

/// The table.
pub fn table(results: &Results) -> String {
    let Results { namespaces, crowd, by_clock, vm, reading, network, network_vm } = results;
    let mut text = String::new();
    if let Some((rounds, idle)) = namespaces {
        of_namespaces(&mut text, rounds, idle);
    }
    if let Some(crowd) = crowd {
        text.push_str("\nrkt among 1,000 images and 10,000 pods that have ended\n");
        heading(&mut text, "ms");
        crowd.rows().for_each(|(name, time)| row(&mut text, &name, time));
    }
    if let Some(by_clock) = by_clock {
        let fetch = &by_clock.fetch;
        text.push_str("\nfetching an ACI of 500 MB, by this machine's clock\n");
        heading(&mut text, "ms");
        row(&mut text, "rkt fetch", Summary::of(&fetch.rkt));
        row(&mut text, "sha512sum, and one write", Summary::of(&fetch.hash_and_write));
        row(&mut text, "  rkt's speed of theirs, pair by pair", fetch.speed());
        text.push_str("\n10,000 pods that have ended, by this machine's clock\n");
        heading(&mut text, "ms");
        by_clock.lists().for_each(|(name, time)| row(&mut text, name, time));
        text.push_str("\npods of namespaces, by this machine's clock\n");
        heading(&mut text, "ms");
        row(&mut text, "--net=none, beyond --net=host", Summary::of(&by_clock.net_none_ms));
    }
    if let Some(vm) = vm {
        text.push_str("\nrkt run --stage1=kvm of busybox /bin/true, since the start\n");
        heading(&mut text, "ms");
        vm.marks.iter().for_each(|(name, time)| row(&mut text, name, Some(*time)));
        row(&mut text, "formatting its disk", Summary::of(&vm.format_ms));
        text.push_str("\nthe memory of such a pod beyond its guest's, while it sleeps\n");
        memory(&mut text, "VMM", vm.vmm);
        memory(&mut text, "pod's parent", vm.parent);
    }
    if let Some(reading) = reading {
        of_reading(&mut text, reading);
    }
    if let Some(network) = network {
        text.push_str("\nnetworks of pods of namespaces, from start to exit\n");
        heading(&mut text, "ms");
        network.starts().into_iter().for_each(|(name, _, time)| row(&mut text, name, time));
        networks(&mut text, network);
    }
    if let Some(network) = network_vm {
        text.push_str("\nnetworks of VMs and others\n");
        networks(&mut text, network);
    }
    text
}

fn of_namespaces(text: &mut String, rounds: &Rounds, idle: &Idle) {
    text.push_str("\nbusybox /bin/true, from start to exit\n");
    heading(text, "ms");
    row(text, "rkt run --stage1=nspawn", Summary::of(&rounds.rkt));
    row(text, "  with --private-users", Summary::of(&rounds.private_users));
    for (peer, times) in PEERS.iter().zip(&rounds.peers) {
        row(text, &format!("{peer} run"), Summary::of(times));
        row(text, &format!("  rkt / {peer}, pair by pair"), rounds.ratio(times));
        row(text, "  the same with --private-users", rounds.private_users_ratio(times));
    }
    text.push_str("\na pod of namespaces that sleeps\n");
    memory(text, "supervisor", idle.supervisor);
    let _ = writeln!(text, "  {:<36}{:>10.2}", "wake-ups a second", idle.wake_ups_a_second);
}

fn of_reading(text: &mut String, reading: &Reading) {
    text.push_str("\nreading in a VM what the host has in its page cache\n");
    heading(text, "MiB/s");
    for (what, speeds) in [("random 4 KiB", &reading.random), ("sequential 1 MiB", &reading.sequential)] {
        row(text, &format!("{what}, image"), Summary::of(&speeds.image));
        row(text, &format!("{what}, volume"), Summary::of(&speeds.volume));
        row(text, "  image / volume, pair by pair", speeds.ratio());
    }
    text.push_str("\na second pod of the same image: what it has mapped of its images\n");
    memory(text, "resident", reading.second.images);
    let growth = reading.second.page_cache_kib;
    let _ = writeln!(text, "  {:<36}{growth:>10} KiB", "growth of the host's page cache");
}

fn networks(text: &mut String, network: &Network) {
    text.push_str("\none stream of TCP on a bridge\n");
    heading(text, "MiB/s");
    network.ways.iter().for_each(|way| row(text, way.name, Summary::of(&way.stream)));
    peers(text, network, 0);
    text.push_str("\na byte there and back by TCP on a bridge\n");
    heading(text, "us");
    network.ways.iter().for_each(|way| row(text, way.name, Summary::of(&way.round_trip)));
    peers(text, network, 1);
    text.push_str("\na question to the metadata service, by a connection of its own\n");
    heading(text, "ms");
    let waited = network.metadata_ms.iter();
    waited.for_each(|(isolation, times)| row(text, &format!("from {isolation}"), Summary::of(times)));
}

/// Streams, which come first, or round trips in units of those of peers.
fn peers(text: &mut String, network: &Network, column: usize) {
    for ([ours, _, name], ratios) in network.ratios() {
        let label = format!("  {ours}, of {name}'s");
        match ratios {
            Some(ratios) => row(text, &label, ratios.get(column).copied().flatten()),
            None => _ = writeln!(text, "  {label:<36} no {name} on this machine"),
        }
    }
}

fn memory(text: &mut String, name: &str, resident: Resident) {
    let shared = "  shared pages in proportion";
    for (name, kib) in
        [(name, resident.rss_kib), (shared, resident.pss_kib), ("  private", resident.private_kib)]
    {
        let _ = writeln!(text, "  {name:<36}{:>10.2} MiB", kib as f64 / 1024.0);
    }
}

fn heading(text: &mut String, unit: &str) {
    let _ = writeln!(text, "  {unit:<36}{:>10}{:>10}{:>10}", "median", "min", "max");
}

fn row(text: &mut String, name: &str, summary: Option<Summary>) {
    if let Some(Summary { median, min, max }) = summary {
        let _ = writeln!(text, "  {name:<36}{median:>10.2}{min:>10.2}{max:>10.2}");
    }
}

/// The same for programs; times in milliseconds of the clock that `tests/bench` sets. What was not measured is not there.
pub fn json(results: &Results) -> Value {
    let Results { namespaces, crowd, by_clock, vm, reading, network, network_vm } = results;
    let of_crowd = |crowd: &Crowd| {
        let rows = crowd.rows().filter_map(|(name, time)| Some((name, time?.json())));
        Value::Object(rows.collect())
    };
    let parts = [
        ("nspawn", namespaces.as_ref().map(|(rounds, idle)| namespaces_json(rounds, idle))),
        ("crowd_ms", crowd.as_ref().map(of_crowd)),
        ("by_clock", by_clock.as_ref().map(by_clock_json)),
        ("kvm", vm.as_ref().map(vm_json)),
        ("kvm_reading", reading.as_ref().map(reading_json)),
        ("network", network.as_ref().map(networks_json)),
        ("network_vm", network_vm.as_ref().map(networks_json)),
    ];
    let measured = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
    Value::Object(measured.collect())
}

fn summary(values: &[f64]) -> Option<Value> {
    Summary::of(values).map(Summary::json)
}

fn namespaces_json(rounds: &Rounds, idle: &Idle) -> Value {
    let peers = PEERS.iter().zip(&rounds.peers);
    let peers: Map<String, Value> = peers
        .map(|(peer, times)| {
            let ratio = rounds.ratio(times).map(Summary::json);
            let private_users = rounds.private_users_ratio(times).map(Summary::json);
            let row = json!({
                "run_ms": summary(times), "rkt_ratio": ratio, "rkt_private_users_ratio": private_users,
            });
            ((*peer).to_owned(), row)
        })
        .collect();
    json!({
        "run_ms": summary(&rounds.rkt),
        "private_users_run_ms": summary(&rounds.private_users),
        "peers": peers,
        "supervisor_rss_kib": idle.supervisor.rss_kib,
        "supervisor_pss_kib": idle.supervisor.pss_kib,
        "supervisor_private_kib": idle.supervisor.private_kib,
        "idle_wake_ups_a_second": idle.wake_ups_a_second,
    })
}

fn by_clock_json(by_clock: &ByClock) -> Value {
    let fetch = &by_clock.fetch;
    let lists = by_clock.lists().map(|(name, time)| (name.to_owned(), json!(time.map(Summary::json))));
    json!({
        "fetch": {
            "rkt_ms": summary(&fetch.rkt),
            "hash_and_write_ms": summary(&fetch.hash_and_write),
            "speed": fetch.speed().map(Summary::json),
        },
        "of_10000_pods_ms": serde_json::Map::from_iter(lists),
        "net_none_ms": summary(&by_clock.net_none_ms),
    })
}

fn vm_json(vm: &Vm) -> Value {
    let marks: Vec<Value> =
        vm.marks.iter().map(|(name, time)| json!({ "mark": name, "since_start_ms": time.json() })).collect();
    json!({
        "timeline": marks,
        "format_disk_ms": summary(&vm.format_ms),
        "vmm_rss_beyond_guest_kib": vm.vmm.rss_kib,
        "vmm_pss_beyond_guest_kib": vm.vmm.pss_kib,
        "vmm_private_beyond_guest_kib": vm.vmm.private_kib,
        "parent_rss_kib": vm.parent.rss_kib,
        "parent_pss_kib": vm.parent.pss_kib,
        "parent_private_kib": vm.parent.private_kib,
    })
}

fn reading_json(reading: &Reading) -> Value {
    json!({
        "random_4_kib_reads": speeds(&reading.random),
        "sequential_1_mib_reads": speeds(&reading.sequential),
        "second_pod": {
            "mapped_images_rss_kib": reading.second.images.rss_kib,
            "mapped_images_private_kib": reading.second.images.private_kib,
            "page_cache_growth_kib": reading.second.page_cache_kib,
        },
    })
}

fn networks_json(network: &Network) -> Value {
    let ways = network.ways.iter().map(|way| {
        json!({
            "way": way.name,
            "stream_mib_a_second": summary(&way.stream),
            "round_trip_us": summary(&way.round_trip),
        })
    });
    let starts = network.starts().map(|(_, name, time)| (name.to_owned(), json!(time.map(Summary::json))));
    let waited = network.metadata_ms.iter();
    let waited = waited.map(|(isolation, times)| ((*isolation).to_owned(), json!(summary(times))));
    let ratios = network.ratios().map(|([ours, theirs, name], ratios)| {
        let absent = || json!(format!("no {name} on this machine"));
        let [stream, round_trip] = ratios.map_or_else(
            || [absent(), absent()],
            |ratios| ratios.map(|ratio| json!(ratio.map(Summary::json))),
        );
        json!({ "way": ours, "peer": theirs, "stream_ratio": stream, "round_trip_ratio": round_trip })
    });
    let ratios: Vec<Value> = ratios.collect();
    let mut json = Map::from_iter(starts);
    json.insert("ratios".into(), ratios.into());
    json.insert("ways".into(), ways.collect());
    json.insert("metadata_ms".into(), Value::Object(waited.collect()));
    json.into()
}

fn speeds(speeds: &Speeds) -> Value {
    json!({
        "image_mib_a_second": summary(&speeds.image),
        "volume_mib_a_second": summary(&speeds.volume),
        "ratio": speeds.ratio().map(Summary::json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Fetch;
    use crate::reading::SecondPod;
    use crate::ways::Way;

    #[test]
    fn table_and_json_agree() {
        let namespaces = Rounds {
            rkt: vec![10.0, 12.0, 11.0],
            private_users: vec![15.0, 18.0, 33.0],
            peers: [vec![20.0, 24.0, 44.0], vec![60.0; 3]],
        };
        let idle = Idle {
            supervisor: Resident { rss_kib: 1024, pss_kib: 768, private_kib: 512 },
            wake_ups_a_second: 0.0,
        };
        let marks = vec![("init".to_owned(), Summary { median: 90.0, min: 89.5, max: 91.0 })];
        let vm = Vm {
            marks,
            format_ms: vec![0.5],
            vmm: Resident { rss_kib: 2048, pss_kib: 1536, private_kib: 1024 },
            parent: Resident::default(),
        };
        let crowd = Crowd { start_up: vec![1.0], ..Crowd::default() };
        let fetch = Fetch { rkt: vec![4000.0], hash_and_write: vec![3600.0] };
        let by_clock =
            ByClock { fetch, lists: [vec![90.0], vec![250.0], vec![3.0]], net_none_ms: vec![0.25] };
        let images = Resident { rss_kib: 3072, pss_kib: 1536, private_kib: 0 };
        let reading = Reading {
            random: Speeds { image: vec![700.0], volume: vec![100.0] },
            sequential: Speeds { image: vec![800.0], volume: vec![100.0] },
            second: SecondPod { images, page_cache_kib: 0 },
        };
        let ways = vec![
            Way { name: "kvm to kvm", stream: vec![900.0], round_trip: vec![250.0] },
            Way { name: "host to kvm", stream: vec![600.0], round_trip: vec![120.0] },
            Way { name: "host to firecracker", stream: vec![480.0], round_trip: vec![150.0] },
        ];
        let metadata_ms = vec![("kvm", vec![3.5])];
        let network = Network { none_ms: vec![0.75], ways, metadata_ms, ..Network::default() };
        let results = Results {
            namespaces: Some((namespaces, idle)),
            crowd: Some(crowd),
            by_clock: Some(by_clock),
            vm: Some(vm),
            reading: Some(reading),
            network: Some(network),
            network_vm: None,
        };
        let text = table(&results);
        assert!(text.contains("0.50      0.25      0.50"), "{text}");
        assert!(text.contains("2.00 MiB"), "{text}");
        let json = json(&results);
        assert_eq!(json.pointer("/nspawn/peers/crun/rkt_ratio/median"), Some(&json!(0.5)));
        assert_eq!(json.pointer("/nspawn/peers/crun/rkt_private_users_ratio/median"), Some(&json!(0.75)));
        assert_eq!(json.pointer("/nspawn/supervisor_private_kib"), Some(&json!(512)));
        assert_eq!(json.pointer("/kvm/format_disk_ms/median"), Some(&json!(0.5)));
        assert_eq!(json.pointer("/crowd_ms/version, from start to exit/median"), Some(&json!(1.0)));
        assert_eq!(json.pointer("/by_clock/fetch/speed/median"), Some(&json!(0.9)));
        assert!(text.contains("7.00      7.00      7.00"), "{text}");
        assert_eq!(json.pointer("/kvm_reading/random_4_kib_reads/ratio/median"), Some(&json!(7.0)));
        assert_eq!(json.pointer("/kvm_reading/second_pod/mapped_images_rss_kib"), Some(&json!(3072)));
        assert!(text.contains("900.00    900.00"), "{text}");
        assert_eq!(json.pointer("/network/net_none_ms/median"), Some(&json!(0.75)));
        assert_eq!(json.pointer("/by_clock/net_none_ms/median"), Some(&json!(0.25)));
        assert_eq!(json.pointer("/network/ways/0/round_trip_us/max"), Some(&json!(250.0)));
        assert_eq!(json.pointer("/network/metadata_ms/kvm/min"), Some(&json!(3.5)));
        assert!(text.contains("from kvm"), "{text}");
        assert!(text.contains("1.25      1.25      1.25"), "{text}");
        assert!(text.contains("no firecracker on this machine"), "{text}");
        assert_eq!(json.pointer("/network/ratios/0/round_trip_ratio/median"), Some(&json!(0.8)));
        assert_eq!(
            json.pointer("/network/ratios/1/stream_ratio"),
            Some(&json!("no firecracker on this machine"))
        );
        assert_eq!(json.pointer("/kvm/timeline/0/since_start_ms/max"), Some(&json!(91.0)));
    }

    #[test]
    fn what_was_not_measured_is_not_told() {
        let network = Network { none_ms: vec![0.75], ..Network::default() };
        let results = Results { network: Some(network), ..Results::default() };
        let parts = json(&results);
        assert_eq!(parts.as_object().unwrap().keys().collect::<Vec<_>>(), ["network"]);
        assert!(!table(&results).contains("crun"));
    }
}
