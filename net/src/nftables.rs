//! What is in a table of nftables, by netlink (linux/netfilter/nf_tables.h). `nft list` tells the same, but reads all that the host has of it
//! first, and takes ten times as long where there are thousands of elements.

use std::io::ErrorKind;

use netlink_packet_core::DecodeError;
use nix::sys::socket::SockProtocol;

use crate::Error;
use crate::netfilter::{HEADER_BYTES, Message, value};
use crate::netlink::{Netlink, Told, attributes};

/// `NFNL_SUBSYS_NFTABLES`, and the messages of it.
const SUBSYSTEM: u16 = 10 << 8;
const GET_RULES: u16 = SUBSYSTEM | 7;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
/// `NFPROTO_INET`.
const BOTH_VERSIONS_OF_IP: u8 = 1;
/// Attributes of rules and of lists of elements: `NFTA_{RULE,SET_ELEM_LIST}_TABLE`, `NFTA_SET_ELEM_LIST_{SET,ELEMENTS}`, `NFTA_RULE_USERDATA`.
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const RULE_NOTES: u16 = 7;
/// Of an element: `NFTA_SET_ELEM_{KEY,DATA,USERDATA,KEY_END}`, and of a key and of data `NFTA_DATA_VALUE`.
const KEY: u16 = 1;
const DATA: u16 = 2;
const NOTES: u16 = 6;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;

/// An element of a set or a map. Each part of a key or of data begins at a multiple of four bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// What is looked up.
    pub key: Vec<u8>,
    /// The last one, if it is an interval.
    pub last: Vec<u8>,
    /// Where it leads, in a map.
    pub data: Vec<u8>,
    /// The remark that nft has made of it.
    pub comment: String,
}

/// What is in a set or a map of a table of the family `inet`; none, if there is no such.
pub fn elements(table: &str, set: &str) -> Result<Option<Vec<Element>>, Error> {
    let question = question(&[(TABLE, table), (SET, set)]);
    let lists =
        Netlink::open_for(SockProtocol::NetlinkNetFilter)?.dump("list elements", GET_ELEMENTS, &question);
    match lists {
        Err(Error::Refused { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        lists => Ok(Some(lists?.into_iter().flat_map(|List(elements)| elements).collect())),
    }
}

/// The remarks of all rules of a table of the family `inet`.
pub fn remarks(table: &str) -> Result<Vec<String>, Error> {
    let mut netlink = Netlink::open_for(SockProtocol::NetlinkNetFilter)?;
    let rules: Vec<Remark> = netlink.dump("list rules", GET_RULES, &question(&[(TABLE, table)]))?;
    Ok(rules.into_iter().map(|Remark(remark)| remark).collect())
}

struct List(Vec<Element>);

impl Told for List {
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut elements = Vec::new();
        for list in attributes(payload, HEADER_BYTES) {
            let list = list?;
            if list.kind() == ELEMENTS {
                for element in attributes(list.value(), 0) {
                    elements.push(Element::parse(element?.value())?);
                }
            }
        }
        Ok(Some(Self(elements)))
    }
}

impl Element {
    fn parse(attribute: &[u8]) -> Result<Self, DecodeError> {
        let mut element = Self::default();
        for attribute in attributes(attribute, 0) {
            let attribute = attribute?;
            match attribute.kind() {
                KEY => element.key = content(attribute.value())?,
                KEY_END => element.last = content(attribute.value())?,
                DATA => element.data = content(attribute.value())?,
                NOTES => element.comment = comment(attribute.value()),
                _ => {}
            }
        }
        Ok(element)
    }
}

struct Remark(String);

impl Told for Remark {
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(value(payload, HEADER_BYTES, RULE_NOTES)?.map(|notes| Self(comment(&notes))))
    }
}

/// Of a key or of data; none, of a verdict.
fn content(key_or_data: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Ok(value(key_or_data, 0, VALUE)?.unwrap_or_default())
}

/// Of what nft notes: a kind, a length, and so many bytes. A comment is 0 for elements and for rules, and ends with a zero.
fn comment(mut notes: &[u8]) -> String {
    while let [kind, length, rest @ ..] = notes {
        let (text, next) = rest.split_at(usize::from(*length).min(rest.len()));
        if *kind == 0 {
            return String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned();
        }
        notes = next;
    }
    String::new()
}

/// What is asked for, by its names.
fn question(names: &[(u16, &str)]) -> Message {
    names.iter().fold(Message::of(BOTH_VERSIONS_OF_IP), |question, (kind, name)| {
        question.with(*kind, &[name.as_bytes(), &[0]].concat())
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    #[test]
    fn comments_are_found_among_notes() {
        assert_eq!(comment(b"\x00\x04abc\x00"), "abc");
        assert_eq!(comment(b"\x01\x02xy\x00\x04abc\x00"), "abc");
        for none in [&b""[..], b"\x00", b"\x01\x09abc", b"\x00\x00"] {
            assert_eq!(comment(none), "");
        }
        assert_eq!(comment(b"\x00\xffab"), "ab");
    }

    #[test]
    fn a_question() {
        let question = question(&[(TABLE, "ports"), (SET, "one")]);
        let mut message = vec![0; question.buffer_len()];
        question.emit(&mut message);
        assert_eq!(message, b"\x01\0\0\0\x0a\0\x01\0ports\0\0\0\x08\0\x02\0one\0");
    }

    #[test]
    fn what_the_kernel_tells() {
        let element = b"\x0c\0\x01\x80\x08\0\x01\0\x0a\x09\0\x02\x0c\0\x02\x80\x08\0\x01\0\x0a\x09\0\x03\x0b\0\x06\0\0\x05pods\0\0";
        let mut list = vec![0x28, 0, 1, 0x80];
        list.extend(element);
        let mut message = vec![1, 0, 0, 0, 0x2c, 0, 3, 0x80];
        message.extend(list);
        let List(elements) = List::parse(&message).unwrap().unwrap();
        let expected = Element {
            key: vec![10, 9, 0, 2],
            data: vec![10, 9, 0, 3],
            comment: "pods".into(),
            ..Element::default()
        };
        assert_eq!(elements, [expected]);
        assert!(List::parse(b"\x01\0\0\0\xff").is_err());
    }
}
