//! Effective limits: one table computed from the isolators, which both isolations carry out. nspawn writes cgroups;
//! kvm turns the sums into vCPUs, a quota on their threads and guest memory, and writes the same cgroups in the guest.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::isolator::{Isolator, RawIsolator};
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
/// The guest kernel's descriptors of physical memory and of what is mapped like it: 64 bytes for every 4096.
pub const GUEST_DESCRIPTORS_SHARE: u64 = 64;
/// Guests have memory in steps of this, so that there are few shapes of machines: each that boots is kept for others.
pub const GUEST_STEP_BYTES: u64 = 16 << 20;
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
    /// In the manifest's order; none is above the whole pod's.
    pub apps: Vec<AppLimits>,
    /// Those of the whole pod, where somebody asked for some.
    pub pod: Option<AppLimits>,
}

/// What the limits of a whole pod are called.
const WHOLE_POD: &str = "pod";

impl PodLimits {
    /// The limits that a manifest means; of several isolators of one kind the last wins, as upstream's stage1 has it.
    pub fn of(manifest: &PodManifest) -> Result<Self, Error> {
        let pod = of_whole_pod(manifest)?;
        let apps = manifest.apps.iter().map(|app| {
            let limits = AppLimits::of(&app.name, app.isolators())?;
            Ok(pod.iter().fold(limits, AppLimits::within))
        });
        Ok(Self { apps: apps.collect::<Result<_, Error>>()?, pod })
    }

    /// The pod's CPU time: what it has as a whole, or the sum over its apps. One without apps has room for one that says
    /// nothing, which will come.
    pub fn cpu_milli(&self) -> u64 {
        self.sum(|limits| limits.cpu_milli, DEFAULT_CPU_MILLI)
    }

    /// The pod's memory, likewise.
    pub fn memory_bytes(&self) -> u64 {
        self.sum(|limits| limits.memory_bytes, DEFAULT_MEMORY_BYTES)
    }

    fn sum(&self, of: fn(&AppLimits) -> Limit, room: u64) -> u64 {
        let of_pod = self.pod.as_ref().map(of).filter(|limit| limit.explicit);
        match (of_pod, self.apps.as_slice()) {
            (Some(limit), _) => limit.amount,
            (None, []) => room,
            (None, apps) => apps.iter().fold(0, |sum, app| sum.saturating_add(of(app).amount)),
        }
    }

    /// Whether a machine can be what the pod asks for as a whole.
    pub fn check_for_vm(&self) -> Result<(), Error> {
        match &self.pod {
            Some(pod) if pod.pids.explicit => Err(Error::Unsupported(
                "a limit of the processes of a whole pod in a micro-VM, which has a kernel of its own: limit its apps,"
                    .into(),
            )),
            _ => Ok(()),
        }
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

    /// What the cgroup around the apps' has in a guest: the pod's memory, where it is limited as a whole. If only the machine's size
    /// limited it, the guest's kernel would run out together with the apps, and before it kills any of them it takes away
    /// what it can read again, the programs that run, over and over.
    pub fn guest_settings(&self) -> Vec<CgroupSetting> {
        let whole = self.pod.iter().filter(|pod| pod.memory_bytes.explicit);
        let settings = whole.flat_map(|pod| pod.cgroup_settings(CgroupVersion::V2));
        settings.filter(|setting| setting.controller == "memory").collect()
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

    /// The guest's memory: what the apps may use plus what the guest kernel needs, `mapped_bytes` of images included, in whole steps.
    pub fn guest_memory_bytes(&self, mapped_bytes: u64) -> Result<u64, Error> {
        let apps = self.memory_bytes();
        apps.checked_add(apps / GUEST_DESCRIPTORS_SHARE)
            .and_then(|sum| sum.checked_add(mapped_bytes / GUEST_DESCRIPTORS_SHARE))
            .and_then(|sum| sum.checked_add(GUEST_BASE_BYTES))
            .and_then(|sum| sum.checked_next_multiple_of(GUEST_STEP_BYTES))
            .ok_or_else(|| Error::Invalid(format!("the apps ask for {apps} bytes of memory")))
    }
}

/// What the pod's own isolators say, if there are any.
fn of_whole_pod(manifest: &PodManifest) -> Result<Option<AppLimits>, Error> {
    if manifest.isolators.is_empty() {
        return Ok(None);
    }
    for raw in &manifest.isolators {
        match Isolator::try_from(raw)? {
            Isolator::Cpu(_)
            | Isolator::Memory(_)
            | Isolator::Pids(_)
            | Isolator::DiskSpace(_)
            | Isolator::Rate(..) => {}
            _ => return Err(Error::Unsupported(format!("isolator {} of a whole pod", raw.name))),
        }
    }
    AppLimits::of(&WHOLE_POD.parse()?, &manifest.isolators).map(Some)
}

impl AppLimits {
    fn of(name: &AcName, isolators: &[RawIsolator]) -> Result<Self, Error> {
        let mut limits = Self {
            app: name.clone(),
            cpu_milli: Limit { amount: DEFAULT_CPU_MILLI, explicit: false },
            cpu_shares: None,
            memory_bytes: Limit { amount: DEFAULT_MEMORY_BYTES, explicit: false },
            pids: Limit { amount: DEFAULT_PIDS, explicit: false },
        };
        for raw in isolators {
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

    /// No more than what `whole` has, whose part this is: cgroup v1 takes no more CPU time than that.
    fn within(self, whole: &Self) -> Self {
        let least = |own: Limit, whole: Limit| match whole.explicit {
            true => Limit { amount: own.amount.min(whole.amount), ..own },
            false => own,
        };
        Self {
            cpu_milli: least(self.cpu_milli, whole.cpu_milli),
            memory_bytes: least(self.memory_bytes, whole.memory_bytes),
            pids: least(self.pids, whole.pids),
            ..self
        }
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
    /// The same without what nobody asked for.
    pub fn explicit_settings(&self, version: CgroupVersion) -> Vec<CgroupSetting> {
        let mut settings = self.cgroup_settings(version);
        settings.retain(|setting| {
            setting.required || setting.controller == "memory" && self.memory_bytes.explicit
        });
        settings
    }

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

    fn limits_in(pod: &str, apps: &str) -> Result<PodLimits, Error> {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","isolators":[{pod}],"annotations":[{{"name":"{}","value":"true"}}],
            "apps":[{apps}]}}"#,
            crate::pod_manifest::ANNOTATION_MUTABLE
        );
        PodLimits::of(&PodManifest::parse(json.as_bytes())?)
    }

    #[test]
    fn a_whole_pod_is_more_than_any_of_its_apps() {
        let pod = r#"{"name":"resource/memory","value":{"limit":"128Mi"}},{"name":"resource/cpu","value":{"limit":"1500m"}}"#;
        let app = format!(
            r#"{{"name":"a","image":{{"id":"sha512-{}"}},"app":{{"exec":["/a"],"user":"0","group":"0",
            "isolators":[{{"name":"resource/cpu","value":{{"limit":"2"}}}}]}}}}"#,
            "0".repeat(64)
        );
        let limits = limits_in(pod, &app).unwrap();
        assert_eq!((limits.cpu_milli(), limits.memory_bytes()), (1500, 128 << 20));
        let of_app = &limits.apps[0];
        assert_eq!(of_app.cpu_milli, Limit { amount: 1500, explicit: true });
        assert_eq!(of_app.memory_bytes, Limit { amount: 128 << 20, explicit: false });
        let settings = limits.pod.as_ref().unwrap().explicit_settings(CgroupVersion::V2);
        let settings: Vec<_> = settings.iter().map(|set| (set.file.as_str(), set.value.as_str())).collect();
        assert_eq!(
            settings,
            [("cpu.max", "150000 100000"), ("memory.max", "134217728"), ("memory.swap.max", "0")]
        );
        assert!(limits.check_for_vm().is_ok());
        let settings = limits.guest_settings();
        let settings: Vec<_> = settings.iter().map(|set| (set.file.as_str(), set.value.as_str())).collect();
        assert_eq!(settings, [("memory.max", "134217728"), ("memory.swap.max", "0")]);
    }

    #[test]
    fn a_pod_without_apps_has_room_for_one() {
        let limits = limits_in("", "").unwrap();
        assert!(limits.guest_settings().is_empty());
        assert_eq!((limits.cpu_milli(), limits.memory_bytes()), (DEFAULT_CPU_MILLI, DEFAULT_MEMORY_BYTES));
        let pids = limits_in(r#"{"name":"resource/pids","value":{"limit":64}}"#, "").unwrap();
        assert!(pids.check_for_vm().is_err() && pids.memory_bytes() == DEFAULT_MEMORY_BYTES);
    }

    #[test]
    fn what_a_whole_pod_cannot_have() {
        let error = limits_in(r#"{"name":"os/linux/no-new-privileges","value":true}"#, "").unwrap_err();
        assert!(error.to_string().contains("no-new-privileges of a whole pod"), "{error}");
        assert!(limits_in(r#"{"name":"resource/memory","value":{"limit":"1m"}}"#, "").is_err());
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
        assert_eq!(pod.guest_memory_bytes(0).unwrap(), 192 << 20, "128 + 2 + 48, in steps");
        assert_eq!(pod.guest_memory_bytes(960 << 20).unwrap(), 208 << 20, "15 more");
        assert!(pod.guest_memory_bytes(u64::MAX).is_ok());
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
