//! Messages of D-Bus, as far as calls to systemd need them (D-Bus specification, "Type System" and "Message Protocol").

use std::io;

/// The part of a message that tells its length.
pub const FIXED_BYTES: usize = 16;
/// The longest message that is read: what is asked for here fits in much less.
const MAX_BYTES: usize = 1 << 20;
const LITTLE_ENDIAN: u8 = b'l';
const PROTOCOL: u8 = 1;
/// What structures begin at a multiple of.
const STRUCTURE: usize = 8;

/// The types of messages.
mod types {
    pub const CALL: u8 = 1;
    pub const RETURN: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const SIGNAL: u8 = 4;
}

/// The fields of headers.
mod fields {
    pub const PATH: u8 = 1;
    pub const INTERFACE: u8 = 2;
    pub const MEMBER: u8 = 3;
    pub const ERROR_NAME: u8 = 4;
    pub const REPLY_SERIAL: u8 = 5;
    pub const DESTINATION: u8 = 6;
    pub const SIGNATURE: u8 = 8;
}

/// A call of a method.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Whose it is.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// Its arguments.
    pub arguments: &'a [Value<'a>],
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(&'a str),
    /// A number of 64 bits.
    U64(u64),
    /// Numbers of 32 bits.
    Numbers(&'a [u32]),
    /// A unit's properties: names and values.
    Properties(&'a [(&'a str, Value<'a>)]),
    /// An empty list of further units.
    NoUnits,
}

impl Value<'_> {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Text(_) => "s",
            Self::U64(_) => "t",
            Self::Numbers(_) => "au",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

impl Call<'_> {
    /// The message, with the number that its answer will name.
    pub fn to_bytes(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        self.arguments.iter().for_each(|argument| body.value(argument));
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let mut message = Writer(vec![LITTLE_ENDIAN, types::CALL, 0, PROTOCOL]);
        message.length(body.0.len());
        message.u32(serial);
        message.array(STRUCTURE, |header| {
            header.field(fields::PATH, "o", self.path);
            header.field(fields::INTERFACE, "s", self.interface);
            header.field(fields::MEMBER, "s", self.member);
            header.field(fields::DESTINATION, "s", self.destination);
            if !signature.is_empty() {
                header.field(fields::SIGNATURE, "g", &signature);
            }
        });
        message.align(STRUCTURE);
        message.0.extend(body.0);
        message.0
    }
}

/// Appends values, each at a multiple of its size.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, size: usize) {
        self.0.resize(self.0.len().next_multiple_of(size), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn length(&mut self, bytes: usize) {
        // Ours are short.
        self.u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.bytes().chain([0]));
    }

    /// The length of an array counts what is behind the padding to its first element, also if there is none.
    fn array(&mut self, alignment: usize, write: impl FnOnce(&mut Self)) {
        self.length(0);
        let length = self.0.len();
        self.align(alignment);
        let begin = self.0.len();
        write(self);
        let bytes = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(length - 4..length) {
            place.copy_from_slice(&bytes.to_le_bytes());
        }
    }

    fn field(&mut self, code: u8, signature: &str, text: &str) {
        self.align(STRUCTURE);
        self.0.push(code);
        self.signature(signature);
        match signature {
            "g" => self.signature(text),
            _ => self.text(text),
        }
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Bool(truth) => self.u32((*truth).into()),
            Value::Text(text) => self.text(text),
            Value::U64(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => self.array(4, |array| numbers.iter().for_each(|n| array.u32(*n))),
            Value::Properties(properties) => self.array(STRUCTURE, |array| {
                for (name, value) in *properties {
                    array.align(STRUCTURE);
                    array.text(name);
                    array.signature(value.signature());
                    array.value(value);
                }
            }),
            Value::NoUnits => self.array(STRUCTURE, |_| {}),
        }
    }
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What a call returns.
    Return {
        /// The call's number.
        to: u32,
    },
    /// Why a call has failed.
    Error {
        /// The call's number.
        to: u32,
        /// The error's name.
        name: String,
    },
    /// A signal.
    Signal,
    /// What is of no interest here.
    Other,
}

/// A message that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    member: String,
    signature: String,
    body: Vec<u8>,
}

/// The length of a whole message by its first [`FIXED_BYTES`]; none if they are no message's.
pub fn length(fixed: &[u8]) -> Option<usize> {
    let mut reader = Reader { bytes: fixed, at: 0 };
    let [order, _, _, protocol] = reader.take()?;
    let (body, _, fields) = (reader.size()?, reader.u32()?, reader.size()?);
    let length = FIXED_BYTES.checked_add(fields)?.checked_next_multiple_of(STRUCTURE)?.checked_add(body)?;
    (order == LITTLE_ENDIAN && protocol == PROTOCOL && length <= MAX_BYTES).then_some(length)
}

impl Message {
    /// From the bytes of a whole message; none if they are not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let [_, kind, _, _] = reader.take()?;
        let (body, _, fields) = (reader.size()?, reader.u32()?, reader.size()?);
        let end = reader.at.checked_add(fields)?;
        let (mut to, mut name, mut member, mut signature) = (0, String::new(), String::new(), String::new());
        while reader.at < end {
            reader.align(STRUCTURE)?;
            let [code] = reader.take()?;
            match (code, reader.signature()?.as_str()) {
                (fields::REPLY_SERIAL, "u") => to = reader.u32()?,
                (fields::ERROR_NAME, "s") => name = reader.text()?,
                (fields::MEMBER, "s") => member = reader.text()?,
                (fields::SIGNATURE, "g") => signature = reader.signature()?,
                (_, "u") => drop(reader.u32()?),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        let begin = end.checked_next_multiple_of(STRUCTURE)?;
        let body = bytes.get(begin..begin.checked_add(body)?)?.to_vec();
        let kind = match kind {
            types::RETURN => Kind::Return { to },
            types::ERROR => Kind::Error { to, name },
            types::SIGNAL => Kind::Signal,
            _ => Kind::Other,
        };
        Some(Self { kind, member, signature, body })
    }

    /// How a job of systemd's for `unit` has ended, if this tells it: `JobRemoved(number, job, unit, result)`.
    pub fn job_result(&self, unit: &str) -> Option<String> {
        if self.kind != Kind::Signal || self.member != "JobRemoved" || self.signature != "uoss" {
            return None;
        }
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let (_, _) = (reader.u32()?, reader.text()?);
        (reader.text()? == unit).then(|| reader.text()).flatten()
    }

    /// An error's name and its text, if it has one.
    pub fn into_error(self) -> io::Error {
        let Kind::Error { name, .. } = &self.kind else { return io::Error::other("an answer is missing") };
        let text = self.signature.starts_with('s').then(|| Reader { bytes: &self.body, at: 0 }.text());
        io::Error::other(match text.flatten() {
            Some(text) => format!("{name}: {text}"),
            None => name.clone(),
        })
    }
}

/// Takes values, each at a multiple of its size; none where the bytes end, or are not what they should be.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, size: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(size)?;
        Some(())
    }

    fn take<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let taken = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += COUNT;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        self.take().map(u32::from_le_bytes)
    }

    fn size(&mut self) -> Option<usize> {
        self.u32()?.try_into().ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.size()?;
        self.characters(length)
    }

    fn signature(&mut self) -> Option<String> {
        let [length] = self.take()?;
        self.characters(length.into())
    }

    /// So many, and a zero.
    fn characters(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = str::from_utf8(self.bytes.get(self.at..end)?).ok()?.to_owned();
        self.at = end;
        (self.take()? == [0]).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call<'_> =
        Call { destination: "a.b", path: "/", interface: "a.b", member: "Do", arguments: &[] };

    /// A message of systemd's bus, from its parts.
    fn message(kind: u8, fields: impl FnOnce(&mut Writer), signature: &str, body: &[Value<'_>]) -> Vec<u8> {
        let mut written = Writer::default();
        body.iter().for_each(|value| written.value(value));
        let mut message = Writer(vec![LITTLE_ENDIAN, kind, 1, PROTOCOL]);
        message.length(written.0.len());
        message.u32(9);
        message.array(STRUCTURE, |header| {
            fields(header);
            header.field(fields::SIGNATURE, "g", signature);
        });
        message.align(STRUCTURE);
        message.0.extend(written.0);
        message.0
    }

    fn reply_to(header: &mut Writer) {
        header.align(STRUCTURE);
        header.0.push(fields::REPLY_SERIAL);
        header.signature("u");
        header.u32(7);
    }

    fn signal(unit: &str, result: &str) -> Message {
        let member = |header: &mut Writer| header.field(fields::MEMBER, "s", "JobRemoved");
        let text = Value::Text;
        // On the wire the job's number is as long as a truth value.
        let body = [Value::Bool(true), text("/job/1"), text(unit), text(result)];
        Message::parse(&message(types::SIGNAL, member, "uoss", &body)).unwrap()
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_has_it() {
        let call = Call { arguments: &[Value::Bool(true), Value::Numbers(&[7])], ..CALL };
        let fixed = [108, 1, 0, 1, 12, 0, 0, 0, 3, 0, 0, 0, 73, 0, 0, 0];
        let fields = b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
            \x03\x01s\0\x02\0\0\0Do\0\0\0\0\0\0\
            \x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
            \x08\x01g\0\x03bau\0";
        let body = [1, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0];
        let expected = [&fixed[..], &fields[..], &[0; 7], &body].concat();
        let bytes = call.to_bytes(3);
        assert_eq!(bytes, expected);
        assert_eq!(length(&bytes[..FIXED_BYTES]), Some(bytes.len()));
        let parsed = Message::parse(&bytes).unwrap();
        assert_eq!(
            (parsed.kind, parsed.member.as_str(), parsed.body.as_slice()),
            (Kind::Other, "Do", &body[..])
        );
    }

    #[test]
    fn properties_and_empty_lists() {
        let mut writer = Writer::default();
        writer.value(&Value::Properties(&[("a", Value::U64(1)), ("b", Value::Text("x"))]));
        writer.value(&Value::NoUnits);
        let expected = b"\x2a\0\0\0\0\0\0\0\
            \x01\0\0\0a\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\
            \x01\0\0\0b\0\x01s\0\0\0\0\x01\0\0\0x\0\0\0\0\0\0\0";
        assert_eq!(writer.0, expected);
    }

    #[test]
    fn answers() {
        let returned = Message::parse(&message(types::RETURN, reply_to, "", &[])).unwrap();
        assert_eq!(returned.kind, Kind::Return { to: 7 });
        let fields = |header: &mut Writer| {
            reply_to(header);
            header.field(fields::ERROR_NAME, "s", "org.x.Failed");
        };
        for (signature, body, text) in
            [("s", &[Value::Text("why")][..], "org.x.Failed: why"), ("", &[], "org.x.Failed")]
        {
            let failed = Message::parse(&message(types::ERROR, fields, signature, body)).unwrap();
            assert_eq!(failed.kind, Kind::Error { to: 7, name: "org.x.Failed".into() });
            assert_eq!(failed.into_error().to_string(), text);
        }
    }

    #[test]
    fn the_end_of_a_job() {
        assert_eq!(signal("a.scope", "done").job_result("a.scope").as_deref(), Some("done"));
        assert_eq!(signal("a.scope", "done").job_result("b.scope"), None);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_message() {
        let call = Call { arguments: &[Value::Text("x")], ..CALL }.to_bytes(1);
        for end in 0..call.len() {
            assert_eq!(Message::parse(&call[..end]), None, "{end}");
        }
        for place in 0..call.len() {
            for value in [0, 1, 127, 128, 255] {
                let mut changed = call.clone();
                changed[place] = value;
                // It may be a message all the same, and is no reason to panic.
                let _ = (length(&changed), Message::parse(&changed));
            }
        }
        assert_eq!(length(&[b'B', 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), None);
        assert_eq!(length(&[b'l', 1, 0, 1, 0, 0, 0, 64, 0, 0, 0, 1, 0, 0, 0, 0]), None);
    }
}
