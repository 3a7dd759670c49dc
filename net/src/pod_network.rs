//! A pod's network on disk: its namespace, and a record of what it is attached to that is written before anything is
//! done. So whoever finds the pod's directory, also after a kill or a crash of the machine, can undo all of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pod::net::Net;
use serde::{Deserialize, Serialize};

use crate::cni::{
    Attachment, Cache, Cached, CniResult, Configuration, Error, Runtime, SYSTEM_CONFIG, SearchPath,
};
use crate::net_info::NetInfo;
use crate::wishes::Wishes;
use crate::{InterfaceName, namespace};

/// The file that the namespace is bound to, in the directory of a pod's network.
const NAMESPACE: &str = "namespace";
/// The record.
const RECORD: &str = "attachments.json";

/// A network that a pod is attached to.
#[derive(Debug)]
pub struct PodNetwork {
    directory: PathBuf,
    record: Record,
}

/// What is needed to detach.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Where plugins were looked for.
    plugin_directories: Vec<PathBuf>,
    /// In the order in which they are attached.
    attachments: Vec<Attachment>,
}

impl Record {
    /// Writes it; a kill at any moment leaves all of it or nothing.
    fn write(&self, path: &Path) -> Result<(), Error> {
        let new = path.with_extension("new");
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::io("write", path)(error.into()))?;
        fs::write(&new, json).and_then(|()| fs::rename(&new, path)).map_err(Error::io("write", path))
    }
}

/// What a pod is to be attached to, and where the plugins for that are; computed without changing anything.
#[derive(Clone, Debug)]
pub struct Planned {
    /// In the order in which they are attached.
    pub attachments: Vec<Attachment>,
    /// All of them are there.
    pub plugins: SearchPath,
}

/// The attachments that `net` asks for on a host with these plugins, whose administrator's configuration is in `local_config`.
pub fn plan(
    net: &Net,
    local_config: &Path,
    plugins: SearchPath,
    container_id: &str,
    wishes: Wishes<'_>,
) -> Result<Planned, Error> {
    let configuration = Configuration::load(&[Path::new(SYSTEM_CONFIG), local_config])?;
    let selected = configuration.select(net)?;
    selected.iter().try_for_each(|network| plugins.check(&network.config))?;
    Ok(Planned { attachments: wishes.attachments(selected, container_id)?, plugins })
}

impl PodNetwork {
    /// Records what is planned, and makes the namespace, or takes one that is there and new. Nothing is attached yet.
    pub fn create(directory: &Path, planned: Planned, made: Option<File>) -> Result<Self, Error> {
        let Planned { attachments, plugins } = planned;
        let record = Record { plugin_directories: plugins.directories().to_vec(), attachments };
        fs::DirBuilder::new().mode(0o750).create(directory).map_err(Error::io("make", directory))?;
        record.write(&directory.join(RECORD))?;
        let network = Self { directory: directory.to_owned(), record };
        namespace::create(&network.namespace(), made)?;
        Ok(network)
    }

    /// Finds what is recorded of a pod, if it has a network.
    pub fn open(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(RECORD);
        let json = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        // A record is whole unless the machine has crashed. The cache still has what was attached then, and what is in
        // there is collected once the pod is gone.
        let record = serde_json::from_slice(&json).unwrap_or_default();
        Ok(Some(Self { directory: directory.to_owned(), record }))
    }

    /// Whether there is anything recorded of a pod, which is then still attached.
    pub fn is_left(directory: &Path) -> bool {
        directory.join(RECORD).exists()
    }

    /// The file that the namespace is bound to.
    pub fn namespace(&self) -> PathBuf {
        self.directory.join(NAMESPACE)
    }

    /// The interfaces that attaching makes in there, in order.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        self.record.attachments.iter().map(|attachment| &attachment.interface)
    }

    /// Attaches the pod to all its networks, until `interrupted` says that nobody wants it any more. After an error
    /// [`Self::detach`] undoes what was done.
    pub fn attach(&self, cache: Cache, interrupted: &dyn Fn() -> bool) -> Result<Vec<CniResult>, Error> {
        let runtime = Runtime::new(self.plugins(), cache).with_interruption(interrupted);
        let namespace = self.namespace();
        self.record.attachments.iter().map(|attachment| runtime.add(attachment, &namespace)).collect()
    }

    /// Has the plugins check, in order, that all is as they have left it (CHECK). Networks that know no such thing, or do without,
    /// are `false`.
    pub fn check(&self, cache: Cache) -> Result<Vec<(&Attachment, bool)>, Error> {
        let runtime = Runtime::new(self.plugins(), cache);
        let namespace = self.namespace();
        let check = |attachment| match runtime.takes_check(attachment) {
            true => runtime.check(attachment, &namespace).map(|()| (attachment, true)),
            false => Ok((attachment, false)),
        };
        self.record.attachments.iter().map(check).collect()
    }

    /// What it is attached to, with the results of [`Self::attach`].
    pub fn describe(&self, results: &[CniResult]) -> Vec<NetInfo> {
        let pairs = self.record.attachments.iter().zip(results);
        pairs.map(|(attachment, result)| NetInfo::new(attachment, result)).collect()
    }

    /// Detaches the pod from its networks, in reverse, and removes the namespace and the record. What is not there any
    /// more is no error. If anything fails, the record stays for another try.
    pub fn detach(&self, cache: Cache) -> Result<(), Error> {
        let path = self.namespace();
        let namespace = namespace::is_namespace(&path).then_some(path.as_path());
        let runtime = Runtime::new(self.plugins(), cache);
        let reverse = self.record.attachments.iter().rev();
        let results: Vec<_> = reverse.map(|attachment| runtime.delete(attachment, namespace)).collect();
        results.into_iter().collect::<Result<Vec<()>, Error>>()?;
        namespace::remove(&path)?;
        let record = self.directory.join(RECORD);
        fs::remove_file(&record).map_err(Error::io("remove", &record))
    }

    fn plugins(&self) -> SearchPath {
        SearchPath::new(self.record.plugin_directories.clone())
    }
}

/// The pod whose cached attachment this is, if it is one of those below the directory `pods` of a data directory: the
/// first component below the directory of its state.
pub fn pod_of<'a>(cached: &'a Cached, pods: &Path) -> Option<&'a str> {
    let namespace = cached.namespace.as_deref()?;
    let rest = namespace.strip_prefix(pods).ok()?;
    let id = rest.components().nth(1)?.as_os_str().to_str()?;
    (id == cached.attachment.container_id).then_some(id)
}
