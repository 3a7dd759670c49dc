//! Effective limits: one table computed from the isolators, which both isolations carry out. nspawn writes cgroups;
//! kvm turns the sums into vCPUs, a quota on their threads and guest memory, and writes the same cgroups in the guest.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::image_manifest::App;
use crate::isolator::Isolator;
use crate::pod_manifest::PodManifest;
use crate::quantity::Quantity;
use crate::types::AcName;

/// What an app may use that says nothing: one core.
pub const DEFAULT_CPU_MILLI: u64 = 1000;
/// What an app may use that says nothing: 512 MiB.
pub const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;
/// The least memory a limit may name; below it lies a forgotten unit (`16m` is 16 thousandths of a byte).
pub const MIN_MEMORY_BYTES: u64 = 4096;
/// The least CPU time a limit may name: the kernel's shortest quota, 1 ms in 100 ms.
pub const MIN_CPU_MILLI: u64 = 10;
/// How many processes and threads an app may have that says nothing: what a fork bomb gets.
pub const DEFAULT_PIDS: u64 = 2048;
/// The most that a limit of processes may name: the kernel has no more numbers (`PID_MAX_LIMIT`).
pub const MAX_PIDS: u64 = 4 << 20;
/// The shares of CPU time that the kernel knows; who says nothing has 1024.
pub const CPU_SHARES: RangeInclusive<u64> = 2..=262_144;
/// What the guest kernel and the supervisor use of a guest's memory before the first app.
pub const GUEST_BASE_BYTES: u64 = 48 << 20;
/// The guest kernel's page table of physical memory: 64 bytes for every 4096.
const GUEST_MEMMAP_SHARE: u64 = 64;
/// The most vCPUs a guest can have.
pub const MAX_VCPUS: u64 = 32;

/// A limit, and whether somebody asked for it: what nobody asked for may be left out where a host cannot enforce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The amount, in the unit that the field's name says.
    pub amount: u64,
    /// Whether it comes from an isolator, not from the defaults.
    pub explicit: bool,
}

/// The limits of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLimits {
    /// The app.
    pub app: AcName,
    /// CPU time, in thousandths of a core.
    pub cpu_milli: Limit,
    /// Its part of the CPU time where the pod's apps contend, if somebody asked for one: of [`CPU_SHARES`].
    pub cpu_shares: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Limit,
    /// Processes and threads.
    pub pids: Limit,
}

/// The limits of a pod's apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLimits {
    /// In the manifest's order.
    pub apps: Vec<AppLimits>,
}

impl PodLimits {
    /// The limits that a manifest means; of several isolators of one kind the last wins, as upstream's stage1 has it.
    pub fn of(manifest: &PodManifest) -> Result<Self, Error> {
        if let Some(isolator) = manifest.isolators.first() {
            return Err(Error::Unsupported(format!("isolator {} of a whole pod", isolator.name)));
        }
        let apps = manifest.apps.iter().map(|app| AppLimits::of(&app.name, app.app.as_ref()));
        Ok(Self { apps: apps.collect::<Result<_, _>>()? })
    }

    /// The pod's CPU time: the sum over its apps. One without apps has room for one that says nothing, which will come.
    pub fn cpu_milli(&self) -> u64 {
        if self.apps.is_empty() {
            return DEFAULT_CPU_MILLI;
        }
        self.apps.iter().fold(0, |sum, app| sum.saturating_add(app.cpu_milli.amount))
    }

    /// The pod's memory, likewise.
    pub fn memory_bytes(&self) -> u64 {
        if self.apps.is_empty() {
            return DEFAULT_MEMORY_BYTES;
        }
        self.apps.iter().fold(0, |sum, app| sum.saturating_add(app.memory_bytes.amount))
    }

    /// Whether an app that is to come can have what it asks for, in a machine of this size.
    pub fn admit(&self, app: &AppLimits) -> Result<(), Error> {
        let asked = [
            ("memory", app.memory_bytes, self.memory_bytes(), "bytes"),
            ("cpu", app.cpu_milli, self.cpu_milli().next_multiple_of(1000), "thousandths of a core"),
        ];
        for (name, limit, available, unit) in asked {
            if limit.explicit && limit.amount > available {
                return Err(Error::Invalid(format!(
                    "app \"{}\" is to have {} {unit} (--{name}), and the pod's machine has {available}",
                    app.app, limit.amount
                )));
            }
        }
        Ok(())
    }

    /// The memory that an app may use, if the pod has that app.
    pub fn memory_of(&self, app: &AcName) -> Option<u64> {
        self.apps.iter().find(|limits| limits.app == *app).map(|limits| limits.memory_bytes.amount)
    }

    /// The vCPUs of a VM pod: the sum, rounded up.
    pub fn vcpus(&self) -> Result<u8, Error> {
        let vcpus = self.cpu_milli().div_ceil(1000);
        match u8::try_from(vcpus) {
            Ok(vcpus) if u64::from(vcpus) <= MAX_VCPUS => Ok(vcpus),
            _ => Err(Error::Invalid(format!(
                "the apps ask for {vcpus} CPUs; a VM pod has at most {MAX_VCPUS}"
            ))),
        }
    }

    /// The guest's memory: what the apps may use plus what the guest kernel needs, in whole MiB.
    pub fn guest_memory_bytes(&self) -> Result<u64, Error> {
        const MIB: u64 = 1 << 20;
        let apps = self.memory_bytes();
        apps.checked_add(apps / GUEST_MEMMAP_SHARE)
            .and_then(|sum| sum.checked_add(GUEST_BASE_BYTES))
            .and_then(|sum| sum.checked_next_multiple_of(MIB))
            .ok_or_else(|| Error::Invalid(format!("the apps ask for {apps} bytes of memory")))
    }
}

impl AppLimits {
    fn of(name: &AcName, app: Option<&App>) -> Result<Self, Error> {
        let mut limits = Self {
            app: name.clone(),
            cpu_milli: Limit { amount: DEFAULT_CPU_MILLI, explicit: false },
            cpu_shares: None,
            memory_bytes: Limit { amount: DEFAULT_MEMORY_BYTES, explicit: false },
            pids: Limit { amount: DEFAULT_PIDS, explicit: false },
        };
        for raw in app.into_iter().flat_map(|app| &app.isolators) {
            match Isolator::try_from(raw)? {
                Isolator::Cpu(cpu) => {
                    if let Some(limit) = cpu.limit {
                        limits.cpu_milli = at_least(limit, Quantity::milli, MIN_CPU_MILLI, "resource/cpu")?;
                    }
                }
                Isolator::Memory(memory) => {
                    if let Some(limit) = memory.limit {
                        limits.memory_bytes =
                            at_least(limit, Quantity::units, MIN_MEMORY_BYTES, "resource/memory")?;
                    }
                }
                Isolator::CpuShares(shares) => limits.cpu_shares = Some(shares),
                Isolator::Pids(amount) => limits.pids = Limit { amount, explicit: true },
                _ => {}
            }
        }
        Ok(limits)
    }
}

fn at_least(
    limit: Quantity,
    unit: fn(Quantity) -> Option<u64>,
    least: u64,
    name: &str,
) -> Result<Limit, Error> {
    match unit(limit) {
        Some(amount) if amount >= least => Ok(Limit { amount, explicit: true }),
        Some(_) => Err(Error::Invalid(format!("{name}: {limit} is too little; is a unit missing?"))),
        None => Err(Error::Invalid(format!("{name}: {limit} is too much"))),
    }
}

/// The two cgroup interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// A hierarchy a controller.
    V1,
    /// One hierarchy.
    V2,
}

/// A value to write into a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSetting {
    /// The controller that the file belongs to.
    pub controller: String,
    /// The file's name.
    pub file: String,
    /// What to write.
    pub value: String,
    /// Whether the pod may start without it.
    pub required: bool,
}

/// The kernel's default period of CPU quotas.
const CPU_PERIOD_US: u64 = 100_000;

impl AppLimits {
    /// The limits as cgroup files, in writing order.
    pub fn cgroup_settings(&self, version: CgroupVersion) -> Vec<CgroupSetting> {
        let quota_us = self.cpu_milli.amount.saturating_mul(CPU_PERIOD_US / 1000);
        let (cpu, memory) = (self.cpu_milli.explicit, self.memory_bytes.explicit);
        let bytes = self.memory_bytes.amount.to_string();
        let row = |controller: &str, file: &str, value: String, required: bool| CgroupSetting {
            controller: controller.into(),
            file: file.into(),
            value,
            required,
        };
        // The same file in both.
        let pids = row("pids", "pids.max", self.pids.amount.to_string(), self.pids.explicit);
        let shares = self.cpu_shares.map(|shares| match version {
            CgroupVersion::V2 => row("cpu", "cpu.weight", weight(shares).to_string(), true),
            CgroupVersion::V1 => row("cpu", "cpu.shares", shares.to_string(), true),
        });
        let mut settings = match version {
            CgroupVersion::V2 => vec![
                row("cpu", "cpu.max", format!("{quota_us} {CPU_PERIOD_US}"), cpu),
                row("memory", "memory.max", bytes, memory),
                // Swap would let an app use more than its limit; hosts without swap accounting have no such file.
                row("memory", "memory.swap.max", "0".into(), false),
                pids,
            ],
            CgroupVersion::V1 => vec![
                row("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string(), cpu),
                row("cpu", "cpu.cfs_quota_us", quota_us.to_string(), cpu),
                row("memory", "memory.limit_in_bytes", bytes.clone(), memory),
                row("memory", "memory.memsw.limit_in_bytes", bytes, false),
                pids,
            ],
        };
        settings.extend(shares);
        settings
    }
}

/// Shares of cgroup v1 as a weight of cgroup v2, 1 to 10000: 1024 shares are the default weight of 100, as systemd has it.
fn weight(shares: u64) -> u64 {
    (shares.saturating_mul(100) / 1024).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(isolators: &str) -> Result<PodLimits, Error> {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a","image":{{"id":"sha512-{}"}},
            "app":{{"exec":["/a"],"user":"0","group":"0","isolators":[{isolators}]}}}}]}}"#,
            "0".repeat(64)
        );
        PodLimits::of(&PodManifest::parse(json.as_bytes())?)
    }

    #[test]
    fn isolators_of_a_whole_pod_are_not_ignored() {
        let mut manifest = PodManifest::new(Vec::new());
        let value = serde_json::json!({"limit": "1G"});
        manifest.isolators.push(crate::isolator::RawIsolator { name: "resource/memory".into(), value });
        let error = PodLimits::of(&manifest).unwrap_err();
        assert!(error.to_string().contains("resource/memory of a whole pod"), "{error}");
    }

    #[test]
    fn defaults() {
        let pod = limits("").unwrap();
        assert_eq!((pod.cpu_milli(), pod.memory_bytes()), (DEFAULT_CPU_MILLI, DEFAULT_MEMORY_BYTES));
        assert_eq!(pod.vcpus().unwrap(), 1);
        assert!(!pod.apps[0].memory_bytes.explicit);
    }

    #[test]
    fn the_last_isolator_wins_and_vcpus_round_up() {
        let cpu = |limit| format!(r#"{{"name":"resource/cpu","value":{{"limit":"{limit}"}}}}"#);
        let pod = limits(&format!("{},{}", cpu("500m"), cpu("1500m"))).unwrap();
        assert_eq!(pod.cpu_milli(), 1500);
        assert_eq!(pod.vcpus().unwrap(), 2);
        assert!(limits(&cpu("33")).unwrap().vcpus().is_err());
        assert!(limits(&cpu("1m")).is_err());
    }

    #[test]
    fn memory_without_its_unit_is_refused() {
        let memory = |limit| format!(r#"{{"name":"resource/memory","value":{{"limit":"{limit}"}}}}"#);
        assert!(limits(&memory("16m")).unwrap_err().to_string().contains("unit"));
        let pod = limits(&memory("128Mi")).unwrap();
        assert_eq!(pod.guest_memory_bytes().unwrap(), (128 + 2 + 48) << 20);
    }

    #[test]
    fn shares_are_weights_in_cgroup_v2() {
        assert_eq!([2, 1024, 4096, 262_144].map(weight), [1, 100, 400, 10_000]);
        let app = limits(r#"{"name":"os/linux/cpu-shares","value":1024}"#).unwrap().apps.remove(0);
        for (version, file, value) in
            [(CgroupVersion::V1, "cpu.shares", "1024"), (CgroupVersion::V2, "cpu.weight", "100")]
        {
            let last = app.cgroup_settings(version).pop().unwrap();
            assert_eq!((last.file.as_str(), last.value.as_str(), last.required), (file, value, true));
        }
    }

    #[test]
    fn cgroup_files() {
        let pod = limits(r#"{"name":"resource/cpu","value":{"limit":"250m"}}"#).unwrap();
        let v2 = pod.apps[0].cgroup_settings(CgroupVersion::V2);
        assert_eq!(
            (v2[0].file.as_str(), v2[0].value.as_str(), v2[0].required),
            ("cpu.max", "25000 100000", true)
        );
        assert!(!v2[1].required, "a default limit");
        let pod = limits(r#"{"name":"resource/pids","value":{"limit":64}}"#).unwrap();
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            let last = pod.apps[0].cgroup_settings(version).pop().unwrap();
            assert_eq!((last.file.as_str(), last.value.as_str(), last.required), ("pids.max", "64", true));
        }
    }
}
