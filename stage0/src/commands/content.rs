//! What a pod is made of: its manifest, its images and its stage1, found and checked before the pod's directory is made.

use std::error::Error;
use std::path::{Path, PathBuf};

use pod::abi::{Insecure, PodDirectory};
use pod::disk_space;
use pod::guest_network::GuestNetwork;
use pod::image_manifest::ImageManifest;
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::{self, ImageSource, Isolation, Layers, OpenedVolume, Plan, PrivateUsers, World};
use pod::pod_manifest::{PodManifest, RuntimeApp};
use pod::ports;
use pod::rates::MachineRates;
use pod::selinux::Context;
use pod::types::{AcName, ImageId};
use pod::users::{COUNT, UserRange};

use super::import::{check_stored, import};
use crate::cli::{AppArguments, Globals, PodFlags, PodLine, Stage1};
use crate::host::{Erofs, Kernel};
use crate::image_name::ImageReference;
use crate::pods::create::{AppImage, NewPod, Tree};
use crate::pods::environment::PodEnvironment;
use crate::pods::manifest::{Source, generate, runtime_app};
use crate::pods::{self, command, given};
use crate::stage1::Installed;
use crate::store::{self, Held, Image, Store};
use crate::{apparmor, landlock, selinux, users, volumes};

/// What a pod without isolation cannot have.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is not possible with --stage1=fly, whose app has the host's {1}: leave it out, or use --stage1=nspawn"
)]
pub struct NotWithFly(pub String, pub &'static str);

/// What only a disk can limit.
#[derive(Debug, thiserror::Error)]
#[error(
    "--disk-space (isolator resource/disk-space) is not possible with --stage1={}, whose apps write to the host's file system: leave it \
     out, or use --stage1=kvm, where they have a disk of that size", .0.name()
)]
struct NoDisk(Stage1);

/// A pod that can be made.
pub struct Content {
    /// The pod's manifest.
    pub manifest: PodManifest,
    /// The SELinux label of containers' files, if an app has a context.
    pub label: Option<Context>,
    stage1: Installed,
    private_users: bool,
    images: Vec<AppImage>,
    /// The images stay in the store until the pod has them.
    _held: Option<Held>,
}

/// What of running a pod its plan depends on.
#[derive(Clone, Copy)]
pub struct Running {
    /// The only app has a terminal.
    pub interactive: bool,
    /// The pod has the host's network.
    pub host_network: bool,
}

impl Running {
    /// What holds for every pod, however it is run.
    pub const ANY: Self = Self { interactive: false, host_network: false };

    /// In this network.
    pub fn new(interactive: bool, net: &Net) -> Self {
        Self { interactive, host_network: *net == Net::Host }
    }
}

impl Content {
    /// Finds and imports the images, computes the manifest, and checks everything that the stage1 would refuse.
    pub fn gather(
        globals: &Globals,
        line: &PodLine,
        stage1: Stage1,
        running: Running,
    ) -> Result<Self, Box<dyn Error>> {
        let flags = &line.flags;
        match stage1 {
            Stage1::Fly if flags.mutable => {
                return Err(NotWithFly("rkt app sandbox".into(), "processes").into());
            }
            Stage1::Fly if flags.private_users => {
                return Err(NotWithFly("--private-users".into(), "users").into());
            }
            Stage1::Kvm if flags.private_users => return Err(users::Error::OfVm.into()),
            Stage1::Nspawn if flags.private_users => users::check_kernel()?,
            Stage1::Kvm | Stage1::Nspawn | Stage1::Fly => {}
        }
        let kernel = Kernel::running();
        let installed = stage1.find()?;
        stage1.preflight(&installed, &kernel)?;

        let store = Store::new(&globals.directory);
        let held = store.hold()?;
        let (manifest, images) = match &flags.pod_manifest {
            Some(path) => given_manifest(path, &store)?,
            None => generated_manifest(globals, line, Some(stage1), &store)?,
        };
        ports::mappings(&manifest)?;
        let files: Vec<PathBuf> = images.iter().map(Image::erofs_path).collect();
        let names = images.iter().map(|image| image.id.as_str());
        let names = line.apps.iter().map(|app| app.image.as_str()).chain(names);
        let files: Vec<(&str, &Path)> = names.zip(files.iter().map(PathBuf::as_path)).collect();
        let label = check(&manifest, stage1, flags.private_users, running, &files)?;

        // The first import makes the store.
        let held = store.keep_holding(held)?;
        images.iter().try_for_each(Image::touch)?;
        let images = manifest.apps.iter().zip(&images);
        let images = images.map(|(app, image)| app_image(&store, &kernel, stage1, &app.name, image));
        let images = images.collect::<Result<Vec<_>, store::Error>>()?;
        Ok(Self {
            manifest,
            label,
            stage1: installed,
            private_users: flags.private_users,
            images,
            _held: held,
        })
    }

    /// Makes it the content of a pod's directory.
    pub fn fill(&self, pod: &NewPod<'_>) -> Result<(), pods::Error> {
        pod.fill(&self.manifest, &self.images, &self.stage1)?;
        if self.private_users { pod.want_users() } else { Ok(()) }
    }
}

/// What the images and the flags make, and the images in the order of the apps.
pub fn generated_manifest(
    globals: &Globals,
    line: &PodLine,
    stage1: Option<Stage1>,
    store: &Store,
) -> Result<(PodManifest, Vec<Image>), Box<dyn Error>> {
    let environment = PodEnvironment::of(&line.flags)?;
    let images = line
        .apps
        .iter()
        .map(|app| Ok(store.rendered(find(globals, line, stage1, &environment, store, app)?)?))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let sources = images.iter().map(|image| Source { id: &image.id, manifest: &image.manifest });
    let apps: Vec<_> = sources.zip(&line.apps).collect();
    Ok((generate(&apps, &line.flags, &environment, &line.mounts)?, images))
}

/// What the user says, and the images in the order of the apps.
pub fn given_manifest(path: &Path, store: &Store) -> Result<(PodManifest, Vec<Image>), Box<dyn Error>> {
    let mut manifest = given::read(path)?;
    let images = manifest.apps.iter().map(|app| store.rendered(store.by_id(app.image.id.as_str())?));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    given::complete(&mut manifest, images.iter().map(|image| &image.manifest))?;
    Ok((manifest, images))
}

/// What of an image an app of this isolation gets.
pub fn app_image(
    store: &Store,
    kernel: &Kernel,
    stage1: Stage1,
    app: &AcName,
    image: &Image,
) -> Result<AppImage, store::Error> {
    let unpack = stage1 != Stage1::Kvm && kernel.erofs() == Erofs::None;
    let tree = if unpack { Tree::Directory(store.tree(image)?) } else { Tree::Erofs(image.erofs_path()) };
    Ok(AppImage { app: app.clone(), manifest: image.manifest_path(), tree })
}

/// What becomes an app of a pod that runs.
pub struct LateApp {
    /// Its image.
    pub image: Image,
    /// What it is to be.
    pub app: RuntimeApp,
    /// The image stays in the store until the pod has it.
    _held: Option<Held>,
}

impl LateApp {
    /// Finds and imports the image.
    pub fn find(
        globals: &Globals,
        line: &PodLine,
        stage1: Option<Stage1>,
        store: &Store,
        arguments: &AppArguments,
    ) -> Result<Self, Box<dyn Error>> {
        let environment = PodEnvironment::default();
        let held = store.hold()?;
        let image = store.rendered(find(globals, line, stage1, &environment, store, arguments)?)?;
        let _held = store.keep_holding(held)?;
        image.touch()?;
        let source = Source { id: &image.id, manifest: &image.manifest };
        let app = runtime_app(source, arguments, &environment, &[])?;
        Ok(Self { image, app, _held })
    }
}

/// The image of an app: an ID, a file or directory, or a name in the store. What cannot be run is not stored; what a stage1 of
/// somebody's (`None`) can run, is not known.
fn find(
    globals: &Globals,
    line: &PodLine,
    stage1: Option<Stage1>,
    environment: &PodEnvironment,
    store: &Store,
    app: &AppArguments,
) -> Result<Image, Box<dyn Error>> {
    let text = app.image.as_str();
    let (signature, pull) = (app.flags.signature.as_deref(), line.flags.pull.policy());
    let path = match ImageReference::parse(text)? {
        ImageReference::File(path) => path,
        ImageReference::Id(id) => {
            check_stored(text, signature, pull)?;
            return Ok(store.by_id(&id)?);
        }
        ImageReference::Name(name) => {
            check_stored(text, signature, pull)?;
            return Ok(store.named(&name)?);
        }
    };
    let PodFlags { private_users, volume, .. } = &line.flags;
    let mut accept = |id: &ImageId, manifest: &ImageManifest, erofs: &Path| {
        let runtime = runtime_app(Source { id, manifest }, app, environment, &line.mounts)?;
        // What of it is in the images below it is known later.
        let is_whole = manifest.dependencies.is_empty();
        let Some(stage1) = stage1.filter(|_| is_whole) else { return Ok(()) };
        let mut alone = PodManifest::new(vec![runtime]);
        alone.volumes = volume.clone();
        check_programs(&alone, &plan_of(&alone, stage1, *private_users, Running::ANY)?, &[(text, erofs)])
    };
    import(globals, store, &path, signature, &mut accept)
}

/// Everything that the stage1 would refuse, before anything is made; the SELinux label of containers' files, if it is needed. The
/// images are named for messages, in the order of the pod's apps.
pub fn check(
    manifest: &PodManifest,
    stage1: Stage1,
    private_users: bool,
    running: Running,
    images: &[(&str, &Path)],
) -> Result<Option<Context>, Box<dyn Error>> {
    let limits = PodLimits::of(manifest)?;
    if disk_space::of(manifest)?.is_some() && stage1 != Stage1::Kvm {
        return Err(NoDisk(stage1).into());
    }
    if stage1 == Stage1::Kvm {
        limits.check_for_vm()?;
        limits.vcpus()?;
        limits.guest_memory_bytes(0)?;
    }
    let plan = plan_of(manifest, stage1, private_users, running)?;
    MachineRates::of(manifest)?;
    let label = check_labels(&plan, stage1)?;
    volumes::check(manifest, stage1, private_users, images)?;
    check_programs(manifest, &plan, images)?;
    Ok(label)
}

/// What the host's security modules have to know.
fn check_labels(plan: &Plan, stage1: Stage1) -> Result<Option<Context>, Box<dyn Error>> {
    apparmor::check(plan, stage1)?;
    landlock::check(plan, stage1)?;
    Ok(selinux::check(plan, stage1)?)
}

/// The same of a pod that has been prepared. Where its images are unpacked there is no image to look into.
pub fn check_again(
    manifest: &PodManifest,
    directory: &PodDirectory,
    stage1: Stage1,
    private_users: bool,
    running: Running,
) -> Result<Option<Context>, Box<dyn Error>> {
    let files = manifest.apps.iter().map(|app| directory.app_image(&app.name));
    let files: Vec<PathBuf> = files.filter(|file| file.exists()).collect();
    let images = manifest.apps.iter().zip(&files);
    let images: Vec<(&str, &Path)> =
        images.map(|(app, file)| (app.image.id.as_str(), file.as_path())).collect();
    if images.len() == manifest.apps.len() {
        return check(manifest, stage1, private_users, running, &images);
    }
    check_labels(&plan_of(manifest, stage1, private_users, running)?, stage1)
}

fn check_programs(
    manifest: &PodManifest,
    plan: &Plan,
    images: &[(&str, &Path)],
) -> Result<(), Box<dyn Error>> {
    let assigned = pod::volumes::assign(manifest)?;
    for ((app, mounts), (image, erofs)) in plan.apps.iter().zip(&assigned.mounts).zip(images) {
        let program = app.process.exec.first().map(String::as_str).unwrap_or_default();
        if !volumes::may_hold(&assigned, mounts, program) {
            command::check(&app.name, image, &app.process, erofs)?;
        }
    }
    Ok(())
}

/// The plan that the stage1 will compute, as far as it does not depend on where things are.
fn plan_of(
    manifest: &PodManifest,
    stage1: Stage1,
    private_users: bool,
    running: Running,
) -> Result<Plan, pod::Error> {
    let layers = |_: &_| Layers { image: ImageSource::File(PathBuf::new()), writable: PathBuf::new() };
    let volumes = vec![OpenedVolume::Directory; pod::volumes::assign(manifest)?.volumes.len()];
    // Any will do.
    let range = UserRange { shift: COUNT, count: COUNT };
    let users = private_users.then_some(PrivateUsers { range, host_network: running.host_network });
    let world = World {
        isolation: match stage1 {
            Stage1::Fly => Isolation::Fly { pod_root: PathBuf::new(), volumes },
            Stage1::Nspawn => Isolation::Namespaces { pod_root: PathBuf::new(), volumes, users },
            Stage1::Kvm => {
                Isolation::Vm { scratch: PathBuf::new(), volumes, network: GuestNetwork::default() }
            }
        },
        hostname: String::new(),
        interactive: running.interactive,
        ipc: Default::default(),
        // To make a filter takes longer than the rest of the plan; that it can be made, the manifest has shown.
        insecure: Insecure { seccomp: true, ..Insecure::default() },
        resolv_conf: None,
        metadata_url: None,
        hosts: None,
        layers: manifest.apps.iter().map(layers).collect(),
    };
    plan::compute(manifest, &world)
}
