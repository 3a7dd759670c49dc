//! Records of apps' logs, in the format of the Kubernetes container runtime interface: `<time> <stream> <tag> <content>`,
//! where the time is RFC 3339 with nanoseconds, in UTC, and the tag is `F` for a line and `P` for a part of one that goes
//! on. What a record says, a line feed ends: so no content can be taken for another record.

use std::time::SystemTime;

use crate::control::Stream;

/// The most content that a record has; a longer line becomes several parts.
pub const MAX_CONTENT_BYTES: usize = 16 << 10;
/// More than the most bytes that a record has before its content.
pub const MAX_HEAD_BYTES: usize = 64;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written.
    pub time: SystemTime,
    /// Which output it is of.
    pub stream: Stream,
    /// Whether the line ends with it.
    pub ends_line: bool,
    /// Without the line feed.
    pub content: &'a [u8],
}

/// The time of records, as they have it.
pub fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}

/// Appends a record to `to`; `stamp` is of its time.
pub fn encode(stamp: &str, stream: Stream, ends_line: bool, content: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(stamp.as_bytes());
    to.extend_from_slice(match stream {
        Stream::Stderr => b" stderr ",
        Stream::Stdin | Stream::Stdout => b" stdout ",
    });
    to.extend_from_slice(if ends_line { b"F " } else { b"P " });
    to.extend_from_slice(content);
    to.push(b'\n');
}

/// The record of a line of a log, without its line feed; `None` if it is none.
pub fn decode(line: &[u8]) -> Option<Record<'_>> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(words.next()?).ok()?;
    let time = humantime::parse_rfc3339(time).ok()?;
    let stream = match words.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let ends_line = match words.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record { time, stream, ends_line, content: words.next()? })
}

/// A point in time as people write it: RFC 3339 in UTC, down to `2026-11-25 17:00:00`.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn records_come_back() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_453_818_214, 631_000_007);
        for (stream, ends_line, content) in [
            (Stream::Stdout, true, &b"a line"[..]),
            (Stream::Stderr, false, b"\0\xff  "),
            (Stream::Stdout, true, b""),
            (Stream::Stdout, true, b"2016-01-26T14:23:34.631000007Z stderr F forged"),
        ] {
            let mut line = Vec::new();
            encode(&stamp(time), stream, ends_line, content, &mut line);
            assert!(line.len() <= content.len() + MAX_HEAD_BYTES);
            assert_eq!(line.pop(), Some(b'\n'));
            assert_eq!(decode(&line), Some(Record { time, stream, ends_line, content }));
        }
        let mut line = Vec::new();
        encode(&stamp(time), Stream::Stdout, true, b"hello", &mut line);
        assert_eq!(line, b"2016-01-26T14:23:34.631000007Z stdout F hello\n");
    }

    #[test]
    fn what_is_no_record() {
        for bad in
            ["", "x", "2016-01-26T14:23:34Z stdin F x", "2016-01-26T14:23:34Z stdout X x", "now stdout F x"]
        {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn times_of_people() {
        let wanted = SystemTime::UNIX_EPOCH + Duration::from_secs(1_453_818_214);
        for text in ["2016-01-26T14:23:34Z", "2016-01-26 14:23:34", "2016-01-26T14:23:34.0"] {
            assert_eq!(parse_time(text), Some(wanted), "{text}");
        }
        assert_eq!(parse_time("yesterday"), None);
    }
}
