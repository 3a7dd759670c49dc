//! The `run` entrypoint.

use std::convert::Infallible;
use std::os::fd::AsFd;

use pod::abi::{CpuTemplate, Ipc, RunArguments};
use pod::net::Net;
use pod::plan::Isolation;
use stage1::error::report;
use stage1::pod::{Pod, check_filters};
use stage1::timeline::Timeline;
use stage1::{lock, sockets, status, volumes};
use stage2::{AppSockets, alone};

use crate::error::Error;
use crate::record;

/// The isolation's name.
const FLAVOR: &str = "fly";

/// Becomes the app of the pod in the working directory; returns only if that fails.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<Infallible, Error> {
    let lock = lock::take()?;
    let sockets = sockets::take()?.into_iter().next().unwrap_or_default();
    let mut timeline = Timeline::from_environment();
    timeline.mark("stage1");
    let pod = Pod::open(arguments)?;
    check(&pod.arguments)?;
    status::write_parent(&pod.directory)?;
    status::write_flavor(&pod.directory, FLAVOR)?;
    let layers = pod.layers()?;
    let (trees, volumes) = volumes::open(&pod, None)?;
    let pod_root = pod.directory.stage1_rootfs();
    let plan = pod.plan(Isolation::Fly { pod_root, volumes }, layers)?;
    check_filters(&plan.apps)?;
    let [app] = plan.apps.as_slice() else { return Err(Error::NotOneApp) };
    record::write_app(&pod.directory, app)?;

    let failed = |source| Error::NotStarted { app: app.name.clone(), source };
    alone::make_world(&plan, &trees).map_err(failed)?;
    drop(trees);
    record::tell_entrance(&lock)?;
    timeline.mark("root");
    alone::prepare(app, &|error| report(error)).map_err(failed)?;
    record::tell_ready(&lock)?;
    timeline.mark("exec");
    timeline.show();
    // The lock stays with the app's process, and with those that it starts: as long as one holds it, the pod runs.
    alone::become_process(&app.process, &AppSockets { sockets }, Some(lock.as_fd())).map_err(failed)
}

/// What stage0 passes on for every pod, and cannot be carried out here. The host name is always there, and means nothing.
fn check(arguments: &RunArguments) -> Result<(), Error> {
    let refused = [
        (arguments.net != Net::Host).then(|| format!("--net={}", arguments.net)),
        arguments.private_users.as_ref().map(|users| format!("--private-users={users}")),
        arguments.cgroup_parent.as_ref().map(|path| format!("--cgroup-parent={path}")),
        (arguments.cpu_template != CpuTemplate::Host)
            .then(|| format!("--cpu-template={}", arguments.cpu_template)),
        (arguments.ipc == Ipc::Private).then(|| "--ipc=private".to_owned()),
    ];
    refused.into_iter().flatten().next().map_or(Ok(()), |argument| Err(Error::Argument(argument)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_need_more_than_a_root() {
        let check = |arguments: &[&str]| {
            let uuid = ["00000000-0000-0000-0000-000000000007"];
            let arguments = arguments.iter().chain(&uuid).map(|argument| (*argument).to_owned());
            super::check(&RunArguments::parse(arguments).unwrap())
        };
        assert!(check(&["--net=host", "--hostname=h", "--disable-paths"]).is_ok());
        for refused in [
            "--net=none",
            "--net=default",
            "--private-users=65536:65536",
            "--cgroup-parent=/a",
            "--ipc=private",
            "--cpu-template=x86-64-v3",
        ] {
            let error = check(&["--net=host", refused]).unwrap_err().to_string();
            assert!(error.contains(refused), "{error}");
        }
    }
}
