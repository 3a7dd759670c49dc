//! CPU time that is not whole cores: a quota on this process, which is the machine. The guest divides it among the apps
//! by cgroups of its own, which a guest that is not to be trusted need not do.

use pod::limits::{AppLimits, DEFAULT_PIDS, Limit, PodLimits};
use stage1::cgroup::{AppCgroup, Cgroups};
use stage1::pod::Pod;
use stage1::scope;

use crate::error::Error;

/// The name of the machine's cgroup below the pod's.
const NAME: &str = "vm";

/// Puts this process into the pod's scope, if the host has such, and under the pod's quota, or into the cgroup that the caller
/// wants, if it needs to be in one. Call it before any thread or child is started.
pub fn enter(pod: &Pod, limits: &PodLimits) -> Result<Option<Cgroups>, Error> {
    let parent = pod.arguments.cgroup_parent.as_ref();
    scope::enter(pod.arguments.uuid, parent)?;
    if limits.cpu_milli().is_multiple_of(1000) && parent.is_none() {
        // As many vCPUs as cores: they cannot take more.
        return Ok(None);
    }
    let machine = machine(limits).map_err(Error::Limits)?;
    let machine = AppCgroup { limits: &machine, devices: None };
    let mut cgroups = Cgroups::make(&pod.directory, pod.arguments.uuid, &[machine], None, &["cpu"], parent)?;
    cgroups.enter()?;
    Ok(Some(cgroups))
}

/// The limits of the machine as a whole. Its memory is what the guest has, and needs no cgroup.
fn machine(limits: &PodLimits) -> Result<AppLimits, pod::Error> {
    let memory_bytes = Limit { amount: limits.memory_bytes(), explicit: false };
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
        let machine = machine(&PodLimits { apps: vec![app("a", 500), app("b", 1000)], pod: None }).unwrap();
        let settings = machine.cgroup_settings(CgroupVersion::V2);
        assert_eq!(settings[0].value, "150000 100000");
        assert!(settings[0].required);
    }
}
