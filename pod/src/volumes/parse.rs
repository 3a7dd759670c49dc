//! Volumes and mounts of the command line.

use std::str::FromStr;

use super::{MODE_BITS, Mount, RawVolume, Volume};
use crate::Error;

impl FromStr for Volume {
    type Err = Error;

    /// `NAME,kind=host|empty,...`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split(',');
        let mut raw = RawVolume { name: words.next().unwrap_or_default().into(), ..RawVolume::default() };
        for word in words {
            let (key, value) = split(word)?;
            let new = match key {
                "kind" => set_text(&mut raw.kind, value),
                "source" => raw.source.replace(value.into()).is_none(),
                "readOnly" => raw.read_only.replace(boolean(key, value)?).is_none(),
                "recursive" => raw.recursive.replace(boolean(key, value)?).is_none(),
                "idmap" => raw.idmap.replace(boolean(key, value)?).is_none(),
                "mode" => raw.mode.replace(value.into()).is_none(),
                "uid" => raw.uid.replace(number(key, value)?).is_none(),
                "gid" => raw.gid.replace(number(key, value)?).is_none(),
                _ => {
                    return Err(Error::Invalid(format!(
                        "unknown volume parameter \"{key}\"; there are kind, source, readOnly, recursive, idmap, \
                         mode, uid and gid"
                    )));
                }
            };
            if !new {
                return Err(Error::Invalid(format!("\"{key}\" stands twice")));
            }
        }
        raw.try_into()
    }
}

impl FromStr for Mount {
    type Err = Error;

    /// `volume=NAME,target=PATH`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (mut volume, mut target) = (String::new(), String::new());
        for word in text.split(',') {
            let (key, value) = split(word)?;
            let new = match key {
                "volume" => set_text(&mut volume, value),
                "target" => set_text(&mut target, value),
                _ => {
                    return Err(Error::Invalid(format!(
                        "unknown mount parameter \"{key}\"; it must be volume=NAME,target=PATH"
                    )));
                }
            };
            if !new {
                return Err(Error::Invalid(format!("\"{key}\" stands twice or is empty")));
            }
        }
        if volume.is_empty() || target.is_empty() {
            return Err(Error::Invalid("a mount must be volume=NAME,target=PATH".into()));
        }
        Ok(Self { volume: volume.parse()?, path: target, app_volume: None })
    }
}

impl Mount {
    /// An app's own volume and its place in one: `name=NAME,target=PATH,kind=host|empty,...` in any order.
    pub fn with_own_volume(text: &str) -> Result<Self, Error> {
        let (mut name, mut target, mut rest) = (String::new(), String::new(), Vec::new());
        for word in text.split(',') {
            let new = match split(word)? {
                ("name", value) => set_text(&mut name, value),
                ("target", value) => set_text(&mut target, value),
                _ => {
                    rest.push(word);
                    true
                }
            };
            if !new {
                return Err(Error::Invalid(format!("\"{word}\" stands twice or is empty")));
            }
        }
        if name.is_empty() || target.is_empty() {
            return Err(Error::Invalid("an app's volume needs name=NAME and target=PATH".into()));
        }
        let volume: Volume = [&[name.as_str()], rest.as_slice()].concat().join(",").parse()?;
        Ok(Self { volume: volume.name.clone(), path: target, app_volume: Some(volume) })
    }
}

fn split(word: &str) -> Result<(&str, &str), Error> {
    word.split_once('=').ok_or_else(|| Error::Invalid(format!("\"{word}\" is not NAME=VALUE")))
}

/// Whether it was not set before.
fn set_text(field: &mut String, value: &str) -> bool {
    let new = field.is_empty() && !value.is_empty();
    *field = value.into();
    new
}

fn boolean(key: &str, value: &str) -> Result<bool, Error> {
    let parsed = crate::boolean::parse(value);
    parsed.ok_or_else(|| Error::Invalid(format!("{key} is true or false, not \"{value}\"")))
}

fn number(key: &str, value: &str) -> Result<u32, Error> {
    value.parse().map_err(|_| Error::Invalid(format!("{key} is a number, not \"{value}\"")))
}

/// Permission bits in octal.
pub fn mode(text: &str) -> Result<u32, Error> {
    let digits = !text.is_empty() && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= MODE_BITS);
    mode.ok_or_else(|| Error::Invalid(format!("mode is octal, like 0755, not \"{text}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::{EmptyVolume, VolumeSource};

    fn volume(text: &str) -> Result<Volume, Error> {
        text.parse()
    }

    #[test]
    fn the_grammar() {
        let host = volume("data,kind=host,source=/srv/a=b,readOnly=1,recursive=F").unwrap();
        let source = VolumeSource::Host { path: "/srv/a=b".into(), recursive: false, idmap: false };
        assert_eq!((host.name.as_str(), host.read_only, &host.source), ("data", Some(true), &source));
        let empty = volume("e,kind=empty,mode=1770,uid=5,gid=6").unwrap();
        assert_eq!(empty.source, VolumeSource::Empty(EmptyVolume { mode: 0o1770, uid: 5, gid: 6 }));
        assert_eq!(volume("e,kind=empty").unwrap().source, VolumeSource::Empty(EmptyVolume::default()));
        for volume in [host, empty] {
            let json = serde_json::to_string(&volume).unwrap();
            assert_eq!(serde_json::from_str::<Volume>(&json).unwrap(), volume, "{json}");
        }
        let mount: Mount = "volume=data,target=/a b".parse().unwrap();
        assert_eq!((mount.volume.as_str(), mount.path.as_str()), ("data", "/a b"));
        let own = Mount::with_own_volume("kind=empty,target=/t,name=e,mode=0700").unwrap();
        assert_eq!((own.volume.as_str(), own.path.as_str()), ("e", "/t"));
        assert_eq!(own.app_volume, Some(volume("e,kind=empty,mode=0700").unwrap()));
        let json = serde_json::to_string(&own).unwrap();
        assert!(json.contains("appVolume") && serde_json::from_str::<Mount>(&json).unwrap() == own, "{json}");
        for bad in
            ["name=e,kind=empty", "target=/t,kind=empty", "name=e,target=/t", "name=e,name=f,target=/t"]
        {
            assert!(Mount::with_own_volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refused() {
        for (bad, expected) in [
            ("data", "needs kind"),
            ("Data,kind=empty", "AC Name"),
            ("d,kind=disk", "neither host nor empty"),
            ("d,kind=host", "needs source"),
            ("d,kind=host,source=srv", "not an absolute path"),
            ("d,kind=host,source=/a,mode=0755", "for kind=empty"),
            ("d,kind=host,source=/a,uid=0", "for kind=empty"),
            ("d,kind=empty,source=/a", "for kind=host"),
            ("d,kind=empty,idmap=true", "for kind=host"),
            ("d,kind=empty,mode=888", "octal"),
            ("d,kind=empty,mode=77777", "octal"),
            ("d,kind=empty,uid=-1", "number"),
            ("d,kind=empty,uid=4294967295", "no user"),
            ("d,kind=empty,readOnly=yes", "true or false"),
            ("d,kind=empty,size=5", "unknown volume parameter"),
            ("d,kind=empty,kind=empty", "twice"),
            ("d,kind=empty,x", "NAME=VALUE"),
        ] {
            let error = volume(bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
        for bad in ["volume=d", "target=/x", "volume=d,target=/x,ro=1", "volume=d,volume=d,target=/x", "d:/x"]
        {
            assert!(bad.parse::<Mount>().is_err(), "{bad}");
        }
    }
}
