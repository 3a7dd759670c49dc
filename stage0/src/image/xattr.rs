//! Which extended attributes of an archive are kept.

/// Whether an image keeps an attribute: file capabilities and the user's own, as upstream does. All others are dropped:
/// `trusted.overlay.*` and `user.overlay.*` would let an image direct the overlay above it, labels and ACLs belong to
/// the machine that wrote them.
pub fn is_kept(name: &[u8]) -> bool {
    let kept =
        name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
    kept && erofs::is_storable_xattr(name)
}

#[cfg(test)]
mod tests {
    use super::is_kept;

    #[test]
    fn kept_and_dropped() {
        for kept in ["security.capability", "user.comment"] {
            assert!(is_kept(kept.as_bytes()), "{kept}");
        }
        for dropped in ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "user.", "x"] {
            assert!(!is_kept(dropped.as_bytes()), "{dropped}");
        }
    }
}
