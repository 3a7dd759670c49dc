//! What a pod tells in its directory: what its app was to be, for the entrypoints that come later; and, by the lock, which is a
//! descriptor of that directory, how far it has come once its root is another.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{symlinkat, write};
use pod::abi::PodDirectory;
use pod::plan::AppPlan;
use stage1::Error;

/// Writes what the app is to be. `stop` may come at any time: the file is there as a whole, or not at all.
pub fn write_app(directory: &PodDirectory, app: &AppPlan) -> Result<(), Error> {
    let path = directory.runtime_config();
    let new = path.with_extension("new");
    let json = serde_json::to_vec(app).map_err(io::Error::from);
    let written = json.and_then(|json| fs::write(&new, json)).and_then(|()| fs::rename(&new, &path));
    written.map_err(Error::file("write", &path))
}

/// What the app was to be; `None` as long as the pod has not come so far.
pub fn read_app(directory: &PodDirectory) -> Result<Option<AppPlan>, Error> {
    let path = directory.runtime_config();
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read
            .and_then(|json| serde_json::from_slice(&json).map_err(io::Error::from))
            .map(Some)
            .map_err(Error::file("read", &path)),
    }
}

/// Tells that this process has the app's root, and can be entered.
pub fn tell_entrance(lock: impl AsFd) -> Result<(), Error> {
    let path = PodDirectory::new("").pid();
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let text = format!("{}\n", std::process::id());
    openat(lock, &path, flags, Mode::from_bits_truncate(0o644))
        .and_then(|file| write(file, text.as_bytes()))
        .map(drop)
        .map_err(|errno| Error::file("write", &path)(errno.into()))
}

/// Tells that everything is done but the execution of the app's program.
pub fn tell_ready(lock: impl AsFd) -> Result<(), Error> {
    let path = PodDirectory::new("").supervisor_status();
    symlinkat("ready", lock, &path).map_err(|errno| Error::file("write", &path)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pod::abi::Insecure;
    use pod::plan::{ImageSource, Isolation, Layers, World, compute};
    use pod::pod_manifest::PodManifest;

    fn app() -> AppPlan {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a","image":{{"id":"sha512-{}"}},
            "app":{{"exec":["/a"],"user":"7","group":"0"}}}}]}}"#,
            "0".repeat(64)
        );
        let world = World {
            ipc: Default::default(),
            isolation: Isolation::Fly { pod_root: "/p".into(), volumes: Vec::new() },
            hostname: String::new(),
            interactive: false,
            insecure: Insecure::default(),
            layers: vec![Layers { image: ImageSource::File("/i".into()), writable: "/w".into() }],
            resolv_conf: None,
            metadata_url: None,
            hosts: None,
        };
        compute(&PodManifest::parse(json.as_bytes()).unwrap(), &world).unwrap().apps.remove(0)
    }

    #[test]
    fn what_is_told_by_the_lock_is_in_the_pods_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        assert_eq!(read_app(&directory).unwrap(), None);
        write_app(&directory, &app()).unwrap();
        assert_eq!(read_app(&directory).unwrap(), Some(app()));
        fs::create_dir_all(directory.supervisor_status().parent().unwrap()).unwrap();
        let lock = fs::File::open(home.path()).unwrap();
        tell_entrance(&lock).unwrap();
        assert_eq!(fs::read_to_string(directory.pid()).unwrap(), format!("{}\n", std::process::id()));
        tell_ready(&lock).unwrap();
        assert!(directory.supervisor_status().is_symlink());
    }
}
