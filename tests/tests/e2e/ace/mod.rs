//! The appc executor (appc spec, "App Container Executor"): what it must do for an app, sentence by sentence. Each runs in
//! both isolations, since it is the supervisor's matter or looks the same from inside.
//!
//! | what the specification demands | test |
//! |---|---|
//! | each pod has a UUID by RFC 4122 | [`environment`]`::variables_of_app_and_handlers` |
//! | every execution starts from a clean copy of the root | [`files`]`::each_run_gets_a_clean_copy` |
//! | a later layer's path replaces an earlier one's, and no link is followed | `images::upper_layers_take_files_away`, `bad_images::trees_that_cannot_be` |
//! | dependencies, `pathWhitelist` | [`files`]`::what_an_image_depends_on_is_below_it`; matching and order: `stage0/tests/rkt/dependencies.rs` |
//! | `readOnlyRootFS` | [`files`]`::a_read_only_root`, `combined::a_read_only_root_and_handlers` |
//! | a volume's source that is missing is an error | `volumes::wrong_volumes_are_refused_before_anything_is_made` |
//! | targets of volumes are made, root's and 0755, and hide what is there | [`files`]`::targets_of_volumes` |
//! | a loopback interface; an address on each interface | `confinement::no_network_but_loopback`, `network::several_networks_in_the_order_of_their_files` |
//! | output is captured and kept | `logs::what_an_app_writes_comes_back_byte_for_byte` |
//! | `/etc/hosts` of the image stays; one with localhost where there is none | `names::an_app_finds_itself` |
//! | PATH, AC_APP_NAME, container, for the app and its handlers | [`environment`]`::variables_of_app_and_handlers` |
//! | AC_METADATA_URL | not set: there is no metadata service (docs/running-pods.md) |
//! | the working directory; without one, the root | [`environment`]`::variables_of_app_and_handlers`, `a_working_directory_that_is_not_there_is_an_error`, `the_root_is_the_default_directory` |
//! | user, group and supplementary groups | [`users`] |
//! | pre-start ends before the app begins, post-stop begins when it is killed | [`events`] |
//! | which isolators were ignored is known | [`isolators`]`::what_is_not_carried_out_is_refused` |
//! | isolators of a pod bound those of its apps | `sandbox::what_the_pod_as_a_whole_may_use`; refused but for cpu, memory, pids and rates: `pod::limits` |
//! | a set of system calls is not empty; `@` is a special value; sets of one kind, once | [`isolators`]`::sets_that_cannot_be`, `special_sets_and_the_end_by_a_signal` |
//! | all of a remove-set is blocked, and nothing else; of a retain-set the reverse | `system_calls::sets_of_an_image_block_what_they_say` |
//! | a blocked call ends the app by SIGSYS, or with the errno | the same |
//! | all error codes of POSIX.1-2001 | `pod::seccomp::errno` |
//! | the default of a retain-set is the minimum for an app's life | `pod::seccomp`, `system_calls::the_documented_calls_are_allowed_and_no_others` |
//! | capabilities: the bounding set is what is retained, or the 14 without what is removed | [`isolators`]`::capabilities_that_are_retained_and_removed` |
//! | no-new-privileges | [`isolators`]`::no_new_privileges` |
//! | an AppArmor profile that is not loaded is refused | `apparmor::` |
//! | what exceeds a limit is ended or throttled; quantities in every form | [`isolators`]`::quantities_of_a_limit`, `limits::` |
//! | SELinux | refused where there is none: `confinement::an_selinux_context_is_refused_where_there_is_none` |
//! | block devices | in a VM `kvm::a_disk_moves_no_more_than_its_bandwidth`; elsewhere refused: `limits::rates_take_a_machine_of_ones_own` |
//! | network bandwidth | `network::capabilities::a_pod_moves_no_more_than_its_bandwidth` |
//! | sysctl | refused: [`isolators`]`::what_is_not_carried_out_is_refused` |
//! | devices and file systems of Linux (OS-SPEC) | [`files`]`::devices_and_file_systems_of_linux` |

mod environment;
mod events;
mod execution;
mod files;
mod isolators;
mod users;

use serde_json::Value;

use crate::harness::{Aci, Entry, Finished, Host, Process};

/// Runs an image with this app section and these files, and further options of `run`.
fn run(app: Value, entries: &[Entry<'_>], options: &[&str]) -> Finished {
    run_at(&Host::empty(), app, entries, options)
}

fn run_at(host: &Host, app: Value, entries: &[Entry<'_>], options: &[&str]) -> Finished {
    let aci = Aci::new(app, entries);
    let mut command = host.run(&[&aci.path()]);
    Process::start(command.args(options)).finish()
}
