//! What libcni's `CNIConfig` does: ADD, CHECK and DEL of networks with all their plugins, and garbage collection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::attachment::Attachment;
use super::cache::{Cache, Cached};
use super::config::{NetworkConfig, PluginConfig};
use super::error::{Error, Failure};
use super::execute::Patience;
use super::invoke::{Parameters, Verb, invoke};
use super::result::CniResult;
use super::search::SearchPath;
use super::version::SpecVersion;
use super::{lock, request};
use crate::InterfaceName;

/// How long a plugin may take. One that takes longer is killed with all that it has started.
pub const PLUGIN_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Attaches and detaches.
pub struct Runtime<'a> {
    plugins: SearchPath,
    cache: Cache,
    patience: Patience<'a>,
}

impl<'a> Runtime<'a> {
    /// Plugins from there, results into that cache.
    pub fn new(plugins: SearchPath, cache: Cache) -> Self {
        Self { plugins, cache, patience: Patience { limit: PLUGIN_TIME_LIMIT, interrupted: &|| false } }
    }

    /// Gives every plugin another time limit than [`PLUGIN_TIME_LIMIT`].
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.patience.limit = limit;
        self
    }

    /// Kills plugins once `interrupted` says so.
    pub fn with_interruption(mut self, interrupted: &'a dyn Fn() -> bool) -> Self {
        self.patience.interrupted = interrupted;
        self
    }

    /// ADD: every plugin in turn gets the result of the one before it; the last one's is kept and returned. After an
    /// error the caller has to [`Self::delete`], whatever was done.
    pub fn add(&self, attachment: &Attachment, namespace: &Path) -> Result<CniResult, Error> {
        let _lock = lock::shared(self.cache.directory())?;
        let mut call = Call { runtime: self, attachment, namespace, verb: Verb::Add, previous: None };
        let mut parsed = CniResult::default();
        for plugin in &attachment.network.plugins {
            let mut result = call.of(plugin)?.unwrap_or_default();
            parsed = CniResult::parse(&result, attachment.network.version)
                .map_err(|reason| call.failed(plugin, Failure::Garbage { reason, output: String::new() }))?;
            complete(&mut result, attachment.network.version);
            call.previous = Some(result);
        }
        let result = call.previous.unwrap_or_default();
        self.cache.store(attachment, namespace, &result)?;
        Ok(parsed)
    }

    /// Whether the attachment's network has a CHECK and wants it.
    pub fn takes_check(&self, attachment: &Attachment) -> bool {
        attachment.network.version >= SpecVersion::V0_4_0 && !attachment.network.disable_check
    }

    /// CHECK: whether everything is still as ADD has left it.
    pub fn check(&self, attachment: &Attachment, namespace: &Path) -> Result<(), Error> {
        let network = &attachment.network;
        if network.disable_check {
            return Ok(());
        }
        if network.version < SpecVersion::V0_4_0 {
            return Err(Error::NoCheck(network.name.to_string()));
        }
        let _lock = lock::shared(self.cache.directory())?;
        let previous = self.cache.result(attachment);
        let call = Call { runtime: self, attachment, namespace, verb: Verb::Check, previous };
        network.plugins.iter().try_for_each(|plugin| call.of(plugin).map(drop))
    }

    /// DEL: the plugins in reverse, each with the result of ADD. What is not there any more is no error, so this can be
    /// tried again; without a namespace, what is outside it is removed. All plugins are called; the first error counts.
    pub fn delete(&self, attachment: &Attachment, namespace: Option<&Path>) -> Result<(), Error> {
        let _lock = lock::shared(self.cache.directory())?;
        self.delete_locked(attachment, namespace)
    }

    fn delete_locked(&self, attachment: &Attachment, namespace: Option<&Path>) -> Result<(), Error> {
        // Before 0.4.0, plugins did not expect a result here.
        let tells = attachment.network.version >= SpecVersion::V0_4_0;
        let previous = if tells { self.cache.result(attachment) } else { None };
        let namespace = namespace.unwrap_or(Path::new(""));
        let call = Call { runtime: self, attachment, namespace, verb: Verb::Del, previous };
        let reverse = attachment.network.plugins.iter().rev();
        let results: Vec<Result<_, Error>> = reverse.map(|plugin| call.of(plugin)).collect();
        results.into_iter().collect::<Result<Vec<_>, Error>>()?;
        self.cache.remove(attachment)
    }

    /// Garbage collection: DEL of every cached attachment that `is_garbage`, whose errors are returned, and then GC for
    /// `networks`, since 1.1.0. The plugins of the CNI project free nothing at GC, so DEL has to come first.
    ///
    /// `is_garbage` is asked while nobody attaches anything.
    pub fn collect(
        &self,
        networks: &[NetworkConfig],
        is_garbage: &dyn Fn(&Cached) -> bool,
    ) -> Result<Vec<Error>, Error> {
        let cached = self.cache.list()?;
        // What is not installed has nothing to collect.
        let has_gc = |network: &&NetworkConfig| {
            network.version >= SpecVersion::V1_1_0
                && !network.disable_gc
                && self.plugins.check(network).is_ok()
        };
        if !cached.iter().any(is_garbage) && !networks.iter().any(|network| has_gc(&network)) {
            return Ok(Vec::new());
        }
        let _lock = lock::exclusive(self.cache.directory())?;
        let (garbage, valid): (Vec<Cached>, Vec<Cached>) =
            self.cache.list()?.into_iter().partition(is_garbage);
        let deleted = garbage.iter().map(|cached| self.delete_locked(&cached.attachment, None));
        let collected: Vec<Result<(), Error>> = deleted
            .chain(networks.iter().filter(has_gc).map(|network| self.collect_network(network, &valid)))
            .collect();
        Ok(collected.into_iter().filter_map(Result::err).collect())
    }

    fn collect_network(&self, network: &NetworkConfig, valid: &[Cached]) -> Result<(), Error> {
        let of_network = valid.iter().filter(|cached| cached.attachment.network.name == network.name);
        let valid: Vec<(String, String)> = of_network
            .map(|cached| (cached.attachment.container_id.clone(), cached.attachment.interface.to_string()))
            .collect();
        network.plugins.iter().try_for_each(|plugin| {
            let path = self.plugins.find(&plugin.program)?;
            let parameters = self.parameters(Verb::Gc, "", Path::new(""), "", "");
            let request = request::for_gc(plugin, network, &valid);
            let called = invoke(&path, &parameters, request, self.patience);
            called.map(drop).map_err(|source| Error::Collect {
                network: network.name.to_string(),
                plugin: path,
                source: Box::new(source),
            })
        })
    }

    /// Where plugins are.
    pub(super) fn plugins(&self) -> &SearchPath {
        &self.plugins
    }

    pub(super) fn patience(&self) -> Patience<'a> {
        self.patience
    }

    pub(super) fn parameters<'b>(
        &'b self,
        verb: Verb,
        container_id: &'b str,
        namespace: &'b Path,
        interface: &'b str,
        arguments: &'b str,
    ) -> Parameters<'b> {
        let plugin_directories = self.plugins.directories();
        Parameters { verb, container_id, namespace, interface, arguments, plugin_directories }
    }
}

/// A verb for one attachment.
struct Call<'a> {
    runtime: &'a Runtime<'a>,
    attachment: &'a Attachment,
    namespace: &'a Path,
    verb: Verb,
    previous: Option<Value>,
}

impl Call<'_> {
    fn of(&self, plugin: &PluginConfig) -> Result<Option<Value>, Error> {
        let Self { runtime, attachment, .. } = self;
        let path = runtime.plugins.find(&plugin.program)?;
        let arguments = attachment.arguments_text();
        let interface = attachment.interface.as_str();
        let parameters =
            runtime.parameters(self.verb, &attachment.container_id, self.namespace, interface, &arguments);
        let request = request::for_attachment(plugin, attachment, self.previous.as_ref());
        invoke(&path, &parameters, request, runtime.patience).map_err(|source| self.failure(path, source))
    }

    fn failed(&self, plugin: &PluginConfig, source: Failure) -> Error {
        self.failure(PathBuf::from(&plugin.program), source)
    }

    fn failure(&self, plugin: PathBuf, source: Failure) -> Error {
        let interface: InterfaceName = self.attachment.interface.clone();
        let network = self.attachment.network.name.to_string();
        let source = Box::new(source);
        Error::Plugin { network, plugin, verb: self.verb.in_words(), interface, source }
    }
}

/// Results that do not tell their version are in that of the configuration (libcni, `fixupResultVersion`).
fn complete(result: &mut Value, version: SpecVersion) {
    if let Value::Object(result) = result {
        let missing = |result: &Map<String, Value>| !matches!(result.get("cniVersion"), Some(Value::String(text)) if !text.is_empty());
        if missing(result) {
            result.insert("cniVersion".into(), version.as_str().into());
        }
    }
}
