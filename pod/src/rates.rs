//! Rates of input and output (appc spec, `resource/block-bandwidth`, `resource/block-iops`, `resource/network-bandwidth`). A machine
//! has a disk and cards of its own, which its monitor limits; the limits are those of the machine as a whole, since only its own
//! kernel, which is not to be trusted, knows the apps apart. In namespaces a network's plugins may limit the pod as a whole, too; nothing
//! limits what it does to the host's disks.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use crate::Error;
use crate::isolator::{Isolator, RawIsolator};
use crate::pod_manifest::{PodManifest, RuntimeApp};

/// What has a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RateKind {
    /// Bytes a second read from and written to disks.
    BlockBandwidth,
    /// Requests a second to disks.
    BlockIops,
    /// Bytes a second of packets, in each direction.
    NetworkBandwidth,
}

impl RateKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BlockBandwidth, Self::BlockIops, Self::NetworkBandwidth];

    /// The isolator.
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockBandwidth => "resource/block-bandwidth",
            Self::BlockIops => "resource/block-iops",
            Self::NetworkBandwidth => "resource/network-bandwidth",
        }
    }

    /// The isolator with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The least that a limit may say; below it lies a forgotten unit.
    pub fn least(self) -> u64 {
        match self {
            Self::BlockBandwidth | Self::NetworkBandwidth => 1024,
            Self::BlockIops => 1,
        }
    }

    /// What these isolators say, the last of them.
    fn among(self, isolators: &[RawIsolator]) -> Result<Option<NonZeroU64>, Error> {
        match Isolator::last(isolators, self.name())? {
            Some(Isolator::Rate(_, rate)) => Ok(Some(rate)),
            _ => Ok(None),
        }
    }
}

/// The rates of a machine, or of what a pod has of one, where somebody asked for some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineRates(BTreeMap<RateKind, NonZeroU64>);

impl MachineRates {
    /// Those that a manifest means: its own and, where a pod has one app, that app's. Of several apps one has to be content with
    /// what the machine has, or it is an error.
    pub fn of(manifest: &PodManifest) -> Result<Self, Error> {
        let mut rates = Self::default();
        for kind in RateKind::ALL {
            let whole = kind.among(&manifest.isolators)?;
            let alone = match manifest.apps.as_slice() {
                [app] => kind.among(app.isolators())?,
                _ => None,
            };
            if let Some(rate) = whole.into_iter().chain(alone).min() {
                rates.0.insert(kind, rate);
            }
        }
        manifest.apps.iter().try_for_each(|app| rates.admit(app))?;
        Ok(rates)
    }

    /// The rate of a kind; none is no limit.
    pub fn get(&self, kind: RateKind) -> Option<NonZeroU64> {
        self.0.get(&kind).copied()
    }

    /// Whether an app has no more than it asks for in such a machine.
    pub fn admit(&self, app: &RuntimeApp) -> Result<(), Error> {
        for kind in RateKind::ALL {
            let Some(rate) = kind.among(app.isolators())? else { continue };
            if self.get(kind).is_none_or(|machines| machines > rate) {
                let (app, name) = (&app.name, kind.name());
                return Err(Error::Invalid(format!(
                    "app \"{app}\" asks for isolator {name} with {rate}, and a pod of several apps has limits of that as a \
                    whole only: give the pod one of at most {rate} (in its manifest), or the app a pod of its own"
                )));
            }
        }
        Ok(())
    }
}

/// Refuses a pod that asks for these rates, where it has nothing of its own that could keep them.
pub(crate) fn refuse(kinds: &[RateKind], manifest: &PodManifest) -> Result<(), Error> {
    check_none(kinds, "the pod", &manifest.isolators)?;
    let apps = &manifest.apps;
    apps.iter().try_for_each(|app| check_none(kinds, &format!("app \"{}\"", app.name), app.isolators()))
}

fn check_none(kinds: &[RateKind], who: &str, isolators: &[RawIsolator]) -> Result<(), Error> {
    match isolators.iter().find(|raw| RateKind::of_name(&raw.name).is_some_and(|kind| kinds.contains(&kind)))
    {
        None => Ok(()),
        Some(raw) => Err(Error::Invalid(format!(
            "{who} asks for isolator {}, which takes a disk and network cards of its own: use --stage1=kvm, or leave it out",
            raw.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(name: &str, limit: &str) -> String {
        format!(r#"{{"name":"resource/{name}","value":{{"default":true,"limit":"{limit}"}}}}"#)
    }

    fn manifest(pod: &str, apps: &[&str]) -> PodManifest {
        let app = |(number, isolators): (usize, &&str)| {
            let id = "0".repeat(64);
            format!(
                r#"{{"name":"a{number}","image":{{"id":"sha512-{id}"}},
                "app":{{"exec":["/a"],"user":"0","group":"0","isolators":[{isolators}]}}}}"#
            )
        };
        let apps: Vec<String> = apps.iter().enumerate().map(app).collect();
        let apps = apps.join(",");
        let json =
            format!(r#"{{"acKind":"PodManifest","acVersion":"0.8.11","isolators":[{pod}],"apps":[{apps}]}}"#);
        PodManifest::parse(json.as_bytes()).unwrap()
    }

    fn bandwidth(pod: &str, apps: &[&str]) -> Option<u64> {
        let rates = MachineRates::of(&manifest(pod, apps)).unwrap();
        rates.get(RateKind::BlockBandwidth).map(NonZeroU64::get)
    }

    #[test]
    fn a_machine_has_what_its_pod_or_its_only_app_asks_for() {
        let (one, two) = (rate("block-bandwidth", "1M"), rate("block-bandwidth", "2Mi"));
        assert_eq!(bandwidth("", &["", ""]), None);
        assert_eq!(bandwidth(&one, &["", ""]), Some(1_000_000));
        assert_eq!(bandwidth("", &[&two]), Some(2 << 20));
        assert_eq!(bandwidth(&one, &[&two]), Some(1_000_000), "the less of both");
        assert_eq!(bandwidth(&two, &[&one]), Some(1_000_000), "the less of both");
        assert_eq!(bandwidth("", &[&format!("{one},{two}")]), Some(2 << 20), "the last");
        let all = [one, rate("block-iops", "100"), rate("network-bandwidth", "10M")].join(",");
        let rates = MachineRates::of(&manifest(&all, &[""])).unwrap();
        assert_eq!(RateKind::ALL.map(|kind| rates.get(kind).unwrap().get()), [1_000_000, 100, 10_000_000]);
    }

    #[test]
    fn one_of_several_apps_has_no_more_than_it_asks_for() {
        let (one, two) = (rate("block-iops", "1000"), rate("block-iops", "2000"));
        for (pod, apps) in [("", [one.as_str(), ""]), (&two, [&one, ""]), ("", [&one, &one])] {
            let error = MachineRates::of(&manifest(pod, &apps)).unwrap_err().to_string();
            assert!(error.contains("\"a0\" asks for isolator resource/block-iops with 1000"), "{error}");
        }
        assert!(MachineRates::of(&manifest(&one, &[&two, ""])).is_ok());
        // One that is to come.
        let machine = MachineRates::of(&manifest(&one, &[""])).unwrap();
        assert!(machine.admit(&manifest("", &[&two]).apps[0]).is_ok());
        assert!(machine.admit(&manifest("", &[&rate("block-iops", "10")]).apps[0]).is_err());
        assert!(machine.admit(&manifest("", &[&rate("network-bandwidth", "10M")]).apps[0]).is_err());
    }

    #[test]
    fn without_a_machine_they_are_refused_by_name() {
        let refuse = |manifest: &PodManifest| refuse(&RateKind::ALL, manifest);
        assert!(refuse(&manifest("", &["", ""])).is_ok());
        let network = rate("network-bandwidth", "1M");
        let error = refuse(&manifest("", &["", &network])).unwrap_err().to_string();
        assert!(error.contains("app \"a1\"") && error.contains("resource/network-bandwidth"), "{error}");
        let error = refuse(&manifest(&network, &[""])).unwrap_err().to_string();
        assert!(error.starts_with("the pod asks for isolator resource/network-bandwidth"), "{error}");
        assert!(super::refuse(&[RateKind::BlockIops], &manifest(&network, &[""])).is_ok());
    }

    #[test]
    fn values_without_sense_are_refused() {
        for (kind, value) in [
            ("block-bandwidth", r#"{"default":false,"limit":"1M"}"#),
            ("block-bandwidth", r#"{"limit":"1M"}"#),
            ("block-bandwidth", r#"{"default":true}"#),
            ("block-bandwidth", r#"{"default":true,"limit":"16m"}"#),
            ("block-iops", r#"{"default":true,"limit":"0"}"#),
            ("network-bandwidth", r#"{"default":true,"limit":"100E"}"#),
        ] {
            let json = format!(r#"{{"name":"resource/{kind}","value":{value}}}"#);
            let raw: RawIsolator = serde_json::from_str(&json).unwrap();
            let error = Isolator::try_from(&raw).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
    }
}
