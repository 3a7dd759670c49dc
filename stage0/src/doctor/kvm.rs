//! What `--stage1=kvm` needs.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::{Need, Row};
use crate::cli::Stage1;
use crate::stage1::{Installed, guest_files};

pub fn rows() -> Vec<Row> {
    let mut rows = machine();
    match Stage1::Kvm.find() {
        Ok(installed) => {
            rows.push(Row::ok("stage1-kvm", Need::Kvm, installed.binary.display().to_string()));
            rows.extend(guest(&installed));
        }
        Err(error) => {
            let remedy = "make build builds it; make install installs all of rkt";
            rows.push(Row::missing("stage1-kvm", Need::Kvm, error.to_string(), remedy));
        }
    }
    rows
}

/// KVM itself. A problem's text has its remedy after a colon.
fn machine() -> Vec<Row> {
    let problem = |name: &str, problem: &dyn Error| {
        let text = chain(problem);
        let (found, remedy) = text.split_once(": ").unwrap_or((&text, "see the kernel's log"));
        Row::missing(name, Need::Kvm, found, remedy)
    };
    let kvm = match vmm::probe::open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => return vec![problem("KVM", &error)],
    };
    let mut rows = vec![match vmm::probe::check_api_version(&kvm) {
        Ok(()) => Row::ok("KVM", Need::Kvm, vmm::probe::KVM_PATH),
        Err(error) => problem("KVM", &error),
    }];
    rows.extend(vmm::probe::capabilities(&kvm).map(|(name, there)| match there {
        true => Row::ok(name, Need::Kvm, "yes"),
        false => Row::missing(name, Need::Kvm, "no", "use a newer kernel"),
    }));
    rows.push(match vmm::probe::can_run_guest(&kvm) {
        Ok(()) => Row::ok("KVM runs a guest", Need::Kvm, "yes"),
        Err(error) => Row::missing(
            "KVM runs a guest",
            Need::Kvm,
            chain(&error),
            "use a host with hardware virtualisation; in a virtual machine, its host must allow nesting",
        ),
    });
    rows
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" ({cause})"));
        source = cause.source();
    }
    text
}

fn guest(installed: &Installed) -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, name) in guest_files(installed) {
        rows.push(
            match fs::metadata(&path).and_then(|metadata| Ok((metadata.len(), kernel_version(&path)?))) {
                Ok((bytes, version)) => {
                    let version = version.map(|version| format!("{version}, ")).unwrap_or_default();
                    let found = format!("{version}{} KiB, {}", bytes.div_ceil(1024), path.display());
                    Row::ok(name, Need::Kvm, found)
                }
                Err(error) => Row::missing(
                    name,
                    Need::Kvm,
                    format!("{}: {error}", path.display()),
                    "make build makes it; make install installs all of rkt",
                ),
            },
        );
    }
    rows
}

/// The version that a kernel carries in its read-only data, `Linux version 6.12.1 (...)`; `None` for other files.
fn kernel_version(path: &Path) -> io::Result<Option<String>> {
    const MARK: &[u8] = b"Linux version ";
    const LARGEST: u64 = 64 << 20;
    let mut image = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut image)?;
    let version = image.windows(MARK.len()).position(|window| window == MARK).and_then(|at| {
        let rest = image.get(at + MARK.len()..)?;
        let word = rest.split(|byte| !byte.is_ascii_graphic()).next()?;
        // The format string, "Linux version %s", is not the banner.
        word.first()?.is_ascii_digit().then(|| String::from_utf8_lossy(word).into_owned())
    });
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_kernel() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"\x7fELF\0\0Linux version 6.12.90 (root@host)\0").unwrap();
        assert_eq!(kernel_version(file.path()).unwrap().as_deref(), Some("6.12.90"));
        fs::write(file.path(), b"\x7fELF").unwrap();
        assert_eq!(kernel_version(file.path()).unwrap(), None);
        assert!(kernel_version(Path::new("/nowhere")).is_err());
    }
}
