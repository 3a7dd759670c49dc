//! Results of ADD on disk, in libcni's own place and format, so that its tools see our attachments (libcni, `cachedInfo`).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::attachment::Attachment;
use super::config::NetworkConfig;
use super::error::Error;

/// Where libcni keeps its files.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/cni";
const KIND: &str = "cniCacheV1";

/// The cache.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// An attachment of the cache, anybody's.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The attachment.
    pub attachment: Attachment,
    /// Its network namespace, as it was then.
    pub namespace: Option<PathBuf>,
}

/// The file's content. `config` is the list in base64, as Go writes bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: String,
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl Cache {
    /// A cache in a directory like [`DEFAULT_DIRECTORY`].
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn results(&self) -> PathBuf {
        self.directory.join("results")
    }

    /// Neither part can have a slash, and the container's ID is ours.
    fn path(&self, attachment: &Attachment) -> PathBuf {
        let Attachment { network, container_id, interface, .. } = attachment;
        self.results().join(format!("{}-{container_id}-{interface}", network.name))
    }

    /// Keeps the result of ADD.
    pub fn store(&self, attachment: &Attachment, namespace: &Path, result: &Value) -> Result<(), Error> {
        let config = Value::Object(attachment.network.to_json().clone()).to_string();
        let entry = Entry {
            kind: KIND.into(),
            container_id: attachment.container_id.clone(),
            config: STANDARD.encode(config),
            if_name: attachment.interface.to_string(),
            network_name: attachment.network.name.to_string(),
            netns: Some(namespace.to_owned()),
            cni_args: Some(attachment.arguments.clone()),
            capability_args: Some(attachment.capabilities.clone()).filter(|map| !map.is_empty()),
            result: Some(result.clone()),
        };
        let (directory, path) = (self.results(), self.path(attachment));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(Error::io("make", &directory))?;
        let json = serde_json::to_vec(&entry).map_err(|error| Error::io("write", &path)(error.into()))?;
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| io::Write::write_all(&mut file, &json)).map_err(Error::io("write", &path))
    }

    /// The result of an attachment's ADD. One that cannot be used is as good as none: it only helps plugins.
    pub fn result(&self, attachment: &Attachment) -> Option<Value> {
        read(&self.path(attachment))?.result
    }

    /// Forgets an attachment.
    pub fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = self.path(attachment);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Every attachment that can be read; others are those of programs that keep them in another way.
    pub fn list(&self) -> Result<Vec<Cached>, Error> {
        let directory = self.results();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &directory))?,
        };
        let mut cached = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("read", &directory))?.path();
            cached.extend(read(&path).and_then(Entry::typed));
        }
        cached.sort_by(|one, other| key(one).cmp(&key(other)));
        Ok(cached)
    }
}

fn key(cached: &Cached) -> (&str, &str, &str) {
    let Attachment { network, container_id, interface, .. } = &cached.attachment;
    (network.name.as_str(), container_id.as_str(), interface.as_str())
}

fn read(path: &Path) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (entry.kind == KIND).then_some(entry)
}

impl Entry {
    fn typed(self) -> Option<Cached> {
        let network = NetworkConfig::parse_list(&STANDARD.decode(self.config).ok()?).ok()?;
        let attachment = Attachment {
            network,
            container_id: self.container_id,
            interface: self.if_name.parse().ok()?,
            arguments: self.cni_args.unwrap_or_default(),
            capabilities: self.capability_args.unwrap_or_default(),
        };
        let complete = attachment.network.name.as_str() == self.network_name;
        complete.then_some(Cached { attachment, namespace: self.netns })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use serde_json::json;

    fn attachment() -> Attachment {
        let network = NetworkConfig::parse_list(br#"{"name":"lan","plugins":[{"type":"x"}]}"#).unwrap();
        let arguments = vec![("IP".to_owned(), "192.0.2.7".to_owned())];
        Attachment::new(network, "pod-1", "eth0".parse().unwrap(), arguments)
    }

    #[test]
    fn the_format_is_libcnis() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path());
        cache.store(&attachment(), Path::new("/ns"), &json!({"ips": []})).unwrap();
        let path = home.path().join("results/lan-pod-1-eth0");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut entry: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let config = entry.as_object_mut().unwrap().remove("config").unwrap();
        let config = STANDARD.decode(config.as_str().unwrap()).unwrap();
        assert_eq!(NetworkConfig::parse_list(&config).unwrap(), attachment().network);
        assert_eq!(
            entry,
            json!({"kind": "cniCacheV1", "containerId": "pod-1", "ifName": "eth0", "networkName": "lan", "netns": "/ns",
                "cniArgs": [["IgnoreUnknown", "1"], ["IP", "192.0.2.7"]], "result": {"ips": []}})
        );
    }

    #[test]
    fn kept_listed_and_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path());
        assert!(cache.list().unwrap().is_empty() && cache.result(&attachment()).is_none());
        cache.store(&attachment(), Path::new("/ns"), &json!({"a": 1})).unwrap();
        for (name, content) in [("bad", "{"), ("other", r#"{"kind":"cniCacheV2"}"#), ("old", r#"{"ips":[]}"#)]
        {
            fs::write(home.path().join("results").join(name), content).unwrap();
        }
        let [cached] = &cache.list().unwrap()[..] else { panic!() };
        assert_eq!(
            (&cached.attachment, cached.namespace.as_deref()),
            (&attachment(), Some(Path::new("/ns")))
        );
        assert_eq!(cache.result(&attachment()), Some(json!({"a": 1})));
        cache.remove(&attachment()).unwrap();
        cache.remove(&attachment()).unwrap();
        assert!(cache.list().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_result_is_none() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path());
        cache.store(&attachment(), Path::new("/ns"), &json!({})).unwrap();
        fs::write(home.path().join("results/lan-pod-1-eth0"), "{\"kind\":").unwrap();
        assert_eq!(cache.result(&attachment()), None);
    }
}
