//! Listening sockets that an app gets from whoever starts the pod (appc spec, `socketActivated` ports; sd_listen_fds(3)).

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::image_manifest::{EnvironmentVariable, Port};
use crate::pod_manifest::PodManifest;
use crate::ports::{ExposedPort, Protocol, protocol};

/// The first passed descriptor, for rkt as well as for an app; the others follow it.
pub const FIRST: i32 = 3;
/// For which process the sockets are.
pub const LISTEN_PID: &str = "LISTEN_PID";
/// How many there are.
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// Their names, with colons in between.
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// All of the protocol's variables. The last one names the process once more, by its pidfd, for late versions of systemd's library;
/// it is never passed on, since it would tell an app that the sockets are not its own.
pub const VARIABLES: [&str; 4] = [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, "LISTEN_PIDFDID"];

/// What the environment says of the sockets that were passed to a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The name of each, if they have names: of descriptor [`FIRST`], and so on.
    pub names: Vec<Option<String>>,
}

impl Announced {
    /// Parses the protocol's variables; nothing is announced to a process that is not the one of `LISTEN_PID`.
    pub fn parse(pid: u32, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        if variable(LISTEN_PID).and_then(|text| text.parse().ok()) != Some(pid) {
            return Ok(Self::default());
        }
        let text = variable(LISTEN_FDS).unwrap_or_default();
        let number: u16 =
            text.parse().map_err(|_| Error::Invalid(format!("{LISTEN_FDS} is \"{text}\", not a number")))?;
        let number = usize::from(number);
        let Some(text) = variable(LISTEN_FDNAMES) else { return Ok(Self { names: vec![None; number] }) };
        let names: Vec<_> = text.split(':').map(|name| Some(name.to_owned())).collect();
        if names.len() != number && !(text.is_empty() && number == 0) {
            let names = names.len();
            return Err(Error::Invalid(format!(
                "{LISTEN_FDNAMES} has {names} names, {LISTEN_FDS} is {number}"
            )));
        }
        Ok(Self { names: names.into_iter().take(number).collect() })
    }
}

/// A socket that was passed to rkt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its descriptor.
    pub descriptor: i32,
    /// The caller's name for it.
    pub name: Option<String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub address: SocketAddr,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptor, protocol, address, .. } = self;
        write!(f, "descriptor {descriptor} ({protocol} {address})")
    }
}

/// A socket of an app, on its way from stage0 to stage1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its descriptor in stage1.
    pub descriptor: i32,
    /// Its name for the app: the caller's, or else that of the port.
    pub name: String,
}

/// Which app of a pod gets which sockets, in the manifest's order. Each socket has to belong to exactly one app, and each
/// `socketActivated` port of the apps needs one.
pub fn assign(manifest: &PodManifest, sockets: &[Listening]) -> Result<Vec<Vec<Passed>>, Error> {
    let wanted = wanted(manifest)?;
    let mut apps = vec![Vec::new(); manifest.apps.len()];
    for socket in sockets {
        let mut matching = wanted.iter().filter(|wanted| wanted.takes(socket));
        let first = matching.next().ok_or_else(|| nobody_takes(socket, &wanted))?;
        if let Some(other) = matching.next() {
            return Err(Error::Invalid(format!("{socket} belongs to both {first} and {other}")));
        }
        let name = socket.name.clone().unwrap_or_else(|| first.port.name.to_string());
        if let Some(app) = apps.get_mut(first.app) {
            app.push(Passed { descriptor: socket.descriptor, name });
        }
    }
    match wanted.iter().find(|wanted| !sockets.iter().any(|socket| wanted.takes(socket))) {
        Some(missing) => Err(Error::Invalid(format!(
            "{missing} is socket-activated, and rkt was not passed its socket: start the pod by a systemd socket unit that \
             listens there, or another program that sets {LISTEN_FDS}"
        ))),
        None => Ok(apps),
    }
}

/// What of a pod asks for sockets, described; nothing, if nothing does.
pub fn asking(manifest: &PodManifest) -> Result<Option<String>, Error> {
    Ok(wanted(manifest)?.first().map(ToString::to_string))
}

/// The environment of the process `pid` that has sockets of these names from [`FIRST`] on.
pub fn environment(
    environment: &[EnvironmentVariable],
    names: &[String],
    pid: u32,
) -> Vec<EnvironmentVariable> {
    let others = environment.iter().filter(|variable| !VARIABLES.contains(&variable.name.as_str()));
    let values = [pid.to_string(), names.len().to_string(), names.join(":")];
    let own = [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES].into_iter().zip(values);
    let own = own.map(|(name, value)| EnvironmentVariable { name: name.into(), value });
    others.cloned().chain(own).collect()
}

fn nobody_takes(socket: &Listening, wanted: &[Wanted<'_>]) -> Error {
    Error::Invalid(match wanted {
        [] => format!("rkt was passed {socket}, and no app of the pod has a socket-activated port"),
        [first, ..] => {
            format!("rkt was passed {socket}, which no app of the pod takes; {first} is socket-activated")
        }
    })
}

/// A port whose socket is passed.
struct Wanted<'a> {
    /// Whose it is, by its place in the manifest.
    app: usize,
    app_name: &'a str,
    port: &'a Port,
    protocol: Protocol,
    exposed: Option<&'a ExposedPort>,
}

/// As upstream: a socket has the host's port, which is the image's own if `--port` says no other.
fn wanted(manifest: &PodManifest) -> Result<Vec<Wanted<'_>>, Error> {
    let apps = manifest.apps.iter().enumerate();
    let ports = apps.flat_map(|(index, app)| {
        let ports = app.app.iter().flat_map(|section| &section.ports);
        ports.filter(|port| port.socket_activated).map(move |port| (index, app.name.as_str(), port))
    });
    let wanted = ports.map(|(app, app_name, port)| {
        let exposed = manifest.ports.iter().find(|exposed| exposed.name == port.name);
        Ok(Wanted { app, app_name, port, protocol: protocol(port)?, exposed })
    });
    wanted.collect()
}

impl Wanted<'_> {
    fn first_port(&self) -> u16 {
        self.exposed.map_or(self.port.port, |exposed| exposed.host_port)
    }

    fn takes(&self, socket: &Listening) -> bool {
        let first = u32::from(self.first_port());
        let ports = first..first.saturating_add(self.port.count);
        let ip = self.exposed.and_then(|exposed| exposed.host_ip);
        self.protocol == socket.protocol
            && ports.contains(&u32::from(socket.address.port()))
            && ip.is_none_or(|ip| ip == socket.address.ip())
    }
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, app, first) = (&self.port.name, self.app_name, self.first_port());
        write!(f, "port \"{name}\" of app \"{app}\" ({} {first}", self.protocol)?;
        match self.port.count {
            0 | 1 => f.write_str(")"),
            count => write!(f, " and the {} after it)", count - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(
        pid: &str,
        number: Option<&str>,
        names: Option<&str>,
    ) -> Result<Vec<Option<String>>, String> {
        let variable = |name: &str| match name {
            LISTEN_PID => Some(pid.to_owned()),
            LISTEN_FDS => number.map(str::to_owned),
            _ => names.map(str::to_owned),
        };
        Announced::parse(7, variable).map(|found| found.names).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_announced() {
        assert_eq!(announced("7", Some("2"), None), Ok(vec![None, None]));
        assert_eq!(announced("7", Some("2"), Some("a:b")), Ok(vec![Some("a".into()), Some("b".into())]));
        assert_eq!(announced("7", Some("0"), Some("")), Ok(Vec::new()));
        for of_others in ["8", "", "seven"] {
            assert_eq!(announced(of_others, Some("abc"), None), Ok(Vec::new()), "{of_others}");
        }
        for (number, names) in
            [(Some("abc"), None), (Some("-1"), None), (None, None), (Some("1"), Some("a:b"))]
        {
            assert!(announced("7", number, names).unwrap_err().contains(LISTEN_FDS), "{number:?}");
        }
    }

    fn manifest(apps: &[&str], exposed: &str) -> PodManifest {
        let app = |(index, ports): (usize, &&str)| {
            format!(
                r#"{{"name":"a{index}","image":{{"id":"sha512-{}"}},
                "app":{{"exec":["/a"],"user":"0","group":"0","ports":[{ports}]}}}}"#,
                "0".repeat(64)
            )
        };
        let apps: Vec<_> = apps.iter().enumerate().map(app).collect();
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","ports":[{exposed}],"apps":[{}]}}"#,
            apps.join(",")
        );
        serde_json::from_str(&json).unwrap()
    }

    fn listening(descriptor: i32, protocol: Protocol, address: &str) -> Listening {
        Listening { descriptor, name: None, protocol, address: address.parse().unwrap() }
    }

    const WEB: &str = r#"{"name":"web","protocol":"tcp","port":80,"socketActivated":true}"#;
    const DNS: &str = r#"{"name":"dns","protocol":"udp","port":53,"count":2,"socketActivated":true}"#;

    #[test]
    fn sockets_find_their_apps() {
        let mut sockets = [
            listening(3, Protocol::Udp, "0.0.0.0:54"),
            listening(4, Protocol::Tcp, "[::]:80"),
            listening(5, Protocol::Tcp, "127.0.0.1:80"),
        ];
        sockets[2].name = Some("web.socket".into());
        let assigned = assign(&manifest(&[WEB, "", DNS], ""), &sockets).unwrap();
        let found: Vec<Vec<_>> = assigned
            .iter()
            .map(|app| app.iter().map(|s| (s.descriptor, s.name.as_str())).collect())
            .collect();
        assert_eq!(found, [vec![(4, "web"), (5, "web.socket")], vec![], vec![(3, "dns")]]);
    }

    #[test]
    fn the_hosts_port_and_address_count() {
        let exposed = r#"{"name":"web","hostPort":8080,"hostIP":"127.0.0.1"}"#;
        let assign = |address| assign(&manifest(&[WEB], exposed), &[listening(3, Protocol::Tcp, address)]);
        assert!(assign("127.0.0.1:8080").is_ok());
        assert!(assign("127.0.0.1:80").is_err() && assign("127.0.0.2:8080").is_err());
        assert!(crate::ports::mappings(&manifest(&[WEB], exposed)).unwrap().is_empty());
    }

    #[test]
    fn refused() {
        let web = listening(3, Protocol::Tcp, "0.0.0.0:80");
        for (apps, sockets, expected) in [
            (&[WEB][..], &[][..], "port \"web\" of app \"a0\" (tcp 80) is socket-activated"),
            (&[""][..], std::slice::from_ref(&web), "descriptor 3 (tcp 0.0.0.0:80), and no app"),
            (&[DNS][..], std::slice::from_ref(&web), "which no app of the pod takes"),
            (&[WEB, WEB][..], std::slice::from_ref(&web), "both port \"web\" of app \"a0\""),
        ] {
            let error = assign(&manifest(apps, ""), sockets).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_apps_environment() {
        let variable =
            |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
        let before = [variable(LISTEN_FDS, "9"), variable("A", "1"), variable("LISTEN_PIDFDID", "1")];
        let after = environment(&before, &["x".into(), "y".into()], 5);
        let wanted = [("A", "1"), (LISTEN_PID, "5"), (LISTEN_FDS, "2"), (LISTEN_FDNAMES, "x:y")];
        assert_eq!(after, wanted.map(|(name, value)| variable(name, value)));
    }
}
