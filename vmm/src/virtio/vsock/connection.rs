//! One connection's side of the protocol: credit, shutdown, and which packet is due next. It does no I/O.
//!
//! The order of the last packets matters. A guest that receives RST may throw away data it has not read yet, so an
//! established connection ends with SHUTDOWN from the host and with RST only as the answer to the guest's own complete
//! SHUTDOWN (virtio 1.2, section 5.10.6.6), or as the answer to a breach of the protocol.

use std::num::Wrapping;

use super::packet::{Halves, Header, Operation, Route};

/// Why a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The packet does not fit the connection's state.
    #[error("a packet that the connection's state does not allow")]
    State,
    /// More data than the credit that was given.
    #[error("more data than the device has room for")]
    Credit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The host has asked and the guest has not answered.
    Requested,
    Established,
}

/// A connection between a host and a guest port.
#[derive(Debug)]
pub struct Connection {
    route: Route,
    state: State,
    /// The packet that opens the connection, until it is sent.
    opening: Option<Operation>,
    /// How many bytes are buffered for the host at most.
    window: u32,
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    /// The forwarded count that the guest was last told.
    reported: Wrapping<u32>,
    update_due: bool,
    guest_window: u32,
    guest_forwarded: Wrapping<u32>,
    sent: Wrapping<u32>,
    credit_request: CreditRequest,
    guest_done: Halves,
    host_done: Halves,
    /// What the guest has been told of `host_done`.
    told: Halves,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CreditRequest {
    NotNeeded,
    Due,
    /// Sent, and not to be repeated before there was credit again.
    Sent,
}

impl Connection {
    /// A connection that the guest asks for with `request` and gets. `window` is the buffer the host has for it.
    pub fn from_guest(request: &Header, window: u32) -> Self {
        let mut connection =
            Self::new(request.route_from_guest(), window, State::Established, Operation::Response);
        connection.take_credit(request);
        connection
    }

    /// A connection that the host asks for.
    pub fn from_host(route: Route, window: u32) -> Self {
        Self::new(route, window, State::Requested, Operation::Request)
    }

    fn new(route: Route, window: u32, state: State, opening: Operation) -> Self {
        Self {
            route,
            state,
            opening: Some(opening),
            window,
            received: Wrapping(0),
            forwarded: Wrapping(0),
            reported: Wrapping(0),
            update_due: false,
            guest_window: 0,
            guest_forwarded: Wrapping(0),
            sent: Wrapping(0),
            credit_request: CreditRequest::NotNeeded,
            guest_done: Halves::default(),
            host_done: Halves::default(),
            told: Halves::default(),
        }
    }

    /// The connection's ends.
    pub fn route(&self) -> Route {
        self.route
    }

    /// Takes a packet from the guest; returns the number of data bytes that now have to be taken over. RST is not for
    /// this function: it ends the connection, whatever its state.
    pub fn receive(&mut self, header: &Header) -> Result<usize, Violation> {
        let operation = header.operation().ok_or(Violation::State)?;
        match (self.state, operation) {
            (State::Requested, Operation::Response) => self.state = State::Established,
            (State::Established, Operation::Data) => self.receive_data(header.len)?,
            (State::Established, Operation::Shutdown) => {
                self.guest_done = self.guest_done.and(Halves::from_flags(header.flags));
            }
            (State::Established, Operation::CreditRequest) => self.update_due = true,
            (State::Established, Operation::CreditUpdate) => {}
            _ => return Err(Violation::State),
        }
        self.take_credit(header);
        Ok(if operation == Operation::Data { header.len as usize } else { 0 })
    }

    fn receive_data(&mut self, len: u32) -> Result<(), Violation> {
        if self.guest_done.send {
            return Err(Violation::State);
        }
        let held = (self.received - self.forwarded).0;
        if len > self.window.saturating_sub(held) {
            return Err(Violation::Credit);
        }
        self.received += len;
        Ok(())
    }

    /// Every packet tells the sender's credit (section 5.10.6.3).
    fn take_credit(&mut self, header: &Header) {
        self.guest_window = header.buf_alloc;
        self.guest_forwarded = Wrapping(header.fwd_cnt);
        if self.credit() > 0 {
            self.credit_request = CreditRequest::NotNeeded;
        }
    }

    /// How many bytes the guest has room for.
    pub fn credit(&self) -> usize {
        let in_flight = (self.sent - self.guest_forwarded).0;
        self.guest_window.saturating_sub(in_flight) as usize
    }

    /// The host has taken (or will never take) `bytes` of what was received, so that the guest may send as much more.
    /// It is told when that is a good part of the window; a packet for each read would be too many.
    pub fn host_took(&mut self, bytes: usize) {
        self.forwarded += bytes as u32;
        if (self.forwarded - self.reported).0 >= self.window / 4 {
            self.update_due = true;
        }
    }

    /// The host end will send no more, and everything it sent is on its way.
    pub fn host_sends_no_more(&mut self) {
        self.host_done.send = true;
    }

    /// The host end takes no more.
    pub fn host_takes_no_more(&mut self) {
        self.host_done.receive = true;
    }

    /// Whether data for the host still has a taker.
    pub fn host_takes(&self) -> bool {
        !self.host_done.receive
    }

    /// Whether data from the host can be sent now.
    pub fn can_send(&self) -> bool {
        self.may_send() && self.credit() > 0
    }

    /// Whether data from the host can be sent, now or when there is credit.
    pub fn may_send(&self) -> bool {
        self.state == State::Established && !self.host_done.send && !self.guest_done.receive
    }

    /// Whether the guest has yet to answer the host's request.
    pub fn is_requested(&self) -> bool {
        self.state == State::Requested
    }

    /// What the guest has shut down.
    pub fn guest_done(&self) -> Halves {
        self.guest_done
    }

    /// Whether [`Self::next_control`] has something.
    pub fn has_control(&self) -> bool {
        self.opening.is_some()
            || self.state == State::Established
                && (self.told != self.host_done
                    || self.update_due
                    || self.credit_request == CreditRequest::Due)
    }

    /// The next packet that carries no data.
    pub fn next_control(&mut self) -> Option<Header> {
        let (operation, flags) = if let Some(opening) = self.opening.take() {
            (opening, 0)
        } else if !self.has_control() {
            return None;
        } else if self.told != self.host_done {
            self.told = self.host_done;
            (Operation::Shutdown, self.told.flags())
        } else if self.credit_request == CreditRequest::Due {
            self.credit_request = CreditRequest::Sent;
            (Operation::CreditRequest, 0)
        } else {
            (Operation::CreditUpdate, 0)
        };
        Some(Header { flags, ..self.header(operation) })
    }

    /// The header for the next `len` bytes of data, at most [`Self::credit`].
    pub fn data(&mut self, len: usize) -> Header {
        let len = len as u32;
        self.sent += len;
        if self.credit() == 0 && self.credit_request == CreditRequest::NotNeeded {
            self.credit_request = CreditRequest::Due;
        }
        Header { len, ..self.header(Operation::Data) }
    }

    /// A packet with the current credit, which makes an update superfluous.
    fn header(&mut self, operation: Operation) -> Header {
        self.reported = self.forwarded;
        self.update_due = false;
        Header {
            buf_alloc: self.window,
            fwd_cnt: self.forwarded.0,
            ..Header::to_guest(self.route, operation)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route { guest_cid: 3, host_port: 10, guest_port: 20 };
    const WINDOW: u32 = 1000;

    fn packet(operation: Operation, len: u32, flags: u32, credit: (u32, u32)) -> Header {
        Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 20,
            dst_port: 10,
            len,
            kind: 1,
            op: operation as u16,
            flags,
            buf_alloc: credit.0,
            fwd_cnt: credit.1,
        }
    }

    fn established() -> Connection {
        let mut connection = Connection::from_guest(&packet(Operation::Request, 0, 0, (500, 0)), WINDOW);
        assert_eq!(connection.next_control().unwrap().operation(), Some(Operation::Response));
        connection
    }

    fn operations(connection: &mut Connection) -> Vec<Operation> {
        std::iter::from_fn(|| connection.next_control()).map(|header| header.operation().unwrap()).collect()
    }

    #[test]
    fn the_host_asks_and_the_guest_answers() {
        let mut connection = Connection::from_host(ROUTE, WINDOW);
        let request = connection.next_control().unwrap();
        assert_eq!((request.operation(), request.buf_alloc), (Some(Operation::Request), WINDOW));
        assert_eq!(connection.next_control(), None);
        assert!(!connection.can_send());
        for early in [Operation::Data, Operation::Shutdown, Operation::Request, Operation::CreditUpdate] {
            assert_eq!(connection.receive(&packet(early, 0, 0, (1, 0))), Err(Violation::State));
        }
        assert_eq!(connection.receive(&packet(Operation::Response, 0, 0, (700, 0))), Ok(0));
        assert!(connection.can_send());
        assert_eq!(connection.credit(), 700);
        assert_eq!(connection.receive(&packet(Operation::Response, 0, 0, (1, 0))), Err(Violation::State));
    }

    #[test]
    fn the_guest_cannot_send_beyond_its_credit() {
        let mut connection = established();
        assert_eq!(connection.receive(&packet(Operation::Data, 600, 0, (500, 0))), Ok(600));
        assert_eq!(connection.receive(&packet(Operation::Data, 401, 0, (500, 0))), Err(Violation::Credit));
        assert_eq!(
            connection.receive(&packet(Operation::Data, u32::MAX, 0, (500, 0))),
            Err(Violation::Credit)
        );
        assert_eq!(connection.receive(&packet(Operation::Data, 400, 0, (500, 0))), Ok(400));
        connection.host_took(1);
        assert_eq!(connection.receive(&packet(Operation::Data, 2, 0, (500, 0))), Err(Violation::Credit));
        assert_eq!(connection.receive(&packet(Operation::Data, 1, 0, (500, 0))), Ok(1));
    }

    #[test]
    fn updates_come_in_quarters_of_the_window_and_on_request() {
        let mut connection = established();
        connection.receive(&packet(Operation::Data, 1000, 0, (500, 0))).unwrap();
        connection.host_took(249);
        assert!(!connection.has_control());
        connection.host_took(1);
        let update = connection.next_control().unwrap();
        assert_eq!((update.operation(), update.fwd_cnt), (Some(Operation::CreditUpdate), 250));
        connection.host_took(10);
        assert!(!connection.has_control());
        connection.receive(&packet(Operation::CreditRequest, 0, 0, (500, 0))).unwrap();
        assert_eq!(connection.next_control().unwrap().fwd_cnt, 260);
        connection.host_took(400);
        assert_eq!(connection.data(1).fwd_cnt, 660, "data tells the credit as well");
        assert!(!connection.has_control());
    }

    #[test]
    fn the_host_sends_within_the_guests_credit_and_asks_once_for_more() {
        let mut connection = established();
        assert_eq!(connection.credit(), 500);
        connection.data(500);
        assert!(!connection.can_send() && connection.may_send());
        assert_eq!(operations(&mut connection), [Operation::CreditRequest]);
        connection.receive(&packet(Operation::CreditUpdate, 0, 0, (500, 0))).unwrap();
        assert_eq!(operations(&mut connection), [], "the question stands");
        connection.receive(&packet(Operation::CreditUpdate, 0, 0, (500, 300))).unwrap();
        assert_eq!(connection.credit(), 300);
        connection.receive(&packet(Operation::CreditUpdate, 0, 0, (100, 300))).unwrap();
        assert_eq!(connection.credit(), 0, "a window that shrinks below what is in flight");
        connection.receive(&packet(Operation::CreditUpdate, 0, 0, (100, 501))).unwrap();
        assert_eq!(connection.credit(), 0, "a guest that has consumed more than it got");
    }

    #[test]
    fn counters_wrap() {
        let mut connection = established();
        for round in 1..=10_u32 {
            let step = u32::MAX / 3;
            connection.window = u32::MAX;
            connection
                .receive(&packet(Operation::Data, step, 0, (u32::MAX, step.wrapping_mul(round - 1))))
                .unwrap();
            connection.host_took(step as usize);
            assert_eq!(connection.credit(), u32::MAX as usize);
            assert_eq!(connection.data(step as usize).fwd_cnt, step.wrapping_mul(round));
        }
    }

    #[test]
    fn each_half_ends_by_itself() {
        let mut connection = established();
        connection.host_sends_no_more();
        let shutdown = connection.next_control().unwrap();
        assert_eq!((shutdown.operation(), shutdown.flags), (Some(Operation::Shutdown), 2));
        assert!(!connection.has_control());
        assert_eq!(
            connection.receive(&packet(Operation::Data, 5, 0, (500, 0))),
            Ok(5),
            "the other half is open"
        );
        connection.host_takes_no_more();
        assert_eq!(connection.next_control().unwrap().flags, 3);

        let mut connection = established();
        connection.receive(&packet(Operation::Shutdown, 0, 2, (500, 0))).unwrap();
        assert!(connection.can_send());
        assert_eq!(connection.receive(&packet(Operation::Data, 5, 0, (500, 0))), Err(Violation::State));
        connection.receive(&packet(Operation::Shutdown, 0, 1, (500, 0))).unwrap();
        assert!(!connection.may_send());
        assert!(connection.guest_done().both());
    }
}
