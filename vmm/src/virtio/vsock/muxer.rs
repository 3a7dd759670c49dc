//! All connections of a device: who a packet belongs to, and whose turn it is to send.
//!
//! Everything that a guest can create is counted: connections by [`MAX_CONNECTIONS`], answers to stray packets by
//! [`MAX_RESETS`], held data by the window of each connection.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use super::super::buffers::Buffers;
use super::HostEnds;
use super::connection::Connection;
use super::entry::{Entry, Origin};
use super::host_end::HostEnd;
use super::packet::{HOST_CID, Header, Operation, Route, TYPE_STREAM};
use crate::event_loop::Registry;
use crate::memory::DeviceMemory;

/// The most connections asked for by the guest, and the most asked for by the host. Each takes a descriptor or two,
/// of which a process has 1,024 by default.
pub const MAX_CONNECTIONS: usize = 256;
/// The most RST answers that wait for room in the guest's queue; then no more packets are taken.
pub const MAX_RESETS: usize = 64;
/// The data held for a host end that is slow, for the first connections. Memory for it is taken when needed.
const LARGE_WINDOW: u32 = 256 << 10;
/// The same for further ones, so that a guest cannot make the host hold more than some 25 MiB.
const SMALL_WINDOW: u32 = 16 << 10;
const LARGE_WINDOWS: usize = 64;
/// Host ports of connections that the host asks for are counted up from here.
const FIRST_EPHEMERAL_PORT: u32 = 1 << 30;
/// Tokens of sockets have this bit set.
pub const SOCKET_TOKEN: u32 = 1 << 31;

/// What to send to the guest next.
#[derive(Debug)]
pub enum Work {
    /// A packet without data.
    Packet(Header),
    /// Data of the connection with this id.
    Data(u32),
}

/// The connections.
pub struct Muxer {
    guest_cid: u64,
    to_host: BTreeMap<u32, HostEnds>,
    entries: BTreeMap<u32, Entry>,
    routes: BTreeMap<Route, u32>,
    ready: VecDeque<u32>,
    resets: VecDeque<Header>,
    touched: Vec<u32>,
    ended: Vec<Entry>,
    next_id: u32,
    next_port: u32,
}

impl Muxer {
    /// No connections yet; `to_host` has the sockets of those that the guest opens.
    pub fn new(guest_cid: u64, to_host: BTreeMap<u32, HostEnds>) -> Self {
        Self {
            guest_cid,
            to_host,
            entries: BTreeMap::new(),
            routes: BTreeMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            touched: Vec::new(),
            ended: Vec::new(),
            next_id: 0,
            next_port: FIRST_EPHEMERAL_PORT,
        }
    }

    /// Whether another packet from the guest can be taken: it may need an answer, for which there must be room.
    pub fn accepts_packets(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Takes a packet from the guest. One that is not from this guest to the host is dropped.
    pub fn receive(&mut self, header: &Header, data: &Buffers, memory: &DeviceMemory) {
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return;
        }
        let route = header.route_from_guest();
        let known = self.routes.get(&route).copied().filter(|_| header.kind == TYPE_STREAM);
        match (known, header.operation()) {
            (Some(id), Some(Operation::Reset)) => {
                self.routes.remove(&route);
                self.with(id, |entry| {
                    entry.reset_by_guest();
                    None
                });
            }
            (Some(id), _) => self.with(id, |entry| match entry.receive(header, data, memory) {
                Ok(()) => None,
                Err(_) => entry.reset(),
            }),
            (None, Some(Operation::Reset)) => {}
            (None, Some(Operation::Request)) if header.kind == TYPE_STREAM => self.open(header),
            (None, _) => self.refuse(header),
        }
    }

    fn refuse(&mut self, header: &Header) {
        let reset = Header::to_guest(header.route_from_guest(), Operation::Reset);
        self.resets.push_back(Header { kind: header.kind, ..reset });
    }

    /// The guest asks for a connection.
    fn open(&mut self, request: &Header) {
        let host_end = self
            .to_host
            .get(&request.dst_port)
            .filter(|_| self.has_room(Origin::Guest))
            .and_then(|ends| HostEnd::new(ends()?).ok());
        match host_end {
            Some(host_end) => {
                let link = Connection::from_guest(request, self.window());
                self.insert(request.route_from_guest(), Entry::new(link, host_end, Origin::Guest));
            }
            None => self.refuse(request),
        }
    }

    /// A program on the host asks for a connection to `guest_port`.
    pub fn connect(&mut self, stream: UnixStream, guest_port: u32) -> io::Result<()> {
        let route = self.free_route(guest_port);
        let link = Connection::from_host(route, self.window());
        self.insert(route, Entry::new(link, HostEnd::new(stream)?, Origin::Host));
        Ok(())
    }

    /// Whether another connection of this origin may be made.
    pub fn has_room(&self, origin: Origin) -> bool {
        self.entries.values().filter(|entry| entry.origin() == origin).count() < MAX_CONNECTIONS
    }

    fn window(&self) -> u32 {
        if self.entries.len() < LARGE_WINDOWS { LARGE_WINDOW } else { SMALL_WINDOW }
    }

    fn free_route(&mut self, guest_port: u32) -> Route {
        loop {
            let route = Route { guest_cid: self.guest_cid, host_port: self.next_port, guest_port };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            // There are far more ports than connections, so this ends.
            if !self.routes.contains_key(&route) && !self.to_host.contains_key(&route.host_port) {
                return route;
            }
        }
    }

    fn insert(&mut self, route: Route, entry: Entry) {
        while self.entries.contains_key(&self.next_id) {
            self.next_id = (self.next_id + 1) % SOCKET_TOKEN;
        }
        let id = self.next_id;
        self.next_id = (id + 1) % SOCKET_TOKEN;
        self.entries.insert(id, entry);
        self.routes.insert(route, id);
        self.refresh(id);
    }

    /// The socket of connection `id` is ready.
    pub fn on_event(&mut self, id: u32, events: EventSet) {
        self.with(id, |entry| {
            entry.on_event(events);
            None
        });
    }

    /// Draws the conclusions of what was sent for a connection.
    pub fn refresh(&mut self, id: u32) {
        self.with(id, |_| None);
    }

    /// Changes an entry, which may yield a packet that ends it for the guest, and draws the conclusions.
    fn with(&mut self, id: u32, change: impl FnOnce(&mut Entry) -> Option<Header>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let reset = change(entry);
        let outcome = entry.settle();
        for reset in [reset, outcome.reset].into_iter().flatten() {
            let route =
                Route { guest_cid: reset.dst_cid, host_port: reset.src_port, guest_port: reset.dst_port };
            self.routes.remove(&route);
            self.resets.push_back(reset);
        }
        if outcome.ended {
            self.ended.extend(self.entries.remove(&id));
            return;
        }
        if entry.has_work() && !std::mem::replace(&mut entry.queued, true) {
            self.ready.push_back(id);
        }
        self.touched.push(id);
    }

    /// Whether [`Self::next_work`] may have something.
    pub fn has_work(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// What to send to the guest next; each connection has its turn.
    pub fn next_work(&mut self) -> Option<Work> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(Work::Packet(reset));
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.queued = false;
            if let Some(header) = entry.next_control() {
                self.refresh(id);
                return Some(Work::Packet(header));
            }
            if entry.source().is_some() {
                return Some(Work::Data(id));
            }
        }
        None
    }

    /// The socket that data of connection `id` comes from, and how much to read at most.
    pub fn source(&self, id: u32) -> Option<(BorrowedFd<'_>, usize)> {
        self.entries.get(&id).and_then(Entry::source)
    }

    /// Notes how reading from that socket went, where `room` bytes were asked for; returns how many there were.
    /// Call [`Self::refresh`] when they are sent.
    pub fn note_read(&mut self, id: u32, result: io::Result<usize>, room: usize) -> usize {
        self.entries.get_mut(&id).map_or(0, |entry| entry.note_read(result, room))
    }

    /// The header for the next `len` bytes that were read from that socket.
    pub fn data(&mut self, id: u32, len: usize) -> Option<Header> {
        self.entries.get_mut(&id).and_then(|entry| entry.data(len))
    }

    /// Brings what the loop watches in line with what happened; true if connections have ended.
    pub fn watch(&mut self, registry: &mut dyn Registry) -> io::Result<bool> {
        let any_ended = !self.ended.is_empty();
        for entry in self.ended.drain(..) {
            if entry.watched.is_some() {
                registry.remove(entry.fd())?;
            }
        }
        for id in self.touched.drain(..) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let (before, after) = (entry.watched, entry.interest());
            let token = SOCKET_TOKEN | id;
            match (before, after) {
                (None, Some(events)) => registry.add(entry.fd(), events, token)?,
                (Some(_), None) => registry.remove(entry.fd())?,
                (Some(before), Some(after)) if before != after => {
                    registry.modify(entry.fd(), after, token)?;
                }
                _ => {}
            }
            entry.watched = after;
        }
        Ok(any_ended)
    }

    /// The connections that hold data for the host.
    pub fn holding(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut().filter(|entry| entry.held() > 0)
    }
}
