//! The networks of a host: what `net.d` directories say, over what is built in.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pod::ip_ranges::IpRanges;
use pod::net::{Net, NetworkRequest};
use pod::types::NetworkName;

use super::config::NetworkConfig;
use super::error::{ConfigError, Error};

/// Where a distribution puts its configuration, below an administrator's.
pub const SYSTEM_CONFIG: &str = "/usr/lib/rkt";
/// The directory of networks in a configuration directory.
pub const NET_D: &str = "net.d";
/// The network that `--net` alone and `--net=all` have even if nobody has configured it.
const DEFAULT: &str = "default";
/// What is there without any configuration, as upstream's stage1 images had it.
const BUILT_IN: [(&str, &str); 2] = [
    ("99-default.conflist", include_str!("builtin/99-default.conflist")),
    ("99-default-restricted.conflist", include_str!("builtin/99-default-restricted.conflist")),
];

/// All networks, in the order in which a pod gets them: by file name.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    networks: Vec<Configured>,
    directories: Vec<PathBuf>,
}

/// A network that is asked for, with its plugins' arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The network.
    pub config: NetworkConfig,
    /// Arguments for its plugins.
    pub arguments: Vec<(String, String)>,
    /// Where the pod's addresses are to be from.
    pub ip_ranges: Option<IpRanges>,
}

#[derive(Clone, Debug, PartialEq)]
struct Configured {
    file: PathBuf,
    config: NetworkConfig,
    built_in: bool,
}

impl Configured {
    fn file_name(&self) -> &OsStr {
        self.file.file_name().unwrap_or_default()
    }
}

impl Configuration {
    /// Reads `net.d` of each configuration directory: a later one's network replaces an earlier one's of its name, and
    /// each replaces what is built in. A directory that is not there configures nothing.
    pub fn load(config_directories: &[&Path]) -> Result<Self, Error> {
        let directories: Vec<PathBuf> =
            config_directories.iter().map(|directory| directory.join(NET_D)).collect();
        let mut networks: Vec<Configured> = built_in()?;
        for directory in &directories {
            let configured = read(directory)?;
            networks.retain(|old| configured.iter().all(|new| new.config.name != old.config.name));
            networks.extend(configured);
        }
        networks.sort_by(|one, other| one.file_name().cmp(other.file_name()));
        Ok(Self { networks, directories })
    }

    /// The networks that `net` asks for, in the order of their file names.
    pub fn select(&self, net: &Net) -> Result<Vec<Selected>, Error> {
        let requests = match net {
            Net::None | Net::Host => return Ok(Vec::new()),
            Net::All => return Ok(self.all()),
            Net::Networks(requests) => requests,
        };
        let known = |name: &NetworkName| self.networks.iter().any(|network| network.config.name == *name);
        let missing: Vec<&str> =
            requests.iter().filter(|r| !known(&r.name)).map(|r| r.name.as_str()).collect();
        if !missing.is_empty() {
            return Err(self.unknown(&missing.join(", ")));
        }
        let selected = self.networks.iter().filter_map(|network| {
            let request = requests.iter().find(|request| request.name == network.config.name)?;
            let NetworkRequest { arguments, ip_ranges, .. } = request.clone();
            Some(Selected { config: network.config.clone(), arguments, ip_ranges })
        });
        Ok(selected.collect())
    }

    /// The networks of the administrator and the distribution.
    pub fn networks(&self) -> Vec<NetworkConfig> {
        let configured = self.networks.iter().filter(|network| !network.built_in);
        configured.map(|network| network.config.clone()).collect()
    }

    /// These, and the default one.
    pub fn networks_and_default(&self) -> Vec<NetworkConfig> {
        let wanted = |network: &&Configured| !network.built_in || network.config.name.as_str() == DEFAULT;
        self.networks.iter().filter(wanted).map(|network| network.config.clone()).collect()
    }

    fn all(&self) -> Vec<Selected> {
        let select = |config| Selected { config, arguments: Vec::new(), ip_ranges: None };
        self.networks_and_default().into_iter().map(select).collect()
    }

    fn unknown(&self, missing: &str) -> Error {
        let known: Vec<&str> = self.networks.iter().map(|network| network.config.name.as_str()).collect();
        let directories: Vec<String> =
            self.directories.iter().map(|path| path.display().to_string()).collect();
        Error::Unknown {
            missing: missing.to_owned(),
            known: known.join(", "),
            directories: directories.join(" and "),
        }
    }
}

fn built_in() -> Result<Vec<Configured>, Error> {
    let parse = |(name, text): (&str, &str)| {
        let file = PathBuf::from(name);
        match NetworkConfig::parse_list(text.as_bytes()) {
            Ok(config) => Ok(Configured { file, config, built_in: true }),
            Err(source) => Err(Error::Config { path: file, source }),
        }
    };
    BUILT_IN.into_iter().map(parse).collect()
}

/// The networks of one directory.
fn read(directory: &Path) -> Result<Vec<Configured>, Error> {
    let mut networks: Vec<Configured> = Vec::new();
    for name in file_names(directory)? {
        let file = directory.join(name);
        let Some(config) = parse(&file)? else { continue };
        if let Some(first) = networks.iter().find(|other| other.config.name == config.name) {
            let name = config.name.to_string();
            return Err(Error::Twice { name, first: first.file.clone(), second: file });
        }
        networks.push(Configured { file, config, built_in: false });
    }
    Ok(networks)
}

fn file_names(directory: &Path) -> Result<Vec<OsString>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", directory))?,
    };
    let names: io::Result<Vec<OsString>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(Error::io("read", directory))?;
    names.sort();
    Ok(names)
}

/// A file's network; nothing if its name is not that of a configuration.
fn parse(file: &Path) -> Result<Option<NetworkConfig>, Error> {
    let parse: fn(&[u8]) -> _ = match file.extension().and_then(OsStr::to_str) {
        Some("conf") => NetworkConfig::parse_single,
        Some("conflist") => return parse_list(file).map(Some),
        _ => return Ok(None),
    };
    let json = fs::read(file).map_err(Error::io("read", file))?;
    parse(&json).map(Some).map_err(invalid(file))
}

/// A list, with the plugins that are in files of their own in the directory of its name (CNI spec 1.1,
/// "loadOnlyInlinedPlugins").
fn parse_list(file: &Path) -> Result<NetworkConfig, Error> {
    let json = fs::read(file).map_err(Error::io("read", file))?;
    let mut list = serde_json::from_slice(&json).map_err(|error| invalid(file)(error.into()))?;
    let directory = NetworkConfig::plugin_directory(&list).map_err(invalid(file))?;
    if let Some(directory) = directory.map(|name| file.with_file_name(name.as_str())) {
        let names = file_names(&directory)?;
        for path in names
            .iter()
            .map(|name| directory.join(name))
            .filter(|path| path.extension() == Some("conf".as_ref()))
        {
            let json = fs::read(&path).map_err(Error::io("read", &path))?;
            let plugin = serde_json::from_slice(&json).map_err(|error| invalid(&path)(error.into()))?;
            NetworkConfig::add_plugin(&mut list, plugin).map_err(invalid(&path))?;
        }
    }
    NetworkConfig::from_list(list).map_err(invalid(file))
}

fn invalid(file: &Path) -> impl FnOnce(ConfigError) -> Error {
    move |source| Error::Config { path: file.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, network: &str, plugin: &str) {
        fs::create_dir_all(directory.join(NET_D)).unwrap();
        let json = format!(r#"{{"name":"{network}","type":"{plugin}"}}"#);
        fs::write(directory.join(NET_D).join(name), json).unwrap();
    }

    fn selected(configuration: &Configuration, net: &str) -> Vec<String> {
        let selected = configuration.select(&net.parse().unwrap()).unwrap();
        selected.iter().map(|s| format!("{} {}", s.config.name, s.config.plugins[0].program)).collect()
    }

    #[test]
    fn what_is_built_in() {
        let configuration = Configuration::load(&[Path::new("/nowhere")]).unwrap();
        assert_eq!(selected(&configuration, "default"), ["default ptp"]);
        assert_eq!(selected(&configuration, "default,default-restricted").len(), 2);
        assert_eq!(selected(&configuration, "all"), ["default ptp"]);
        assert!(selected(&configuration, "none").is_empty() && selected(&configuration, "host").is_empty());
        let error = configuration.select(&"lan,wan,default".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("not found: lan, wan") && error.contains("/nowhere/net.d"), "{error}");
    }

    #[test]
    fn later_directories_replace_by_name_and_files_give_the_order() {
        let (system, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(system.path(), "10-lan.conf", "lan", "bridge");
        write(system.path(), "20-wan.conf", "wan", "bridge");
        write(local.path(), "30-lan.conf", "lan", "macvlan");
        write(local.path(), "00-mine.conf", "default", "bridge");
        write(local.path(), "README", "lan", "x");
        let configuration = Configuration::load(&[system.path(), local.path()]).unwrap();
        let order = ["default bridge", "wan bridge", "lan macvlan"];
        assert_eq!(selected(&configuration, "lan,default,wan"), order);
        assert_eq!(selected(&configuration, "all"), order);
        let one = configuration.select(&"lan:IP=192.0.2.7".parse().unwrap()).unwrap();
        assert_eq!(one[0].arguments, [("IP".to_owned(), "192.0.2.7".to_owned())]);
    }

    #[test]
    fn plugins_in_files_of_their_own() {
        let local = tempfile::tempdir().unwrap();
        let net_d = local.path().join(NET_D);
        fs::create_dir_all(net_d.join("lan")).unwrap();
        fs::write(net_d.join("lan/20-b.conf"), r#"{"type":"b"}"#).unwrap();
        fs::write(net_d.join("lan/10-a.conf"), r#"{"type":"a"}"#).unwrap();
        let programs = |list: &str| {
            fs::write(net_d.join("lan.conflist"), list).unwrap();
            let configuration = Configuration::load(&[local.path()]).unwrap();
            let selected = configuration.select(&"lan".parse().unwrap()).unwrap();
            selected[0].config.programs().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(programs(r#"{"name":"lan","plugins":[{"type":"x"}]}"#), ["x", "a", "b"]);
        assert_eq!(programs(r#"{"name":"lan"}"#), ["a", "b"]);
        assert_eq!(
            programs(r#"{"name":"lan","loadOnlyInlinedPlugins":true,"plugins":[{"type":"x"}]}"#),
            ["x"]
        );
        assert_eq!(programs(r#"{"name":"lan"}"#).len(), 2);
        fs::write(net_d.join("lan/10-a.conf"), "{").unwrap();
        let error = Configuration::load(&[local.path()]).unwrap_err();
        assert!(error.to_string().contains("lan/10-a.conf"), "{error}");
    }

    #[test]
    fn errors_name_the_file() {
        let local = tempfile::tempdir().unwrap();
        write(local.path(), "10-a.conf", "a", "x");
        write(local.path(), "20-a.conf", "a", "x");
        let error = Configuration::load(&[local.path()]).unwrap_err().to_string();
        assert!(error.contains("10-a.conf") && error.contains("20-a.conf"), "{error}");
        fs::write(local.path().join("net.d/20-a.conf"), "{").unwrap();
        let error = Configuration::load(&[local.path()]).unwrap_err();
        assert!(error.to_string().contains("20-a.conf"), "{error}");
    }
}
