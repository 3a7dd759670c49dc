//! Which form of the guest kernel this processor needs.
//!
//! On processors whose prediction of returns can be misled (retbleed, SRSO, ITS) each return of a kernel is a jump to a thunk. The others
//! need plain returns, which a kernel would place by itself as it boots, 30,000 of them, and which the build has
//! placed in the second form. A guest finds the same processor as the host, so that it needs the same.

use std::path::Path;

/// The kernel for every processor, beside this program's own file.
const ANY_PROCESSOR: &str = "vmlinux";
/// The kernel for those whose returns need no protection.
const PLAIN_RETURNS: &str = "vmlinux-norethunk";
/// What the host's kernel knows of its processor: a file each, as of Linux 4.15.
const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";
/// All that the guest kernel ever protects by thunks.
const OF_RETURNS: [&str; 3] = ["retbleed", "spec_rstack_overflow", "indirect_target_selection"];

/// The file's name.
pub fn name() -> &'static str {
    if returns_are_safe(Path::new(VULNERABILITIES)) { PLAIN_RETURNS } else { ANY_PROCESSOR }
}

/// Whether the host says so of each vulnerability. What it does not know of, it cannot rule out.
fn returns_are_safe(vulnerabilities: &Path) -> bool {
    OF_RETURNS.iter().all(|name| {
        std::fs::read(vulnerabilities.join(name)).is_ok_and(|state| state.trim_ascii() == b"Not affected")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_to_rule_out_every_vulnerability_of_returns() {
        let host = tempfile::tempdir().unwrap();
        let tell = |name: &str, state: &str| std::fs::write(host.path().join(name), state).unwrap();
        assert!(!returns_are_safe(host.path()), "a kernel that knows of none");
        OF_RETURNS.iter().for_each(|name| tell(name, "Not affected\n"));
        assert!(returns_are_safe(host.path()));
        for state in ["Vulnerable\n", "Mitigation: Safe RET\n", "Not affected, perhaps\n", ""] {
            OF_RETURNS.iter().for_each(|name| {
                tell(name, state);
                assert!(!returns_are_safe(host.path()), "{name}: {state}");
                tell(name, "Not affected\n");
            });
        }
        std::fs::remove_file(host.path().join("indirect_target_selection")).unwrap();
        assert!(!returns_are_safe(host.path()), "a kernel that does not know of all");
    }
}
