//! CNI as libcni does it: network configurations are read, plugins are found and executed unmodified, results are kept
//! where libcni's tools look for them (CNI spec 0.1 to 1.1).
//!
//! [`Configuration`] is what `net.d` directories say; [`Configuration::select`] is what `--net` asks of it.
//! [`Runtime`] attaches a network namespace to networks and detaches it; [`crate::PodNetwork`] does so for a pod.

mod attachment;
mod cache;
mod config;
mod configuration;
mod error;
mod execute;
mod invoke;
mod lock;
mod request;
mod result;
mod runtime;
mod search;
mod validate;
mod version;

pub use attachment::Attachment;
pub use cache::{Cache, Cached, DEFAULT_DIRECTORY};
pub use config::{NetworkConfig, PluginConfig};
pub use configuration::{Configuration, NET_D, SYSTEM_CONFIG, Selected};
pub use error::{ConfigError, Error, Failure};
pub use invoke::Verb;
pub use result::{Address, CniResult, Dns, PluginInterface};
pub use runtime::{PLUGIN_TIME_LIMIT, Runtime};
pub use search::SearchPath;
pub use version::{SpecVersion, UnknownVersion};
