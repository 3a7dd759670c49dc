//! How much the apps of a pod may write into their roots: `resource/disk-space`, an isolator of ours, `{"limit": "1Gi"}`. All apps of
//! a pod share one disk, so it is the whole pod's; an app may ask for it that is alone.

use crate::Error;
use crate::isolator::{Isolator, RawIsolator, names};
use crate::pod_manifest::PodManifest;
use crate::quantity::Quantity;

/// The smallest disk: a file system has a size of its own.
pub const MIN_DISK_BYTES: u64 = 64 << 20;
/// The largest disk.
pub const MAX_DISK_BYTES: u64 = 1 << 40;

/// A limit in bytes.
pub fn bytes(limit: Quantity) -> Result<u64, Error> {
    let bytes = limit.units().filter(|bytes| (MIN_DISK_BYTES..=MAX_DISK_BYTES).contains(bytes));
    bytes.ok_or_else(|| Error::syntax(limit.to_string(), "disk space from 64Mi to 1Ti"))
}

/// What the apps of a pod may write together, if somebody asked for a limit; of several the last counts, and the pod's before an
/// app's.
pub fn of(manifest: &PodManifest) -> Result<Option<u64>, Error> {
    let of_pod = last(&manifest.isolators)?;
    let mut of_apps = None;
    for app in &manifest.apps {
        let Some(bytes) = last(app.isolators())? else { continue };
        if manifest.apps.len() > 1 || manifest.is_mutable() {
            return Err(Error::Invalid(format!(
                "app \"{}\" has {}, and the apps of this pod share one disk: say how large that is (--disk-space)",
                app.name,
                names::DISK_SPACE
            )));
        }
        of_apps = Some(bytes);
    }
    Ok(of_pod.or(of_apps))
}

fn last(isolators: &[RawIsolator]) -> Result<Option<u64>, Error> {
    match Isolator::last(isolators, names::DISK_SPACE)? {
        Some(Isolator::DiskSpace(bytes)) => Ok(Some(bytes)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_manifest::ANNOTATION_MUTABLE;

    fn isolator(limit: &str) -> String {
        format!(r#"{{"name":"resource/disk-space","value":{{"limit":"{limit}"}}}}"#)
    }

    fn space(pod: &str, apps: &[&str], mutable: bool) -> Result<Option<u64>, Error> {
        let app = |(index, isolators): (usize, &&str)| {
            format!(
                r#"{{"name":"a{index}","image":{{"id":"sha512-{}"}},"app":{{"exec":["/a"],"user":"0","group":"0",
                "isolators":[{isolators}]}}}}"#,
                "0".repeat(64)
            )
        };
        let apps: Vec<_> = apps.iter().enumerate().map(app).collect();
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","isolators":[{pod}],"apps":[{}],
            "annotations":[{{"name":"{ANNOTATION_MUTABLE}","value":"{mutable}"}}]}}"#,
            apps.join(",")
        );
        of(&PodManifest::parse(json.as_bytes())?)
    }

    #[test]
    fn it_is_the_pods() {
        let (one, two) = (isolator("1Gi"), isolator("2Gi"));
        assert_eq!(space("", &[""], false).unwrap(), None);
        assert_eq!(space(&one, &["", ""], false).unwrap(), Some(1 << 30));
        assert_eq!(space(&one, &[], true).unwrap(), Some(1 << 30));
        assert_eq!(space("", &[&one], false).unwrap(), Some(1 << 30));
        assert_eq!(space(&one, &[&two], false).unwrap(), Some(1 << 30));
        assert_eq!(space(&format!("{one},{two}"), &[""], false).unwrap(), Some(2 << 30));
    }

    #[test]
    fn an_app_has_no_part_of_a_disk_that_others_write_to() {
        for (apps, mutable) in [(&["", &isolator("1Gi")][..], false), (&[&isolator("1Gi")], true)] {
            let error = space("", apps, mutable).unwrap_err().to_string();
            assert!(error.contains("--disk-space"), "{error}");
        }
    }

    #[test]
    fn sizes_without_sense() {
        for bad in ["16m", "63Mi", "2Ti", "99999999Ei", "-1", "much"] {
            assert!(space(&isolator(bad), &[""], false).is_err(), "{bad}");
        }
        assert_eq!(space(&isolator("64Mi"), &[""], false).unwrap(), Some(MIN_DISK_BYTES));
        assert_eq!(space(&isolator("1Ti"), &[""], false).unwrap(), Some(MAX_DISK_BYTES));
    }
}
