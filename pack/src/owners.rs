//! Owners in the writable layer of a pod with users of its own (`--private-users`): they are the host's numbers there, and the pod's
//! in its image.

use erofs::Metadata;
use pod::users::UserRange;

/// The attribute with a program's capabilities (`struct vfs_ns_cap_data` of the kernel).
const CAPABILITY: &[u8] = b"security.capability";
/// Bytes of revision 2, which revision 3 has before its root user.
const REVISION_2_BYTES: usize = 20;
const REVISION_2: u8 = 2;

/// Gives a file the owners that the pod sees. What is not a user of the pod's comes from its image, and stays.
pub fn shift_back(metadata: &mut Metadata, users: UserRange) {
    for id in [&mut metadata.uid, &mut metadata.gid] {
        *id = users.in_pod(*id).unwrap_or(*id);
    }
    if let Some(capability) = metadata.xattrs.get_mut(CAPABILITY)
        && let Some((rest, root)) = capability.split_at_checked(REVISION_2_BYTES)
        && root == users.shift.to_le_bytes()
    {
        // Capabilities of the pod's own root are those of any root.
        let mut rest = rest.to_vec();
        if let Some(revision) = rest.get_mut(3) {
            *revision = REVISION_2;
        }
        *capability = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_numbers() {
        let users = UserRange { shift: 131_072, count: 65_536 };
        let mut metadata = Metadata { uid: 131_072, gid: 1000, ..Metadata::root_owned(0o755) };
        let of_root = [[1, 0, 0, 3].as_slice(), &[7; 16], &131_072u32.to_le_bytes()].concat();
        metadata.xattrs.insert(CAPABILITY.to_vec(), of_root.clone());
        shift_back(&mut metadata, users);
        assert_eq!((metadata.uid, metadata.gid), (0, 1000));
        assert_eq!(metadata.xattrs[CAPABILITY], [[1, 0, 0, 2].as_slice(), &[7; 16]].concat());
        // Of somebody else's root, or of nobody's in particular.
        for other in [of_root[..20].to_vec(), [&of_root[..20], &[9; 4]].concat()] {
            metadata.xattrs.insert(CAPABILITY.to_vec(), other.clone());
            shift_back(&mut metadata, users);
            assert_eq!(metadata.xattrs[CAPABILITY], other);
        }
    }
}
