//! System call filters (appc spec, `os/linux/seccomp-retain-set` and `-remove-set`): from the isolators' names to the
//! program that the kernel runs on every call.

pub mod calls;
mod default;
pub mod errno;
pub mod filter;
pub mod program;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use crate::Error;
use crate::capability::CapabilitySet;
use crate::isolator::Isolator;
use calls::{Name, known, number};
use errno::Errno;
pub use filter::Filter;
use filter::{Action, Otherwise, Rule, Rules};

/// Calls without which no program starts, ends, or comes back from a signal: every retain-set has them, as upstream's
/// had by systemd.
const INDISPENSABLE: [&str; 4] = ["execve", "exit", "exit_group", "rt_sigreturn"];

/// A file of kernels that take filters (CONFIG_SECCOMP_FILTER), since Linux 4.14, as is the action that ends a process.
pub const KERNEL_TAKES_FILTERS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// The value of a seccomp isolator.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSet")]
pub struct SystemCallSet {
    /// In the manifest's order; not empty.
    entries: Vec<Entry>,
    /// What a refused call is answered with; without, it ends the process.
    errno: Option<Errno>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Name(Name),
    List(List),
}

/// A wildcard. Upstream's own lists are docker's, so that each has two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// Every call.
    All,
    /// None.
    Empty,
    /// What an app may do that says nothing.
    Whitelist,
    /// Everything else that is known.
    Blacklist,
}

const LISTS: [(&str, List); 6] = [
    ("@appc.io/all", List::All),
    ("@appc.io/empty", List::Empty),
    ("@rkt/default-whitelist", List::Whitelist),
    ("@docker/default-whitelist", List::Whitelist),
    ("@rkt/default-blacklist", List::Blacklist),
    ("@docker/default-blacklist", List::Blacklist),
];

#[derive(Deserialize)]
struct RawSet {
    set: Vec<String>,
    /// The specification takes an empty one for none.
    #[serde(default)]
    errno: Option<String>,
}

impl TryFrom<RawSet> for SystemCallSet {
    type Error = Error;

    fn try_from(raw: RawSet) -> Result<Self, Error> {
        if raw.set.is_empty() {
            return Err(Error::Invalid("a set of system calls is empty (@appc.io/empty is a set)".into()));
        }
        Ok(Self {
            entries: raw.set.iter().map(|entry| Entry::parse(entry)).collect::<Result<_, _>>()?,
            errno: raw.errno.filter(|name| !name.is_empty()).map(|name| name.parse()).transpose()?,
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, Error> {
        match LISTS.iter().find(|(name, _)| *name == text) {
            Some((_, list)) => Ok(Self::List(*list)),
            None if text.starts_with('@') => {
                let lists = LISTS.map(|(name, _)| name).join(", ");
                Err(Error::Unsupported(format!("the list of system calls \"{text}\" (there are {lists})")))
            }
            None => Name::parse(text).map(Self::Name),
        }
    }
}

/// The filter of an app with these isolators that keeps these capabilities: the default one if it says nothing.
pub fn of_isolators(isolators: &[Isolator], capabilities: CapabilitySet) -> Result<Option<Filter>, Error> {
    asked_for(isolators, capabilities).unwrap_or_else(|| Ok(Some(default_filter(capabilities))))
}

/// Whether there is such a filter.
pub fn check(isolators: &[Isolator], capabilities: CapabilitySet) -> Result<(), Error> {
    asked_for(isolators, capabilities).transpose().map(drop)
}

fn asked_for(isolators: &[Isolator], capabilities: CapabilitySet) -> Option<Result<Option<Filter>, Error>> {
    let mut filters = isolators.iter().filter_map(|isolator| match isolator {
        Isolator::SeccompRetain(set) => Some(set.retain(capabilities)),
        Isolator::SeccompRemove(set) => Some(set.remove(capabilities)),
        _ => None,
    });
    match (filters.next(), filters.next()) {
        (filter, None) => filter,
        (_, Some(_)) => Some(Err(Error::Invalid(
            "an app has more than one isolator of system calls: seccomp-retain-set and -remove-set exclude each other"
                .into(),
        ))),
    }
}

/// What is not in the list is refused as without the privilege for it, and what is younger than the list as by an older
/// kernel: programs know how to do without both.
fn default_filter(capabilities: CapabilitySet) -> Filter {
    let otherwise = Otherwise { known: Action::Errno(Errno::EPERM), unknown: Action::Errno(Errno::ENOSYS) };
    Filter::new(&default::rules(capabilities), otherwise)
}

impl SystemCallSet {
    fn refusal(&self) -> Action {
        self.errno.map_or(Action::Kill, Action::Errno)
    }

    /// Nothing but the set.
    fn retain(&self, capabilities: CapabilitySet) -> Result<Option<Filter>, Error> {
        let default = default::rules(capabilities);
        let mut rules = Rules::new();
        for entry in &self.entries {
            match entry {
                Entry::List(List::All) => return Ok(None),
                Entry::List(List::Whitelist) => rules.extend(default.clone()),
                Entry::List(List::Blacklist) => {
                    rules.extend(all().into_iter().filter(|(call, _)| !default.contains_key(call)));
                }
                Entry::List(List::Empty) | Entry::Name(_) => {}
            }
        }
        // A call that is named is meant with every argument, whatever a list says of it.
        rules.extend(
            self.named().chain(INDISPENSABLE.into_iter().filter_map(number)).map(|call| (call, Rule::Allow)),
        );
        let refusal = self.refusal();
        Ok(Some(Filter::new(&rules, Otherwise { known: refusal, unknown: refusal })))
    }

    /// Everything but the set; if that is empty, the default, as upstream has it.
    fn remove(&self, capabilities: CapabilitySet) -> Result<Option<Filter>, Error> {
        let default = default::rules(capabilities);
        let refusal = self.refusal();
        if self.entries.iter().all(|entry| *entry == Entry::List(List::Empty)) {
            return Ok(Some(match self.errno {
                Some(_) => Filter::new(&default, Otherwise { known: refusal, unknown: refusal }),
                None => default_filter(capabilities),
            }));
        }
        let mut rules = all();
        for entry in &self.entries {
            match entry {
                Entry::List(List::All) => rules.clear(),
                Entry::List(List::Whitelist) => rules.retain(|call, _| !default.contains_key(call)),
                Entry::List(List::Blacklist) => {
                    let allowed = |call: &u32| default.get(call).cloned();
                    rules = rules.into_keys().filter_map(|call| Some((call, allowed(&call)?))).collect();
                }
                Entry::List(List::Empty) | Entry::Name(_) => {}
            }
        }
        self.named().for_each(|call| drop(rules.remove(&call)));
        if number("execve").is_some_and(|execve| !rules.contains_key(&execve)) {
            return Err(Error::Invalid(
                "a seccomp-remove-set has execve, without which the app itself cannot be started".into(),
            ));
        }
        Ok(Some(Filter::new(&rules, Otherwise { known: refusal, unknown: Action::Allow })))
    }

    /// The calls that are named one by one.
    fn named(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Name(Name::Call(call)) => Some(*call),
            Entry::Name(Name::Elsewhere) | Entry::List(_) => None,
        })
    }
}

fn all() -> Rules {
    known().map(|(call, _)| (call, Rule::Allow)).collect()
}
