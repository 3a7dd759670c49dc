//! Parsers of flags' values.

use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use pod::boolean;
use pod::image_manifest::{EnvironmentVariable, NameValue, Port, check_variable_name};
use pod::life::MAX_KILL_TIMEOUT;
use pod::limits::{MIN_CPU_MILLI, MIN_MEMORY_BYTES};
use pod::net::Net;
use pod::ports::{ExposedPort, Protocol};
use pod::quantity::Quantity;
use pod::streams::{InputMode, MIN_LOG_BYTES, OutputMode};
use pod::types::AcName;
use pod::volumes::{self, Mount};

use crate::timeline::Wanted;

/// Units of a duration, in nanoseconds; one that another begins with comes after that.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1000),
    ("µs", 1000),
    ("ms", 1_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// A duration as Go writes it: `30m`, `1h30m`, `1.5h`, `500ms`, `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a duration such as 90s, 30m or 1h30m");
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() && text != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(invalid)?;
        let amount = nanoseconds(number, *factor).ok_or_else(invalid)?;
        total = total.checked_add(Duration::from_nanos(amount)).ok_or_else(invalid)?;
        rest = tail.strip_prefix(unit).unwrap_or_default();
    }
    if text.is_empty() { Err(invalid()) } else { Ok(total) }
}

/// A number of units, maybe with a fraction; what is less than a nanosecond does not count.
fn nanoseconds(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // More digits than that are of no unit.
    let fraction = fraction.get(..fraction.len().min(18))?;
    let parts = fraction.parse::<u64>().ok()?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(u64::try_from(u128::from(parts) * u128::from(unit) / scale).ok()?)
}

/// `true` or `false`, in all of upstream's words for them.
pub fn boolean() -> impl TypedValueParser<Value = bool> {
    let words = [("true", boolean::TRUE), ("false", boolean::FALSE)];
    let words = words.map(|(name, others)| PossibleValue::new(name).aliases(others));
    PossibleValuesParser::new(words).map(|word| boolean::TRUE.contains(&word.as_str()))
}

/// `NAME=VALUE`.
pub fn variable(text: &str) -> Result<EnvironmentVariable, String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    check_variable_name(name).map_err(|error| error.to_string())?;
    Ok(EnvironmentVariable { name: name.into(), value: value.into() })
}

/// What has a parser of its own.
pub fn parsed<T: FromStr<Err = pod::Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

/// `true`, `false`, or a file's name.
pub fn timeline(text: &str) -> Result<Wanted, String> {
    match text {
        "false" => Ok(Wanted::No),
        "true" => Ok(Wanted::Printed),
        name if name.ends_with(".svg") => Ok(Wanted::Drawn(name.into())),
        _ => Err("it must be true, false, or the name of a file that ends in .svg".into()),
    }
}

/// How long an app may take to end.
pub fn kill_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout <= MAX_KILL_TIMEOUT => Ok(timeout),
        _ => Err(format!("it is more than a day ({}h)", MAX_KILL_TIMEOUT.as_secs() / 3600)),
    }
}

/// `PORT`, `PORT/tcp` or `PORT/udp`.
pub fn socket_port(text: &str) -> Result<(Protocol, u16), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    };
    let port = port.parse().ok().filter(|port| *port != 0);
    protocol.zip(port).ok_or_else(|| format!("{text:?} is not a port such as 80 or 53/udp"))
}

/// `NAME=VALUE`, whatever both are.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    if name.is_empty() { Err("it has no name".into()) } else { Ok((name.into(), value.into())) }
}

/// `NAME=VALUE`, of an annotation.
pub fn annotation(text: &str) -> Result<NameValue, String> {
    let (name, value) = pair(text)?;
    Ok(NameValue { name: parsed(&name)?, value })
}

/// The name of an app.
pub fn name(text: &str) -> Result<AcName, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

/// Where an app's input comes from.
pub fn input_mode(text: &str) -> Result<InputMode, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

/// Where an app's output goes.
pub fn output_mode(text: &str) -> Result<OutputMode, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

/// The size of a log's file, in bytes.
pub fn log_size(text: &str) -> Result<u64, String> {
    let size = at_least(text, Quantity::units, MIN_LOG_BYTES)?;
    size.units().ok_or_else(|| "it is too much".into())
}

/// CPU time, in cores.
pub fn cpu(text: &str) -> Result<Quantity, String> {
    at_least(text, Quantity::milli, MIN_CPU_MILLI)
}

/// Memory, in bytes. What is much too little is a forgotten unit: `16m` is 16 thousandths of a byte.
pub fn memory(text: &str) -> Result<Quantity, String> {
    at_least(text, Quantity::units, MIN_MEMORY_BYTES)
}

fn at_least(text: &str, amount: fn(Quantity) -> Option<u64>, least: u64) -> Result<Quantity, String> {
    let quantity: Quantity = text.parse().map_err(|error: pod::Error| error.to_string())?;
    match amount(quantity) {
        None => Err("it is too much".into()),
        Some(amount) if amount < least => Err("it is too little; is a unit missing?".into()),
        Some(_) => Ok(quantity),
    }
}

/// The pod's network.
pub fn net(text: &str) -> Result<Net, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

/// `NAME:[HOSTIP:]PORT`; an IPv6 address may stand in brackets.
pub fn port(text: &str) -> Result<ExposedPort, String> {
    let invalid = || format!("{text:?} is not NAME:[HOSTIP:]PORT");
    let (name, rest) = text.split_once(':').ok_or_else(invalid)?;
    let (ip, port) = rest.rsplit_once(':').map_or((None, rest), |(ip, port)| (Some(ip), port));
    let bare = |ip: &str| ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip).parse();
    let host_ip = ip.map(bare).transpose().map_err(|_| invalid())?;
    let host_port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
    Ok(ExposedPort { name: self::name(name)?, host_port, host_ip, pod_port: None })
}

/// `NAME:PROTO:PODPORT:[HOSTIP:]PORT`, of a pod whose apps are not known yet.
pub fn direct_port(text: &str) -> Result<ExposedPort, String> {
    let invalid = || format!("{text:?} is not NAME:PROTO:PODPORT:[HOSTIP:]PORT");
    let mut words = text.splitn(4, ':');
    let [Some(name), Some(protocol @ ("tcp" | "udp")), Some(in_pod), Some(on_host)] =
        std::array::from_fn(|_| words.next())
    else {
        return Err(invalid());
    };
    let exposed = port(&format!("{name}:{on_host}")).map_err(|_| invalid())?;
    let number = in_pod.parse().ok().filter(|port: &u16| *port != 0).ok_or_else(invalid)?;
    let name = exposed.name.clone();
    let in_pod = Port { name, protocol: protocol.into(), port: number, count: 1, socket_activated: false };
    Ok(ExposedPort { pod_port: Some(in_pod), ..exposed })
}

/// A volume of an app's own, and its place.
pub fn own_volume(text: &str) -> Result<Mount, String> {
    let mount = Mount::with_own_volume(text).map_err(|error| error.to_string())?;
    volumes::clean(&mount.path).map(|_| mount).map_err(|error| error.to_string())
}

/// Where a volume belongs.
pub fn mount(text: &str) -> Result<Mount, String> {
    let mount: Mount = parsed(text)?;
    volumes::clean(&mount.path).map(|_| mount).map_err(|error| error.to_string())
}

/// An absolute path in the app's root.
pub fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err("it must be absolute".into()) }
}

/// A host name (RFC 1123): labels of letters, digits and inner hyphens, joined by dots; as long as Linux allows.
pub fn hostname(text: &str) -> Result<String, String> {
    const LONGEST: usize = 64;
    let good_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= LONGEST && text.split('.').all(good_label) {
        Ok(text.into())
    } else {
        Err(format!(
            "{text:?} is not a host name (letters, digits, inner hyphens and dots, at most {LONGEST})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("30m", 1_800_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("1m0.25s", 60_250),
            ("3000us", 3),
            ("0.0000000000000000000001h", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in
            ["", "30", "m", "-1s", "1d", "99999999999999999999s", "1h 1m", "1m0", "1.2.3s", ".s", "9000000h"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables() {
        let parsed = variable("A=b=c").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.value.as_str()), ("A", "b=c"));
        assert!(variable("A=").is_ok());
        for bad in ["A", "=b", "1A=b", "A B=c"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        assert!(cpu("10m").is_ok() && memory("4Ki").is_ok());
        for (bad, expected) in
            [("16m", "unit"), ("99999999Ti", "too much"), ("", "quantity"), ("-1", "quantity")]
        {
            assert!(memory(bad).is_err_and(|error| error.contains(expected)), "{bad}");
        }
        assert!(cpu("0").is_err());
    }

    #[test]
    fn socket_ports() {
        assert_eq!(socket_port("80"), Ok((Protocol::Tcp, 80)));
        assert_eq!(socket_port("53/udp"), Ok((Protocol::Udp, 53)));
        for bad in ["", "0", "65536", "80/", "80/sctp", "http"] {
            assert!(socket_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports() {
        let text = |text| port(text).map(|port| (port.host_ip.map(|ip| ip.to_string()), port.host_port));
        assert_eq!(text("web:80"), Ok((None, 80)));
        assert_eq!(text("web:192.0.2.1:80"), Ok((Some("192.0.2.1".into()), 80)));
        assert_eq!(text("web:[2001:db8::1]:80"), Ok((Some("2001:db8::1".into()), 80)));
        assert_eq!(text("80-tcp:::1:80"), Ok((Some("::1".into()), 80)));
        for bad in ["web", "web:", "web:0", "web:65536", "web:x:80", ":80", "Web:80"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names() {
        for good in ["web", "web-1.example.com", "0"] {
            assert!(hostname(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a_b", "a\n", &"a".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
    }
}
