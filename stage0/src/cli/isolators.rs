//! Parsers of flags that are isolators: what they say is checked by the isolators' own parser.

use std::collections::BTreeMap;

use pod::isolator::{Isolator, RawIsolator, names};
use pod::rlimit::Rlimit;
use pod::selinux::Context;
use serde_json::json;

/// `CAP_A,CAP_B`, of `--caps-retain`.
pub fn caps_retain(text: &str) -> Result<RawIsolator, String> {
    isolator(names::CAPABILITIES_RETAIN, json!({ "set": list(text) }))
}

/// The same of `--caps-remove`.
pub fn caps_remove(text: &str) -> Result<RawIsolator, String> {
    isolator(names::CAPABILITIES_REMOVE, json!({ "set": list(text) }))
}

/// `mode=retain|remove,errno=NAME,CALL,...`, in any order.
pub fn seccomp(text: &str) -> Result<RawIsolator, String> {
    let (mut name, mut errno, mut set) = (None, None, Vec::new());
    for word in list(text) {
        let twice = match word.split_once('=') {
            Some(("mode", "retain")) => name.replace(names::SECCOMP_RETAIN).is_some(),
            Some(("mode", "remove")) => name.replace(names::SECCOMP_REMOVE).is_some(),
            Some(("errno", value)) if !value.is_empty() => errno.replace(value).is_some(),
            Some(_) => return Err(format!("\"{word}\" is not mode=retain, mode=remove or errno=NAME")),
            None => {
                set.push(word);
                false
            }
        };
        if twice {
            return Err(format!("\"{word}\" is one too many of its kind"));
        }
    }
    let name = name.ok_or("it needs mode=retain or mode=remove")?;
    isolator(name, json!({ "set": set, "errno": errno }))
}

/// `NAME=SOFT[:HARD]`.
pub fn rlimit(text: &str) -> Result<Rlimit, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

/// A number, of `--pids`.
pub fn pids(text: &str) -> Result<RawIsolator, String> {
    let limit: u64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    isolator(names::PIDS, json!({ "limit": limit }))
}

/// A quantity, of `--disk-space`.
pub fn disk_space(text: &str) -> Result<RawIsolator, String> {
    isolator(names::DISK_SPACE, json!({ "limit": text }))
}

/// A number, of `--cpu-shares`.
pub fn cpu_shares(text: &str) -> Result<RawIsolator, String> {
    let shares: u64 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    isolator(names::CPU_SHARES, json!(shares))
}

/// A name, of `--apparmor-profile`.
pub fn apparmor_profile(text: &str) -> Result<RawIsolator, String> {
    isolator(names::APPARMOR, json!({ "profile": text }))
}

/// `USER:ROLE:TYPE:LEVEL`, of `--selinux-context`.
pub fn selinux_context(text: &str) -> Result<RawIsolator, String> {
    let context: Context = text.parse().map_err(|error: pod::Error| error.to_string())?;
    isolator(names::SELINUX, json!(context))
}

/// `KIND=VALUE,...`, of `--landlock`: each kind may stand several times; ports are numbers, or `none` alone.
pub fn landlock(text: &str) -> Result<RawIsolator, String> {
    let mut rules = BTreeMap::new();
    for word in list(text) {
        let (kind, value) = word.split_once('=').ok_or_else(|| format!("\"{word}\" is not KIND=VALUE"))?;
        let value = match kind {
            "read" | "write" | "execute" | "scope" => vec![json!(value)],
            "bind" | "connect" if value == "none" => Vec::new(),
            "bind" | "connect" => {
                let port: u16 = value.parse().map_err(|_| format!("\"{value}\" is no port, nor none"))?;
                vec![json!(port)]
            }
            _ => return Err(format!("\"{kind}\" is not read, write, execute, bind, connect or scope")),
        };
        let so_far: Option<&mut Vec<_>> = rules.get_mut(kind);
        match so_far {
            Some(values) if values.is_empty() || value.is_empty() => {
                return Err(format!("\"{kind}=none\" stands beside ports"));
            }
            Some(values) => values.extend(value),
            None => drop(rules.insert(kind, value)),
        }
    }
    isolator(names::LANDLOCK, json!(rules))
}

/// A number, of `--oom-score-adj`.
pub fn oom_score_adj(text: &str) -> Result<RawIsolator, String> {
    let score: i32 = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    isolator(names::OOM_SCORE_ADJ, json!(score))
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn isolator(name: &str, value: serde_json::Value) -> Result<RawIsolator, String> {
    let raw = RawIsolator { name: name.into(), value };
    match Isolator::parse_all(std::slice::from_ref(&raw)) {
        Ok(_) => Ok(raw),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seccomp_flags() {
        let raw = seccomp("mode=remove,errno=EXDEV,mkdir,@rkt/default-blacklist").unwrap();
        assert_eq!(raw.name, "os/linux/seccomp-remove-set");
        assert_eq!(raw.value, json!({"set": ["mkdir", "@rkt/default-blacklist"], "errno": "EXDEV"}));
        assert_eq!(seccomp("read,mode=retain").unwrap().name, "os/linux/seccomp-retain-set");
        for (bad, expected) in [
            ("mkdir", "needs mode="),
            ("mode=remove", "empty"),
            ("mode=keep,read", "mode=keep"),
            ("mode=retain,mode=remove,read", "one too many"),
            ("mode=remove,mkdri", "mkdri"),
            ("mode=remove,errno=ENO,mkdir", "ENO"),
            ("mode=remove,errno=,mkdir", "errno="),
            ("mode=remove,execve", "cannot be started"),
        ] {
            let error = seccomp(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(pids("64").unwrap().value, json!({"limit": 64}));
        assert_eq!(oom_score_adj("-1000").unwrap().value, json!(-1000));
        assert_eq!(cpu_shares("2").unwrap().value, json!(2));
        assert!(cpu_shares("1").is_err() && cpu_shares("much").is_err());
        assert_eq!(disk_space("1.5Gi").unwrap().value, json!({"limit": "1.5Gi"}));
        assert!(disk_space("16m").is_err_and(|error| error.contains("64Mi")));
        assert!(pids("0").is_err() && pids("-1").is_err() && oom_score_adj("1001").is_err());
    }

    #[test]
    fn landlock_flags() {
        let raw = landlock("read=/usr,read=/etc,write=/tmp,bind=none,connect=443,scope=signal").unwrap();
        let wanted = json!({"read": ["/usr", "/etc"], "write": ["/tmp"], "bind": [], "connect": [443], "scope": ["signal"]});
        assert_eq!((raw.name.as_str(), raw.value), ("os/linux/landlock", wanted));
        for (bad, expected) in [
            ("", "nothing"),
            ("read", "KIND=VALUE"),
            ("reed=/", "reed"),
            ("read=usr", "absolute"),
            ("bind=http", "http"),
            ("connect=0", "port"),
            ("bind=80,bind=none", "beside"),
            ("bind=none,bind=80", "beside"),
            ("scope=network", "network"),
        ] {
            let error = landlock(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn selinux_contexts() {
        let raw = selinux_context("u:r:t:s0:c1,c2").unwrap();
        assert_eq!(raw.value, json!({"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"}));
        assert!(selinux_context("u:r:t").is_err());
    }

    #[test]
    fn capability_flags() {
        assert_eq!(caps_retain("CAP_CHOWN,KILL").unwrap().value, json!({"set": ["CAP_CHOWN", "KILL"]}));
        assert_eq!(caps_remove("CHOWN").unwrap().name, "os/linux/capabilities-remove-set");
        assert!(caps_retain("CAP_FLY").is_err_and(|error| error.contains("CAP_FLY")));
    }
}
