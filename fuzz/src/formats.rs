//! What is parsed: messages between a pod and its parent, manifests, images, networks' configurations.

use net::cni::{CniResult, NetworkConfig, SpecVersion};
use pod::control::{self, Decoder, FromSupervisor, StreamHello, ToSupervisor};
use pod::image_manifest::ImageManifest;
use pod::pod_manifest::PodManifest;
use pod::session::{self, FromClient, ToClient};
use serde::Serialize;
use serde::de::DeserializeOwned;

const LIMIT: usize = 4096;

/// What was understood is said again in the same way.
fn again<T: Serialize + DeserializeOwned>(message: &T) {
    let text = serde_json::to_vec(message).expect("a message as JSON");
    let copy: T = serde_json::from_slice(&text).expect("a message's own JSON");
    assert_eq!(serde_json::to_vec(&copy).expect("a copy as JSON"), text);
}

/// A channel on which the bytes come in pieces of `step`.
fn channel<T: Serialize + DeserializeOwned>(bytes: &[u8], step: usize) {
    let mut decoder = Decoder::new(LIMIT);
    for piece in bytes.chunks(step) {
        decoder.push(piece);
        loop {
            match decoder.next_message::<T>() {
                Ok(Some(message)) => again(&message),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    // Whole, from a stream: no more memory than the limit, whatever the length says.
    let mut stream = bytes;
    while let Ok(message) = control::read_message::<T>(&mut stream, LIMIT) {
        again(&message);
    }
}

/// The frame of a message that need not be one.
fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

/// The control channel in both directions, the streams' first bytes, and the packets of sessions.
pub fn control(data: &[u8]) {
    let [choice, step, data @ ..] = data else { return };
    let step = usize::from(*step).max(1);
    match choice % 7 {
        0 => channel::<ToSupervisor>(data, step),
        1 => channel::<FromSupervisor>(data, step),
        2 => channel::<ToSupervisor>(&framed(data), step),
        3 => channel::<FromSupervisor>(&framed(data), step),
        4 => session::decode::<FromClient>(data).iter().for_each(again),
        5 => session::decode::<ToClient>(data).iter().for_each(again),
        _ => {
            let Some(bytes) = data.first_chunk() else { return };
            if let Ok(hello) = StreamHello::decode(*bytes) {
                assert_eq!(hello.encode(), *bytes);
            }
        }
    }
}

/// Manifests of images and pods.
pub fn manifests(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 3 {
        0 => ImageManifest::parse(data).iter().for_each(again),
        1 => PodManifest::parse(data).iter().for_each(again),
        _ => PodManifest::parse_incomplete(data).iter().for_each(again),
    }
}

/// A network's configuration, and what plugins answer.
pub fn cni(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 3 {
        0 => drop(NetworkConfig::parse_list(data)),
        1 => drop(NetworkConfig::parse_single(data)),
        _ => parse_result(data),
    }
}

fn parse_result(data: &[u8]) {
    if let Ok(result) = serde_json::from_slice(data) {
        let _refused = CniResult::parse(&result, SpecVersion::V1_0_0);
    }
}
