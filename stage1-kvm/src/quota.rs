//! What the VM may use of the host: CPU time that is not whole cores, and memory, by a cgroup around this process and its children,
//! which are the machine and the servers of its volumes. The guest divides both among the apps by cgroups of its own, which a
//! guest that is not to be trusted need not do.
//!
//! A pod has such a cgroup where it needs one: for a part of a core, or below the cgroup that the caller names. Entering it waits
//! for a grace period of RCU, which a start without limits is spared: as many vCPUs as cores cannot take more, and the machine's
//! process cannot map more than its memory (`jailed`).

use pod::limits::{AppLimits, DEFAULT_PIDS, Limit, PodLimits};
use stage1::cgroup::{AppCgroup, Cgroups};
use stage1::pod::Pod;
use stage1::scope;

use crate::error::Error;

/// The name of the machine's cgroup below the pod's.
const NAME: &str = "vm";
/// What the host's side of a VM takes: the VMM, the pod's parent, what the kernel has for them, and the cache of files that
/// they read and write, the scratch disk's above all.
const OVERHEAD_BYTES: u64 = 128 << 20;
/// The part of the guest's RAM that page tables take, the host's and the guest's, if all is in small pages; twice that.
const PAGE_TABLES_SHARE: u64 = 64;
/// What a volume's server takes that knows as many files as it may.
const SERVER_BYTES: u64 = 64 << 20;

/// Puts this process into the pod's scope, if the host has such, and into a cgroup of the pod's, if it needs one. Call it before
/// any thread or child is started. The guest has `mapped_bytes` of images mapped, and `servers` of the children will serve volumes.
pub fn enter(
    pod: &Pod,
    limits: &PodLimits,
    mapped_bytes: u64,
    servers: usize,
) -> Result<Option<Cgroups>, Error> {
    let parent = pod.arguments.cgroup_parent.as_ref();
    scope::enter(pod.arguments.uuid, parent)?;
    if limits.cpu_milli().is_multiple_of(1000) && parent.is_none() {
        return Ok(None);
    }
    let machine = machine(limits, mapped_bytes, servers).map_err(Error::Limits)?;
    let machine = AppCgroup { limits: &machine, devices: None };
    let controllers = &["cpu", "memory"];
    let mut cgroups =
        Cgroups::make(&pod.directory, pod.arguments.uuid, &[machine], None, controllers, parent)?;
    cgroups.enter()?;
    Ok(Some(cgroups))
}

/// The limits of the machine as a whole. That of its memory is for a VMM gone wild: what apps may use is the guest's RAM.
fn machine(limits: &PodLimits, mapped_bytes: u64, servers: usize) -> Result<AppLimits, pod::Error> {
    let ram_bytes = limits.guest_memory_bytes(mapped_bytes)?;
    let servers = SERVER_BYTES.saturating_mul(servers as u64);
    let amount = [ram_bytes / PAGE_TABLES_SHARE, OVERHEAD_BYTES, servers];
    let amount = amount.into_iter().fold(ram_bytes, u64::saturating_add);
    let memory_bytes = Limit { amount, explicit: false };
    let cpu_milli = Limit { amount: limits.cpu_milli(), explicit: true };
    let pids = Limit { amount: DEFAULT_PIDS, explicit: false };
    Ok(AppLimits { app: NAME.parse()?, cpu_milli, cpu_shares: None, memory_bytes, pids })
}

#[cfg(test)]
mod tests {
    use pod::limits::CgroupVersion;

    use super::*;

    #[test]
    fn the_machine_gets_the_sum_of_its_apps() {
        let app = |name: &str, milli| AppLimits {
            app: name.parse().unwrap(),
            cpu_milli: Limit { amount: milli, explicit: milli != 1000 },
            cpu_shares: None,
            memory_bytes: Limit { amount: 64 << 20, explicit: false },
            pids: Limit { amount: DEFAULT_PIDS, explicit: false },
        };
        let limits = PodLimits { apps: vec![app("a", 500), app("b", 1000)], pod: None };
        let settings = machine(&limits, 1 << 30, 0).unwrap().cgroup_settings(CgroupVersion::V2);
        assert_eq!(settings[0].value, "150000 100000");
        assert!(settings[0].required);
        let ram = limits.guest_memory_bytes(1 << 30).unwrap();
        assert_eq!(settings[1].value, (ram + ram / 64 + (128 << 20)).to_string());
        let two = machine(&limits, 1 << 30, 2).unwrap().cgroup_settings(CgroupVersion::V1);
        assert_eq!((two[2].file.as_str(), two[2].required), ("memory.limit_in_bytes", false));
        assert_eq!(two[2].value, (ram + ram / 64 + (256 << 20)).to_string());
    }
}
