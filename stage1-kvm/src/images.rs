//! How a guest gets its apps' images: mapped, or as disks.
//!
//! A mapped image is read from the host's page cache, of which the guest keeps no copy. But for each page of it, read or not, the guest
//! has a descriptor of 64 bytes in its memory, and writes all of them as it boots: 128 MiB for an image of 8 GiB. A disk costs the guest
//! what it reads of it, in its own page cache.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pod::limits::{GUEST_DESCRIPTORS_SHARE, PodLimits};
use pod::plan::{ImageSource, Layers, VM_IMAGES, VM_SCRATCH};
use pod::pod_manifest::RuntimeApp;
use stage1::pod::Pod;

use crate::error::Error;

/// Descriptors of images may take this part of a guest's memory: an eighth.
const DESCRIPTORS_PART: u64 = 8;
/// The most images that are disks: volumes and networks need slots for devices, too.
const MAX_DISKS: usize = 8;
/// The guest's own root is the first partition of the mapped device.
const FIRST_PARTITION: usize = 2;
/// The scratch disk is the first.
const FIRST_DISK: u8 = b'b';

/// The images of a pod, each once, whatever the number of its apps.
pub struct Images {
    /// Those that are mapped, in the order of their partitions.
    pub mapped: Vec<File>,
    /// Those that are disks, in order.
    pub disks: Vec<File>,
    /// The size of those that are mapped.
    pub mapped_bytes: u64,
    /// Each app's.
    sources: Vec<ImageSource>,
}

/// An opened image.
struct Image {
    file: File,
    /// Which file it is, on which file system: apps of one image have links to it.
    identity: (u64, u64),
    bytes: u64,
}

impl Images {
    /// Opens the images of a pod's apps, and says where the guest is to have them.
    pub fn open(pod: &Pod, limits: &PodLimits) -> Result<Self, Error> {
        let mut images: Vec<Image> = Vec::new();
        let mut of_apps = Vec::new();
        for app in &pod.manifest.apps {
            let image = Image::open(pod, app)?;
            let known = images.iter().position(|known| known.identity == image.identity);
            of_apps.push(known.unwrap_or(images.len()));
            images.extend(known.is_none().then_some(image));
        }
        let sizes: Vec<u64> = images.iter().map(|image| image.bytes).collect();
        let memory_bytes = limits.guest_memory_bytes(0).map_err(Error::Limits)?;
        let disks = disks(&sizes, memory_bytes);
        let sources = sources(&disks);
        let sources = of_apps.iter().filter_map(|image| sources.get(*image).cloned()).collect();
        let mut opened = Self { mapped: Vec::new(), disks: Vec::new(), mapped_bytes: 0, sources };
        for (image, is_disk) in images.into_iter().zip(disks) {
            if is_disk {
                opened.disks.push(image.file);
            } else {
                opened.mapped.push(image.file);
                opened.mapped_bytes = opened.mapped_bytes.saturating_add(image.bytes);
            }
        }
        Ok(opened)
    }

    /// Where each app's root comes from in the guest.
    pub fn layers(&self, pod: &Pod) -> Vec<Layers> {
        let apps = pod.manifest.apps.iter().zip(&self.sources);
        let layers = |(app, image): (&RuntimeApp, &ImageSource)| Layers {
            image: image.clone(),
            writable: Path::new(VM_SCRATCH).join(app.name.as_str()),
        };
        apps.map(layers).collect()
    }
}

impl Image {
    fn open(pod: &Pod, app: &RuntimeApp) -> Result<Self, Error> {
        let path = pod.directory.app_image(&app.name);
        let open = || {
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            Ok(Self { file, identity: (metadata.dev(), metadata.ino()), bytes: metadata.len() })
        };
        open().map_err(|source| Error::NoImage { app: app.name.clone(), path: path.clone(), source })
    }
}

/// Which images are disks: the largest, as many as it takes until the descriptors of the others have at most their part of
/// `memory_bytes`, and no more than [`MAX_DISKS`].
fn disks(sizes: &[u64], memory_bytes: u64) -> Vec<bool> {
    let most = (memory_bytes / DESCRIPTORS_PART).saturating_mul(GUEST_DESCRIPTORS_SHARE);
    let mut mapped = sizes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let mut by_size: Vec<_> = sizes.iter().copied().enumerate().collect();
    by_size.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut disks = vec![false; sizes.len()];
    for (index, bytes) in by_size.into_iter().take(MAX_DISKS) {
        if mapped <= most {
            break;
        }
        mapped = mapped.saturating_sub(bytes);
        if let Some(is_disk) = disks.get_mut(index) {
            *is_disk = true;
        }
    }
    disks
}

/// Where the guest finds each image.
fn sources(disks: &[bool]) -> Vec<ImageSource> {
    let mut partitions = FIRST_PARTITION..;
    let mut letters = FIRST_DISK..;
    let mut source = |is_disk: &bool| match is_disk {
        true => {
            letters.next().map(|letter| ImageSource::Disk(format!("/dev/vd{}", char::from(letter)).into()))
        }
        false => partitions.next().map(|number| ImageSource::Pmem(format!("{VM_IMAGES}p{number}").into())),
    };
    disks.iter().filter_map(&mut source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn images_are_mapped_until_their_descriptors_have_an_eighth_of_the_memory() {
        assert_eq!(disks(&[800 * MIB, 200 * MIB, 24 * MIB], 128 * MIB), [false; 3]);
        assert_eq!(disks(&[800 * MIB, 200 * MIB, 24 * MIB + 1], 128 * MIB), [true, false, false]);
        assert_eq!(disks(&[200 * MIB, 2 * GIB, GIB, 900 * MIB], 128 * MIB), [false, true, true, true]);
        assert!(disks(&[], 128 * MIB).is_empty());
    }

    #[test]
    fn no_more_than_some_images_are_disks() {
        let disks = disks(&[GIB; 30], 128 * MIB);
        assert_eq!(disks.iter().filter(|is_disk| **is_disk).count(), MAX_DISKS);
    }

    #[test]
    fn partitions_and_disks_are_counted_apart() {
        let pmem = |number: usize| ImageSource::Pmem(format!("/dev/pmem0p{number}").into());
        let disk = |letter: char| ImageSource::Disk(format!("/dev/vd{letter}").into());
        let sources = sources(&[false, true, false, true]);
        assert_eq!(sources, [pmem(2), disk('b'), pmem(3), disk('c')]);
    }
}
