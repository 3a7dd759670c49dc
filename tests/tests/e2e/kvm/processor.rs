//! What a guest sees of the processor.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{BUSYBOX, Finished, Host, Process, image};

/// Prints what `processors` parses.
const SHOW: &str = "cat /proc/cpuinfo";

fn run(options: &[&str], app_options: &[&str], script: &str) -> Finished {
    let (busybox, host) = (image(BUSYBOX), Host::new());
    let arguments = [options, &[&busybox], app_options, &["--exec=/bin/sh", "--", "-c", script]].concat();
    Process::start(&mut host.run(&arguments)).finish()
}

/// `/proc/cpuinfo`: the titles of each processor.
fn processors(text: &str) -> Vec<BTreeMap<&str, &str>> {
    text.split("\n\n")
        .filter(|processor| processor.starts_with("processor"))
        .map(|processor| {
            let lines = processor.lines().filter_map(|line| line.split_once(':'));
            lines.map(|(title, value)| (title.trim(), value.trim())).collect()
        })
        .collect()
}

fn flags(text: &str) -> BTreeSet<String> {
    processors(text)[0]["flags"].split(' ').map(str::to_owned).collect()
}

/// The host's.
fn host_has(flag: &str) -> bool {
    flags(&std::fs::read_to_string("/proc/cpuinfo").unwrap()).contains(flag)
}

fn assert_flags(flags: &BTreeSet<String>, there: &[&str], not_there: &[&str]) {
    for flag in there {
        assert!(flags.contains(*flag), "{flag} is missing: {flags:?}");
    }
    for flag in not_there {
        assert!(!flags.contains(*flag), "{flag} is there: {flags:?}");
    }
}

#[test]
fn it_is_one_socket_of_cores() {
    let text = run(&[], &["--cpu=6"], SHOW).success().text();
    let processors = processors(&text);
    assert_eq!(processors.len(), 6);
    let cores: BTreeSet<_> = processors.iter().map(|processor| processor["core id"]).collect();
    assert_eq!(cores.len(), 6, "{cores:?}");
    for processor in &processors {
        let topology = ["physical id", "siblings", "cpu cores"].map(|title| processor[title]);
        assert_eq!(topology, ["0", "6", "6"]);
    }
}

#[test]
fn it_has_clocks_and_no_hypervisor_of_its_own() {
    const CLOCK: &str = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    let text = run(&[], &[], &format!("{SHOW}; {CLOCK}")).success().text();
    let clock = text.lines().last().unwrap();
    assert!(["kvm-clock", "tsc"].contains(&clock), "{clock}");
    let there = ["hypervisor", "tsc_deadline_timer", "x2apic"];
    let absent =
        ["vmx", "svm", "pdcm", "monitor", "arch_perfmon", "perfctr_core", "sgx", "intel_pt", "amx_tile"];
    assert_flags(&flags(&text), &there, &absent);
    if processors(&text)[0]["vendor_id"] == "AuthenticAMD" {
        assert_flags(&flags(&text), &[], &["arch_capabilities"]);
    }
}

/// A guest may have 32, but those take a minute to start where one emulated processor is all of them.
#[test]
fn there_are_as_many_as_are_asked_for() {
    assert_eq!(run(&[], &["--cpu=12", "--memory=1Gi"], "nproc").success().text(), "12\n");
}

#[test]
fn a_template_hides_what_is_above_it() {
    let text = run(&["--cpu-template=x86-64-v2"], &[], SHOW).success().text();
    let above = ["avx", "avx2", "aes", "pclmulqdq", "rdrand", "rdseed", "bmi1", "movbe", "xsave", "fsgsbase"];
    let level = ["cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"];
    assert_flags(&flags(&text), &level, &above);
}

/// Only a host that has all of a template runs guests of it; another names what it lacks, and makes no pod.
#[test]
fn a_template_is_had_in_full_or_not_at_all() {
    for (template, level, above) in [
        (
            "x86-64-v3",
            &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"][..],
            &["avx512f"][..],
        ),
        ("x86-64-v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"], &[]),
    ] {
        let option = format!("--cpu-template={template}");
        let missing: Vec<_> = level.iter().filter(|flag| !host_has(flag)).collect();
        if missing.is_empty() {
            // On an emulated processor a kernel may do without XSAVE, whatever it is told.
            let all = flags(&run(&[], &[], SHOW).success().text());
            let level: Vec<&str> = level.iter().copied().filter(|flag| all.contains(*flag)).collect();
            let seen = flags(&run(&[&option], &[], SHOW).success().text());
            assert_flags(&seen, &level, &[above, &["aes", "rdrand", "sha_ni", "pku", "xsaveopt"]].concat());
            continue;
        }
        let (busybox, host) = (image(BUSYBOX), Host::new());
        let refused = Process::start(&mut host.run(&[&option, &busybox])).finish().exited(254);
        assert!(refused.stderr.contains(template), "{}", refused.stderr);
        for flag in missing {
            assert!(refused.stderr.contains(&flag.to_uppercase()), "{flag}: {}", refused.stderr);
        }
        assert!(host.pods().is_empty());
    }
}

/// The administrator's configuration says it for all pods; whoever runs one can say otherwise.
#[test]
fn a_template_is_configured() {
    let (busybox, host) = (image(BUSYBOX), Host::new());
    let config = tempfile::tempdir().unwrap();
    std::fs::create_dir(config.path().join("stage1.d")).unwrap();
    let kind = r#"{"rktKind":"stage1","rktVersion":"v1","cpuTemplate":"x86-64-v2"}"#;
    std::fs::write(config.path().join("stage1.d/processor.json"), kind).unwrap();
    let local = format!("--local-config={}", config.path().display());
    for (option, is_hidden) in [(&[][..], true), (&["--cpu-template=host"], false)] {
        let arguments = [&[local.as_str()], option, &[&busybox, "--exec=/bin/sh", "--", "-c", SHOW]].concat();
        let text = Process::start(&mut host.run(&arguments)).finish().success().text();
        assert_eq!(flags(&text).contains("rdtscp"), host_has("rdtscp") && !is_hidden, "{option:?}");
    }
}
