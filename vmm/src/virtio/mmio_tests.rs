//! The transport driven as a driver, good or bad, would.

use std::sync::Mutex;

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::event_loop::{EventHandler, EventLoop, HandlerError, OnFailure, Registry};
use crate::virtio::device::{DeviceKind, INTERRUPT_VRING};
use crate::virtio::window::Windows;

const DEVICE_FEATURE: u64 = 1 << 5;
const QUEUES: usize = 2;

/// What has happened, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;
/// The features and queue sizes of each activation.
type Activations = Arc<Mutex<Vec<(u64, Vec<u16>)>>>;
type Kept = (Box<dyn EventHandler>, Option<OnFailure>);

struct Idle(Log);

impl EventHandler for Idle {
    fn start(&mut self, _: &mut dyn Registry) -> Result<(), HandlerError> {
        Ok(())
    }
    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("dropped");
    }
}

/// Records what happens to it.
struct Device {
    log: Log,
    seen: Activations,
}

impl VirtioDevice for Device {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Rng
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64; QUEUES]
    }
    fn features(&self) -> u64 {
        DEVICE_FEATURE
    }
    fn config(&self) -> &[u8] {
        &[1, 2, 3]
    }
    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        self.log.lock().unwrap().push("activated");
        let sizes = activation.queues.iter().map(|active| active.queue.size()).collect();
        self.seen.lock().unwrap().push((activation.features, sizes));
        Ok(Box::new(Idle(Arc::clone(&self.log))))
    }
}

/// Keeps the workers without a loop.
#[derive(Clone, Default)]
struct Bench(Arc<Mutex<Vec<Kept>>>);

impl Workers for Bench {
    fn add(&self, handler: Box<dyn EventHandler>, on_failure: OnFailure) -> Option<WorkerId> {
        self.0.lock().unwrap().push((handler, Some(on_failure)));
        Some(a_worker_id())
    }
    fn remove(&self, _: WorkerId) {
        self.0.lock().unwrap().clear();
    }
}

fn a_worker_id() -> WorkerId {
    let events = EventLoop::<()>::new().unwrap();
    let handle = events.handle();
    let thread = std::thread::spawn(|| events.run());
    let id = handle.add(Box::new(Idle(Arc::default())), Box::new(|_| ())).unwrap();
    handle.stop(());
    thread.join().unwrap().unwrap();
    id
}

struct Driver {
    transport: MmioTransport,
    notified: Vec<EventFd>,
    window: Window,
    log: Log,
    seen: Activations,
    bench: Bench,
    irq: EventFd,
}

impl Driver {
    fn new() -> Self {
        let (log, seen, bench) = (Arc::default(), Arc::default(), Bench::default());
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let irq = event();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let window = Windows::new().unwrap().window(0);
        let notified: Vec<EventFd> = (0..QUEUES).map(|_| event()).collect();
        let transport = MmioTransport::new(
            Box::new(Device { log: Arc::clone(&log), seen: Arc::clone(&seen) }),
            window.clone(),
            notified.iter().map(|fd| fd.try_clone().unwrap()).collect(),
            irq.try_clone().unwrap(),
            memory.into(),
            Box::new(bench.clone()),
            ConsoleLog::new(None),
        );
        Self { transport, notified, window, log, seen, bench, irq }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.window.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn status(&mut self, value: u32) -> u32 {
        self.write(0x70, value);
        self.read(0x70)
    }

    fn accept(&mut self, features: u64) {
        for select in [0, 1] {
            self.write(0x24, select);
            self.write(0x20, word_of(features, select));
        }
    }

    fn set_up_queue(&mut self, index: u32) {
        self.write(0x30, index);
        self.write(0x38, 16);
        for (register, address) in [(0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000)] {
            self.write(register, address + index * 0x4000);
            self.write(register + 4, 0);
        }
        self.write(0x44, 1);
    }

    fn negotiate(&mut self) {
        self.status(1);
        self.status(3);
        self.accept(DEVICE_FEATURE | FEATURE_VERSION_1);
        assert_eq!(self.status(11), 11);
    }

    fn run(&mut self) {
        self.negotiate();
        (0..QUEUES as u32).for_each(|index| self.set_up_queue(index));
        assert_eq!(self.status(15), 15);
    }

    fn log(&self) -> Vec<&'static str> {
        self.log.lock().unwrap().clone()
    }
}

#[test]
fn a_queue_is_notified_by_its_number() {
    let mut driver = Driver::new();
    [1, 1, 2, u32::MAX].into_iter().for_each(|queue| driver.write(QUEUE_NOTIFY, queue));
    driver.transport.write(QUEUE_NOTIFY, &[0]);
    assert!(driver.notified[0].read().is_err(), "nobody has notified it");
    assert_eq!(driver.notified[1].read().unwrap(), 2);
}

#[test]
fn the_driver_recognises_the_device() {
    let mut driver = Driver::new();
    assert_eq!([driver.read(0), driver.read(4), driver.read(8)], [0x7472_6976, 2, 4]);
    assert_eq!(driver.read(0x10), DEVICE_FEATURE as u32);
    driver.write(0x14, 1);
    assert_eq!(driver.read(0x10), 1);
    driver.write(0x14, 2);
    assert_eq!(driver.read(0x10), 0);
    assert_eq!(driver.read(0xb0), u32::MAX);
}

#[test]
fn a_well_behaved_driver_gets_its_device() {
    let mut driver = Driver::new();
    driver.run();
    assert_eq!(driver.log(), ["activated"]);
    let (features, sizes) = driver.seen.lock().unwrap()[0].clone();
    assert_eq!(features, DEVICE_FEATURE | FEATURE_VERSION_1);
    assert_eq!(sizes, [16, 16]);
}

#[test]
fn features_not_offered_or_without_version_1_get_no_features_ok() {
    for features in [FEATURE_VERSION_1 | 1, DEVICE_FEATURE, 0] {
        let mut driver = Driver::new();
        driver.status(1);
        driver.status(3);
        driver.accept(features);
        assert_eq!(driver.status(11), 3);
    }
    let mut driver = Driver::new();
    driver.status(1);
    driver.status(3);
    driver.accept(FEATURE_VERSION_1);
    driver.write(0x24, 2);
    driver.write(0x20, 1);
    assert_eq!(driver.status(11), 3);
}

#[test]
fn features_are_frozen_once_accepted() {
    let mut driver = Driver::new();
    driver.negotiate();
    driver.accept(0);
    (0..2).for_each(|index| driver.set_up_queue(index));
    driver.status(15);
    assert_eq!(driver.seen.lock().unwrap()[0].0, DEVICE_FEATURE | FEATURE_VERSION_1);
}

#[test]
fn steps_cannot_be_skipped_or_taken_back() {
    let mut driver = Driver::new();
    assert_eq!(driver.status(15), 0);
    assert_eq!(driver.status(2), 0);
    driver.status(1);
    assert_eq!(driver.status(11), 1);
    driver.run_from_acknowledged();
    assert_eq!(driver.status(3), 15);
    assert_eq!(driver.status(15), 15);
    assert_eq!(driver.log(), ["activated"], "a second DRIVER_OK must not activate again");
    assert_eq!(driver.status(15 | 128), 15 | 128);
}

impl Driver {
    fn run_from_acknowledged(&mut self) {
        self.status(3);
        self.accept(FEATURE_VERSION_1);
        self.status(11);
        (0..QUEUES as u32).for_each(|index| self.set_up_queue(index));
        assert_eq!(self.status(15), 15);
    }
}

#[test]
fn queues_are_frozen_while_the_device_runs() {
    let mut driver = Driver::new();
    driver.run();
    driver.write(0x30, 0);
    driver.write(0x44, 0);
    assert_eq!(driver.read(0x44), 1);
    driver.write(0x38, 4);
    assert_eq!(driver.transport.queues[0].size, 16);
}

#[test]
fn a_ready_queue_is_frozen_and_queues_wait_for_negotiation() {
    let mut driver = Driver::new();
    driver.write(0x44, 1);
    assert_eq!(driver.read(0x44), 0);
    driver.negotiate();
    driver.set_up_queue(0);
    driver.write(0x80, 0x8000);
    assert_eq!(driver.transport.queues[0].descriptors, 0x1000);
}

#[test]
fn bad_queues_mean_needs_reset_not_activation() {
    type Spoil = fn(&mut Driver);
    let spoils: [Spoil; 6] = [
        |driver| driver.write(0x38, 0),
        |driver| driver.write(0x38, 12),
        |driver| driver.write(0x38, 0x1_0010),
        |driver| driver.write(0x80, 0x1001),
        |driver| driver.write(0xa4, 0xffff_ffff),
        |driver| driver.write(0xa0, 0xfff0),
    ];
    for spoil in spoils {
        let mut driver = Driver::new();
        driver.negotiate();
        driver.set_up_queue(0);
        driver.set_up_queue(1);
        driver.write(0x44, 0);
        spoil(&mut driver);
        driver.write(0x44, 1);
        assert_eq!(driver.status(15), 15 | status::NEEDS_RESET);
        assert_eq!(driver.log(), [""; 0]);
        assert_eq!(driver.irq.read().unwrap(), 1);
        assert_eq!(driver.read(0x60), INTERRUPT_VRING | INTERRUPT_CONFIG);
    }
}

#[test]
fn a_queue_that_is_not_ready_means_needs_reset() {
    let mut driver = Driver::new();
    driver.negotiate();
    driver.set_up_queue(0);
    assert_eq!(driver.status(15), 15 | status::NEEDS_RESET);
}

#[test]
fn a_reset_ends_the_worker_first_and_allows_a_new_start() {
    let mut driver = Driver::new();
    driver.run();
    assert_eq!(driver.status(0), 0);
    assert_eq!(driver.log(), ["activated", "dropped"]);
    driver.write(0x30, 0);
    assert_eq!(driver.read(0x44), 0);
    driver.run();
    assert_eq!(driver.log(), ["activated", "dropped", "activated"]);
}

#[test]
fn a_failing_worker_is_reported_to_the_driver() {
    let mut driver = Driver::new();
    driver.run();
    let (_, on_failure) = driver.bench.0.lock().unwrap().pop().unwrap();
    on_failure.unwrap()(HandlerError::Queue { queue: 0, reason: "loop".into() });
    assert_eq!(driver.read(0x70), 15 | status::NEEDS_RESET);
    assert_eq!(driver.read(0x60), INTERRUPT_VRING | INTERRUPT_CONFIG);
    driver.write(0x64, INTERRUPT_CONFIG);
    assert_eq!(driver.read(0x60), INTERRUPT_VRING);
    assert_eq!(driver.status(0), 0);
    assert!(driver.transport.console.last_lines().contains("the Rng device has stopped"));
}

#[test]
fn any_access_of_any_length_anywhere_is_survived() {
    let mut driver = Driver::new();
    driver.run();
    for offset in (0..0x200).chain([0xfff, 0x1000, u64::MAX]) {
        for length in [0, 1, 2, 3, 4, 8, 64] {
            // Not the status register: a reset would end what is tested.
            if offset != 0x70 {
                driver.transport.write(offset, &vec![0xff; length]);
            }
        }
    }
    assert_eq!(driver.read(0x70), 15);
}

#[test]
fn the_configuration_is_read_at_any_width_and_ends_in_zeros() {
    let mut driver = Driver::new();
    let mut data = [9; 4];
    driver.window.read(CONFIG + 1, &mut data);
    assert_eq!(data, [2, 3, 0, 0]);
    driver.transport.write(CONFIG, &[7; 4]);
    driver.window.read(CONFIG, &mut data);
    assert_eq!(data, [1, 2, 3, 0]);
}
