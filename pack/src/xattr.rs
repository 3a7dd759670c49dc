//! Which extended attributes of an archive are kept.

/// Attributes by which an image would direct the overlay that is mounted over it.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Whether an image keeps an attribute: file capabilities and what users and root have noted. All others are dropped, as
/// upstream does: labels and ACLs belong to the machine that wrote them.
pub fn is_kept(name: &[u8]) -> bool {
    let kept = name == b"security.capability" || name.starts_with(b"user.") || name.starts_with(b"trusted.");
    kept && !OVERLAY.iter().any(|prefix| name.starts_with(prefix)) && erofs::is_storable_xattr(name)
}

#[cfg(test)]
mod tests {
    use super::is_kept;

    #[test]
    fn kept_and_dropped() {
        for kept in ["security.capability", "user.comment", "trusted.note"] {
            assert!(is_kept(kept.as_bytes()), "{kept}");
        }
        for dropped in ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "user.", "x"] {
            assert!(!is_kept(dropped.as_bytes()), "{dropped}");
        }
    }
}
