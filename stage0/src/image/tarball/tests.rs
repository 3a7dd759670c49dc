use super::*;

fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o640);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header
}

fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8]) {
    let mut header = header(tar::EntryType::Regular, data.len() as u64);
    builder.append_data(&mut header, name, data).unwrap();
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut archive = Archive::new(Stream(bytes));
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

#[test]
fn files_and_their_data() {
    let bytes = archive(|builder| {
        add(builder, "a", b"hello");
        add(builder, &"long/".repeat(60), b"");
        add(builder, "b", &[7; 1000]);
    });
    let mut archive = Archive::new(Stream(&bytes[..]));
    let first = archive.next_entry().unwrap().unwrap();
    assert_eq!((first.name.as_slice(), &first.kind), (&b"a"[..], &Kind::File(5)));
    assert_eq!((first.metadata.permissions, first.metadata.uid, first.metadata.gid), (0o640, 1, 2));
    let mut data = String::new();
    archive.read_to_string(&mut data).unwrap();
    assert_eq!(data, "hello");
    assert_eq!(archive.next_entry().unwrap().unwrap().name, "long/".repeat(60).as_bytes());
    let last = archive.next_entry().unwrap().unwrap();
    let start = last.data_offset as usize;
    assert_eq!(bytes[start..start + 1000], [7; 1000]);
    assert!(archive.next_entry().unwrap().is_none() && archive.has_end_marker());
}

#[test]
fn a_pax_size_counts_and_not_the_headers() {
    let bytes = archive(|builder| {
        let record = b"12 size=600\n";
        let extension = header(tar::EntryType::XHeader, record.len() as u64);
        append(builder, extension, "pax", record);
        append(builder, header(tar::EntryType::Regular, 0), "large", &[7; 600]);
        add(builder, "next", b"");
    });
    let read = entries(&bytes).unwrap();
    assert_eq!((&read[0].kind, read[1].name.as_slice()), (&Kind::File(600), &b"next"[..]));
}

/// Appends an entry whose header may say something else than its data.
fn append(builder: &mut tar::Builder<Vec<u8>>, mut header: tar::Header, name: &str, data: &[u8]) {
    header.set_path(name).unwrap();
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

#[test]
fn links_devices_and_large_owners() {
    let bytes = archive(|builder| {
        for (kind, name) in [(tar::EntryType::Symlink, "s"), (tar::EntryType::Link, "h")] {
            builder.append_link(&mut header(kind, 0), name, "../".repeat(60)).unwrap();
        }
        let mut device = header(tar::EntryType::Char, 0);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        device.set_uid(0xffff_fff0);
        builder.append_data(&mut device, "null", &[][..]).unwrap();
    });
    let entries = entries(&bytes).unwrap();
    assert_eq!(entries[0].kind, Kind::Symlink("../".repeat(60).into_bytes()));
    assert_eq!(entries[1].kind, Kind::HardLink("../".repeat(60).into_bytes()));
    assert_eq!(entries[2].kind, Kind::Special(Special::Character { major: 1, minor: 3 }));
    assert_eq!(entries[2].metadata.uid, 0xffff_fff0);
}

#[test]
fn pax_records_win() {
    let bytes = archive(|builder| {
        let records: [(&str, &[u8]); 4] = [
            ("path", b"other"),
            ("uid", b"70000"),
            ("mtime", b"5.5"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ];
        builder.append_pax_extensions(records).unwrap();
        add(builder, "name", b"x");
    });
    let entry = entries(&bytes).unwrap().remove(0);
    assert_eq!((entry.name.as_slice(), entry.metadata.uid), (&b"other"[..], 70000));
    assert_eq!((entry.metadata.mtime_s, entry.metadata.mtime_ns), (5, 500_000_000));
    assert!(entry.metadata.xattrs.is_empty(), "the overlay's own are dropped");
}

#[test]
fn sparse_entries_are_refused() {
    let old = archive(|builder| {
        builder.append_data(&mut header(tar::EntryType::GNUSparse, 0), "holes", &[][..]).unwrap();
    });
    let new = archive(|builder| {
        builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
        add(builder, "holes", b"");
    });
    for bytes in [old, new] {
        let error = entries(&bytes).unwrap_err().to_string();
        assert!(error.contains("holes") && error.contains("--sparse"), "{error}");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = archive(|builder| {
        add(builder, "a", &[1; 700]);
        add(builder, "b", b"x");
    });
    let data_end = bytes.len() - 2 * BLOCK_BYTES;
    for length in 1..=data_end {
        let mut archive = Archive::new(Stream(&bytes[..length]));
        let ok = loop {
            match archive.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => break archive.has_end_marker(),
                Err(error) => break !matches!(error, Error::Truncated { .. }),
            }
        };
        assert!(!ok, "cut at {length}");
    }
}

#[test]
fn a_damaged_header_is_named_by_its_predecessor() {
    let mut bytes = archive(|builder| {
        add(builder, "first", b"x");
        add(builder, "second", b"y");
    });
    bytes[1024] ^= 1;
    let error = entries(&bytes).unwrap_err().to_string();
    assert!(error.contains("checksum") && error.contains("\"first\""), "{error}");
}

#[test]
fn extensions_are_bounded() {
    let huge = archive(|builder| {
        let mut header = header(tar::EntryType::GNULongName, (1 << 20) + 1);
        header.set_cksum();
        builder.append(&header, std::io::repeat(b'a').take((1 << 20) + 1)).unwrap();
    });
    assert!(entries(&huge).unwrap_err().to_string().contains("1 MiB"));
    let many = archive(|builder| {
        for _ in 0..20 {
            builder.append_pax_extensions([("comment", &b"x"[..])]).unwrap();
        }
    });
    assert!(entries(&many).unwrap_err().to_string().contains("in a row"));
}
