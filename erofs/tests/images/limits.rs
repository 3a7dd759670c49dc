//! Archives that lie about sizes or bring too much.

use std::io::{self, Read};

use erofs::{Error, Limits, Metadata, Writer};

use crate::path;

fn writer(limits: Limits) -> Writer<Vec<u8>> {
    Writer::with_limits(Vec::new(), limits)
}

#[test]
fn eight_exbibytes_are_refused_before_anything_is_read() {
    struct Unread;
    impl Read for Unread {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("read")
        }
    }
    for size in [8 << 60, u64::MAX, erofs::MAX_DATA_BYTES + 1] {
        let added =
            writer(Limits::default()).file(&path("big"), &Metadata::root_owned(0o644), &mut Unread, size);
        assert!(matches!(added, Err(Error::Limit { entry, .. }) if entry == "/big"));
    }
}

#[test]
fn data_ends_early_or_cannot_be_read() {
    let metadata = Metadata::root_owned(0o644);
    let error = writer(Limits::default()).file(&path("a"), &metadata, &mut &b"123"[..], 5).unwrap_err();
    assert!(matches!(error, Error::Truncated { got: 3, expected: 5, .. }), "{error}");
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let error = writer(Limits::default()).file(&path("a"), &metadata, &mut Broken, 5).unwrap_err();
    assert!(
        matches!(&error, Error::Archive { entry, source } if entry == "/a" && source.to_string() == "broken")
    );
}

#[test]
fn what_follows_an_entrys_data_stays_in_the_archive() {
    let mut archive = &b"12345rest"[..];
    let mut writer = writer(Limits::default());
    writer.file(&path("a"), &Metadata::root_owned(0o644), &mut archive, 5).unwrap();
    assert_eq!(archive, b"rest");
}

#[test]
fn the_limits_count_what_is_replaced_too() {
    let metadata = Metadata::root_owned(0o644);
    let mut few = writer(Limits { entries: 10, ..Limits::default() });
    let error = (0..).find_map(|n| few.symlink(&path("a"), &metadata, b"t").err().map(|error| (n, error)));
    assert!(matches!(error, Some((10, Error::Limit { what: "entries", limit: 10, .. }))));

    let mut small = writer(Limits { data_bytes: 10 * 4096, ..Limits::default() });
    let error = (0..)
        .find_map(|n| small.file(&path("a"), &metadata, &mut &b"1"[..], 1).err().map(|error| (n, error)));
    assert!(matches!(error, Some((10, Error::Limit { what: "bytes of file data", .. }))));

    for name in ["n".repeat(200), "a".to_owned()] {
        let mut narrow = writer(Limits { metadata_bytes: 100_000, ..Limits::default() });
        let mut metadata = Metadata::root_owned(0o777);
        metadata.xattrs.insert(b"user.x".to_vec(), vec![0; 1000]);
        let error = (0..1000).find_map(|_| narrow.symlink(&path(&name), &metadata, &[b't'; 4000]).err());
        assert!(matches!(error, Some(Error::Limit { limit: 100_000, .. })));
    }
}

#[test]
fn a_sink_that_fails_is_reported_with_the_place() {
    struct Full;
    impl erofs::Sink for Full {
        fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn punch_hole(&mut self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }
    let error = Writer::new(Full).finish().err().unwrap();
    assert!(matches!(error, Error::Write { offset: 4096, .. }), "{error}");
}

#[test]
fn whiteouts_without_end_take_no_time_without_end() {
    let start = std::time::Instant::now();
    let mut writer = writer(Limits::default());
    for number in 0..20_000 {
        writer
            .symlink(&path(format!("d/{}/{number}", number % 100)), &Metadata::root_owned(0o777), b"t")
            .unwrap();
    }
    // Each would look at 20,000 entries again.
    for number in 0..200_000 {
        writer.clear(&path(["d", "d/7"][number % 2])).unwrap();
    }
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}
