//! The card under limits, by a clock that the tests move.

use std::time::Duration;

use super::super::testing::{Piece, drain, throttle};
use super::tests::{Card, RX, TX, frame};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);

fn card(to_guest: Throttle, from_guest: Throttle) -> Card {
    Card::limited(false, RING_FEATURES, QUEUE_SIZES, Throttles { to_guest, from_guest })
}

fn send(card: &Card, count: usize) {
    (0..count).for_each(|_| assert_eq!(card.wire.send(&frame(112)).unwrap(), 112));
}

fn received_at(card: &mut Card, now: Duration) -> usize {
    card.watched.set_clock(now);
    card.received().len()
}

/// How many frames have come out at this time.
fn sent_at(card: &mut Card, now: Duration) -> usize {
    card.watched.set_clock(now);
    card.run();
    drain(&mut card.driver.queues[TX]);
    std::iter::from_fn(|| card.wire.recv(&mut [0; 200]).ok()).count()
}

fn transmit(card: &mut Card, count: usize) {
    let address = card.arena.take(200);
    for _ in 0..count {
        card.driver.queues[TX].add(&[Piece::Read(address, 112)]);
    }
}

#[test]
fn frames_to_the_guest_wait_in_the_tap_which_is_left_alone_meanwhile() {
    let mut card = card(throttle(200, 0), Throttle::default());
    card.post(10, 2000);
    send(&card, 5);
    assert_eq!(received_at(&mut card, Duration::ZERO), 2);
    assert!(!card.tap_is_watched(), "it would be ready again and again");
    assert_eq!(received_at(&mut card, SECOND / 2), 1, "half a second brings a frame");
    assert_eq!(received_at(&mut card, SECOND / 2), 0);
    assert_eq!(received_at(&mut card, SECOND), 1);
    assert_eq!(received_at(&mut card, SECOND * 2), 1);
    card.watched.set_clock(SECOND * 9);
    card.run();
    assert!(card.tap_is_watched(), "and frames that come later are received");
    send(&card, 1);
    assert_eq!(received_at(&mut card, SECOND * 9), 1);
}

/// A full queue and an empty bucket at once, in each order in which they end (CVE-2020-16843).
#[test]
fn a_stall_and_a_limit_at_once_both_end() {
    // The buffers come first.
    let mut first = card(throttle(0, 1), Throttle::default());
    first.post(1, 2000);
    send(&first, 3);
    assert_eq!(received_at(&mut first, Duration::ZERO), 1);
    first.post(2, 2000);
    assert_eq!(received_at(&mut first, Duration::ZERO), 0);
    assert!(!first.tap_is_watched() && first.watched.wakes_at().is_some());
    assert_eq!(received_at(&mut first, SECOND), 1);
    assert_eq!(received_at(&mut first, SECOND * 2), 1);
    // The tokens come first.
    let mut second = card(throttle(0, 1), Throttle::default());
    second.post(1, 2000);
    send(&second, 3);
    assert_eq!(received_at(&mut second, Duration::ZERO), 1);
    assert_eq!(received_at(&mut second, SECOND * 5), 0);
    assert!(!second.tap_is_watched());
    assert_eq!(second.watched.wakes_at(), None, "only the guest can end this");
    second.post(1, 2000);
    assert_eq!(received_at(&mut second, SECOND * 5), 1, "it has notified");
    second.post(1, 2000);
    assert_eq!(received_at(&mut second, SECOND * 6), 1);
}

#[test]
fn frames_from_the_guest_wait_in_its_queue() {
    let mut card = card(Throttle::default(), throttle(0, 2));
    transmit(&mut card, 5);
    assert_eq!(sent_at(&mut card, Duration::ZERO), 2);
    card.driver.queues[TX].notify.write(1).unwrap();
    assert_eq!(sent_at(&mut card, Duration::ZERO), 0);
    assert_eq!(sent_at(&mut card, TICK), 1);
    assert_eq!(sent_at(&mut card, SECOND / 2), 0);
    assert_eq!(sent_at(&mut card, SECOND), 1);
    assert_eq!(sent_at(&mut card, SECOND * 2), 1);
    transmit(&mut card, 1);
    assert_eq!(sent_at(&mut card, SECOND * 3), 1);
}

/// One wake-up serves both directions, and the one that it is too early for asks again.
#[test]
fn both_directions_have_their_own_limit_and_share_the_wake_up() {
    let mut card = card(throttle(100, 0), throttle(25, 0));
    card.post(10, 2000);
    send(&card, 2);
    transmit(&mut card, 2);
    card.watched.set_clock(Duration::ZERO);
    card.run();
    assert_eq!(drain(&mut card.driver.queues[RX]).len(), 1);
    assert_eq!(drain(&mut card.driver.queues[TX]).len(), 1);
    assert_eq!(card.watched.wakes_at(), Some(Duration::from_nanos(1)));
    assert_eq!(received_at(&mut card, TICK), 1);
    assert_eq!(drain(&mut card.driver.queues[TX]).len(), 0);
    assert!(card.watched.wakes_at().is_some());
    assert_eq!(received_at(&mut card, SECOND * 3), 0);
    assert_eq!(drain(&mut card.driver.queues[TX]).len(), 0, "a debt of 75 bytes");
    assert_eq!(received_at(&mut card, SECOND * 3 + TICK), 0);
    assert_eq!(drain(&mut card.driver.queues[TX]).len(), 1);
}

#[test]
fn cards_may_share_a_limit() {
    let shared = throttle(0, 2);
    let mut cards = [card(shared.clone(), Throttle::default()), card(shared, Throttle::default())];
    for card in &mut cards {
        card.post(4, 2000);
        send(card, 4);
    }
    let [first, second] = &mut cards;
    assert_eq!(received_at(first, Duration::ZERO) + received_at(second, Duration::ZERO), 2);
    assert_eq!(received_at(second, SECOND) + received_at(first, SECOND), 2);
}
