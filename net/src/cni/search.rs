//! Where plugins are.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::config::NetworkConfig;
use super::configuration::NET_D;
use super::error::Error;

/// Where upstream rkt and distributions put plugins: rkt's own, Debian's, the CNI project's, Fedora's.
const PLUGIN_DIRECTORIES: [&str; 4] =
    ["/usr/lib/rkt/plugins/net", "/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
/// rkt's own plugins, in a directory beside its stage1s: for what a host may lack.
const OWN_PLUGINS: &str = "cni";
/// Bits of which one makes a file a program.
const EXECUTE: u32 = 0o111;

/// Directories with plugins, the first that has a plugin wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// These directories. Relative ones are left out: where they lead depends on who looks.
    pub fn new(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(directories.into_iter().filter(|directory| directory.is_absolute()).collect())
    }

    /// The directories of `cni_path` (as libcni's tools have it in CNI_PATH), then `net.d` of the administrator's
    /// configuration, then the usual ones, and at last that of rkt's own plugins beside the `stage1s`.
    pub fn of_host(cni_path: Option<&OsStr>, local_config: &Path, stage1s: Option<&Path>) -> Self {
        let first = cni_path.map(std::env::split_paths).into_iter().flatten();
        let usual = PLUGIN_DIRECTORIES.into_iter().map(PathBuf::from);
        let own = stage1s.map(|directory| directory.join(OWN_PLUGINS));
        Self::new(first.chain([local_config.join(NET_D)]).chain(usual).chain(own))
    }

    /// The directories.
    pub fn directories(&self) -> &[PathBuf] {
        &self.0
    }

    /// The path of a plugin.
    pub fn find(&self, program: &str) -> Result<PathBuf, Error> {
        let mut useless = None;
        for path in self.0.iter().map(|directory| directory.join(program)) {
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & EXECUTE != 0 => {
                    return Ok(path);
                }
                Ok(metadata) if metadata.is_file() => useless = useless.or(Some(path)),
                _ => {}
            }
        }
        Err(match useless {
            Some(path) => Error::NotExecutable(path),
            None => Error::NoPlugin { program: program.to_owned(), directories: self.to_text() },
        })
    }

    /// Whether all that a network needs is there.
    pub fn check(&self, network: &NetworkConfig) -> Result<(), Error> {
        network.programs().try_for_each(|program| self.find(program).map(drop))
    }

    fn to_text(&self) -> String {
        let directories: Vec<String> = self.0.iter().map(|path| path.display().to_string()).collect();
        directories.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_program_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |directory: &Path, mode| {
            fs::write(directory.join("ptp"), "").unwrap();
            fs::set_permissions(directory.join("ptp"), fs::Permissions::from_mode(mode)).unwrap();
        };
        let path = SearchPath::new([one.path().to_owned(), two.path().to_owned(), "relative".into()]);
        let error = path.find("ptp").unwrap_err().to_string();
        assert!(error.contains("\"ptp\"") && error.contains(&one.path().display().to_string()), "{error}");
        assert!(!error.contains("relative"), "{error}");
        make(one.path(), 0o644);
        assert!(path.find("ptp").unwrap_err().to_string().contains("not executable"));
        make(two.path(), 0o755);
        assert_eq!(path.find("ptp").unwrap(), two.path().join("ptp"));
    }

    #[test]
    fn the_order_of_a_host() {
        let stage1s = Path::new("/usr/lib/rkt");
        let path = SearchPath::of_host(Some(OsStr::new("/a:/b")), Path::new("/etc/rkt"), Some(stage1s));
        assert_eq!(
            path.directories()[..4],
            ["/a", "/b", "/etc/rkt/net.d", "/usr/lib/rkt/plugins/net"].map(PathBuf::from)
        );
        assert_eq!(path.directories().last(), Some(&PathBuf::from("/usr/lib/rkt/cni")));
    }
}
