//! Ports of a pod that are reached from outside (appc spec, "Pod Manifest Schema", `ports`).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::image_manifest::Port;
use crate::pod_manifest::PodManifest;
use crate::types::AcName;

/// A port of the host that leads to a port of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// The name that the app's manifest gives its port.
    pub name: AcName,
    /// The port on the host.
    pub host_port: u16,
    /// The host's address; every one if absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The pod's port, where no app has one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_port: Option<Port>,
}

/// The protocols that ports have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of the host, and where it leads; as the CNI capability `portMappings` has it (CNI conventions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port on the host.
    pub host_port: u16,
    /// The port in the pod.
    pub container_port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// The host's address; every one if absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// Whether no two of the kind can be on one host.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let overlap = match (self.host_ip, other.host_ip) {
            (Some(one), Some(other)) => one == other || one.is_unspecified() || other.is_unspecified(),
            _ => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && overlap
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host_port, .. } = self;
        match self.host_ip {
            Some(ip) => write!(f, "{protocol} port {host_port} of {ip}"),
            None => write!(f, "{protocol} port {host_port}"),
        }
    }
}

/// Where the exposed ports of a pod lead. Nothing is forwarded to a socket-activated port: its socket is the host's.
pub fn mappings(manifest: &PodManifest) -> Result<Vec<PortMapping>, Error> {
    let mut mappings: Vec<PortMapping> = Vec::new();
    for exposed in &manifest.ports {
        let port = find(manifest, exposed)?;
        let forwarded = if port.socket_activated { Vec::new() } else { range(exposed, port)? };
        for mapping in forwarded {
            if mappings.iter().any(|other| other.conflicts_with(&mapping)) {
                return Err(Error::Invalid(format!("the host's {mapping} is asked for twice")));
            }
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

fn find<'a>(manifest: &'a PodManifest, exposed: &'a ExposedPort) -> Result<&'a Port, Error> {
    let of_apps = manifest.apps.iter().filter_map(|app| app.app.as_ref()).flat_map(|app| &app.ports);
    let mut named = of_apps.filter(|port| port.name == exposed.name);
    named.next().or(exposed.pod_port.as_ref()).ok_or_else(|| {
        Error::Invalid(format!("port name \"{}\" could not be found in any apps", exposed.name))
    })
}

/// What a port speaks.
pub(crate) fn protocol(port: &Port) -> Result<Protocol, Error> {
    match port.protocol.as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(Error::Unsupported(format!("the protocol \"{other}\" of port \"{}\"", port.name))),
    }
}

/// A port of an app may be a range; the host's is then as long.
fn range(exposed: &ExposedPort, port: &Port) -> Result<Vec<PortMapping>, Error> {
    let protocol = protocol(port)?;
    let too_high = || Error::Invalid(format!("port \"{}\" ends above 65535", port.name));
    let step = |first: u16, index: u32| {
        u32::from(first).checked_add(index).and_then(|sum| u16::try_from(sum).ok()).ok_or_else(too_high)
    };
    let mut mappings = Vec::new();
    for index in 0..port.count {
        mappings.push(PortMapping {
            host_port: step(exposed.host_port, index)?,
            container_port: step(port.port, index)?,
            protocol,
            host_ip: exposed.host_ip,
        });
    }
    Ok(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(ports: &str, exposed: &str) -> PodManifest {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","ports":[{exposed}],"apps":[{{"name":"a",
            "image":{{"id":"sha512-{}"}},"app":{{"exec":["/a"],"user":"0","group":"0","ports":[{ports}]}}}}]}}"#,
            "0".repeat(64)
        );
        serde_json::from_str(&json).unwrap()
    }

    const WEB: &str =
        r#"{"name":"web","protocol":"tcp","port":80},{"name":"dns","protocol":"udp","port":53}"#;

    #[test]
    fn names_lead_to_ports() {
        let exposed = r#"{"name":"web","hostPort":8080,"hostIP":"192.0.2.1"},{"name":"dns","hostPort":53}"#;
        let mappings = mappings(&manifest(WEB, exposed)).unwrap();
        assert_eq!(
            serde_json::to_string(&mappings).unwrap(),
            r#"[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.1"},"#.to_owned()
                + r#"{"hostPort":53,"containerPort":53,"protocol":"udp"}]"#
        );
    }

    #[test]
    fn ranges() {
        let range = r#"{"name":"r","protocol":"udp","port":100,"count":2}"#;
        let two = mappings(&manifest(range, r#"{"name":"r","hostPort":200}"#)).unwrap();
        let ports: Vec<_> = two.iter().map(|mapping| (mapping.host_port, mapping.container_port)).collect();
        assert_eq!(ports, [(200, 100), (201, 101)]);
        assert!(mappings(&manifest(range, r#"{"name":"r","hostPort":65535}"#)).is_err());
    }

    #[test]
    fn refused() {
        for (exposed, expected) in [
            (r#"{"name":"db","hostPort":1}"#, "\"db\" could not be found in any apps"),
            (r#"{"name":"web","hostPort":1},{"name":"web","hostPort":1,"hostIP":"::1"}"#, "twice"),
        ] {
            let error = mappings(&manifest(WEB, exposed)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let apart = r#"{"name":"web","hostPort":1,"hostIP":"192.0.2.1"},{"name":"web","hostPort":1,"hostIP":"192.0.2.2"}"#;
        assert_eq!(mappings(&manifest(WEB, apart)).unwrap().len(), 2);
        let odd = r#"{"name":"x","protocol":"sctp","port":1}"#;
        assert!(mappings(&manifest(odd, r#"{"name":"x","hostPort":1}"#)).is_err());
    }
}
