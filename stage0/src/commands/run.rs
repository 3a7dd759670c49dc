//! `rkt run`: everything that can fail is tried before the pod's directory is made, and the directory is gone again if
//! anything after that fails. Then this process becomes the stage1.

use std::convert::Infallible;
use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use pod::abi::{RunArguments, default_hostname};
use pod::image_manifest::ImageManifest;
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::{self, ImageSource, Isolation, Layers, OpenedVolume, Plan, PrivateUsers, World};
use pod::pod_manifest::PodManifest;
use pod::ports;
use pod::selinux::Context;
use pod::types::{AcName, ImageId};
use pod::users::{COUNT, UserRange};
use pod::volumes::Mount;
use uuid::Uuid;

use super::images::check_signature_policy;
use crate::cli::{AppArguments, Globals, PodFlags, Stage1};
use crate::host::{Erofs, Kernel};
use crate::pods::create::{AppImage, NewPod, Tree};
use crate::pods::environment::PodEnvironment;
use crate::pods::manifest::{Source, generate, runtime_app};
use crate::pods::{Pods, command};
use crate::sockets::Sockets;
use crate::stage1::Handed;
use crate::store::{self, Image, Store};
use crate::users::{self, Reserved};
use crate::{apparmor, landlock, network, selinux, stage1, timeline, volumes};

/// What is wrong with a command line that is right by itself.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot run as unprivileged user: pods need root")]
    Unprivileged,
    #[error("cannot write the pod's UUID to {}", .0.display())]
    UuidFile(PathBuf, #[source] io::Error),
    #[error("--interactive needs a terminal as standard input")]
    NoTerminal,
    #[error(
        "--net=host is not possible with --stage1=kvm: a VM's kernel has a network of its own; use another network, \
        or --stage1=nspawn"
    )]
    HostNetOfVm,
    #[error(
        "{0} is not possible with --stage1=fly, whose app has the host's {1}: leave it out, or use --stage1=nspawn"
    )]
    NotWithFly(String, &'static str),
}

/// Runs a pod; returns only if that fails.
pub fn run(
    globals: &Globals,
    flags: &PodFlags,
    mounts: &[Mount],
    apps: &[AppArguments],
    started: u64,
) -> Result<Infallible, Box<dyn Error>> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refused::Unprivileged.into());
    }
    let sockets = Sockets::take()?;
    let uuid = Uuid::new_v4();
    if let Some(path) = &flags.uuid_file_save {
        fs::write(path, uuid.to_string()).map_err(|error| Refused::UuidFile(path.clone(), error))?;
    }
    if flags.interactive && !io::stdin().is_terminal() {
        return Err(Refused::NoTerminal.into());
    }
    let net = flags.net();
    check_isolation(flags, &net)?;
    network::check(&net, &globals.local_config, &[])?;
    if flags.stage1 == Stage1::Kvm && net != Net::None {
        network::check_for_vm()?;
    }
    let kernel = Kernel::running();
    let installed = flags.stage1.find()?;
    flags.stage1.preflight(&installed, &kernel)?;

    let store = Store::new(&globals.directory);
    let environment = PodEnvironment::of(flags)?;
    let images = apps
        .iter()
        .map(|app| find(globals, flags, &environment, mounts, &store, app))
        .collect::<Result<Vec<_>, _>>()?;
    let images_done = timeline::now_us();
    let sources = images.iter().map(|image| Source { id: &image.id, manifest: &image.manifest });
    let manifest = generate(&sources.zip(apps).collect::<Vec<_>>(), flags, &environment, mounts)?;
    let files = check(&manifest, flags, apps, &images)?;
    let assigned = sockets.assign(&manifest, flags.stage1)?;
    let pods = Pods::new(&globals.directory);
    let ports = ports::mappings(&manifest)?;
    network::check(&net, &globals.local_config, &ports)?;
    network::check_free(&pods, &ports)?;

    let app_images = manifest.apps.iter().zip(&images);
    let app_images =
        app_images.map(|(app, image)| app_image(&store, &kernel, flags.stage1, &app.name, image));
    let app_images = app_images.collect::<Result<Vec<_>, store::Error>>()?;

    let users = flags.private_users.then(|| users::reserve(&globals.local_config, uuid)).transpose()?;
    let mut pod = NewPod::create(&pods, uuid)?;
    pod.fill(&manifest, &app_images, &installed)?;
    users.as_ref().map_or(Ok(()), |users| pod.note_users(users.range))?;
    pod.start()?;
    let arguments = RunArguments {
        debug: globals.debug,
        net,
        interactive: flags.interactive,
        private_users: users.as_ref().map(|users| users.range),
        local_config: Some(globals.local_config.clone()),
        hostname: flags.hostname.clone().unwrap_or_else(|| default_hostname(uuid)),
        insecure: globals.insecure.run,
        mutable: flags.mutable,
        cgroup_parent: flags.cgroup_parent.clone(),
        uuid,
    };
    let marks = flags.timeline.then(|| timeline::marks(started, images_done, timeline::now_us()));
    let users = users.as_ref().map(Reserved::lock);
    let handed =
        Handed { lock: pod.lock(), users, sockets: &sockets, assigned: &assigned, files: files.as_ref() };
    Ok(stage1::exec(&pod.path(), handed, &arguments, flags.stage1, marks)?)
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

/// What the isolation cannot give whatever the images are.
fn check_isolation(flags: &PodFlags, net: &Net) -> Result<(), Box<dyn Error>> {
    match flags.stage1 {
        Stage1::Kvm if *net == Net::Host => Err(Refused::HostNetOfVm.into()),
        Stage1::Kvm if flags.private_users => Err(users::Error::OfVm.into()),
        Stage1::Nspawn if flags.private_users => Ok(users::check_kernel()?),
        Stage1::Kvm | Stage1::Nspawn => Ok(()),
        Stage1::Fly => {
            let refused = [
                (flags.mutable.then(|| "rkt app sandbox".to_owned()), "processes"),
                ((*net != Net::Host).then(|| format!("--net={net}")), "network"),
                (flags.hostname.as_ref().map(|name| format!("--hostname={name}")), "name"),
                (flags.private_users.then(|| "--private-users".to_owned()), "users"),
                (flags.cgroup_parent.as_ref().map(|path| format!("--cgroup-parent={path}")), "cgroups"),
            ];
            let first = refused.into_iter().find_map(|(flag, what)| Some((flag?, what)));
            first.map_or(Ok(()), |(flag, what)| Err(Refused::NotWithFly(flag, what).into()))
        }
    }
}

/// The image of an app: an ID, a file or directory, or a name in the store. What cannot be run is not stored.
pub fn find(
    globals: &Globals,
    flags: &PodFlags,
    environment: &PodEnvironment,
    mounts: &[Mount],
    store: &Store,
    app: &AppArguments,
) -> Result<Image, Box<dyn Error>> {
    let text = app.image.as_str();
    if text.starts_with("sha512-") {
        return Ok(store.by_id(text)?);
    }
    if !Path::new(text).exists() {
        return Ok(store.by_name(text)?);
    }
    check_signature_policy(globals, text)?;
    store.import(Path::new(text), &mut |id: &ImageId, manifest: &ImageManifest, erofs: &Path| {
        let runtime = runtime_app(Source { id, manifest }, app, environment, mounts)?;
        let mut alone = PodManifest::new(vec![runtime]);
        alone.volumes = flags.volume.clone();
        check_programs(&alone, &plan_of(&alone, flags)?, &[(text, erofs)])
    })
}

/// Everything that the stage1 would refuse, before anything is made; the SELinux label of containers' files, if it is needed.
pub fn check(
    manifest: &PodManifest,
    flags: &PodFlags,
    apps: &[AppArguments],
    images: &[Image],
) -> Result<Option<Context>, Box<dyn Error>> {
    let limits = PodLimits::of(manifest)?;
    if flags.stage1 == Stage1::Kvm {
        limits.vcpus()?;
        limits.guest_memory_bytes()?;
    }
    let files: Vec<PathBuf> = images.iter().map(Image::erofs_path).collect();
    let files: Vec<(&str, &Path)> =
        apps.iter().zip(&files).map(|(app, file)| (app.image.as_str(), file.as_path())).collect();
    let plan = plan_of(manifest, flags)?;
    apparmor::check(&plan, flags.stage1)?;
    landlock::check(&plan, flags.stage1)?;
    let label = selinux::check(&plan, flags.stage1)?;
    volumes::check(manifest, flags.stage1, flags.private_users, &files)?;
    check_programs(manifest, &plan, &files)?;
    Ok(label)
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
fn plan_of(manifest: &PodManifest, flags: &PodFlags) -> Result<Plan, pod::Error> {
    let layers = |_: &_| Layers { image: ImageSource::File(PathBuf::new()), writable: PathBuf::new() };
    let volumes = vec![OpenedVolume::Directory; pod::volumes::assign(manifest)?.volumes.len()];
    // Any will do.
    let range = UserRange { shift: COUNT, count: COUNT };
    let users = flags.private_users.then(|| PrivateUsers { range, host_network: flags.net() == Net::Host });
    let pod_root = PathBuf::new();
    let world = World {
        isolation: match flags.stage1 {
            Stage1::Fly => Isolation::Fly { pod_root, volumes },
            Stage1::Kvm | Stage1::Nspawn => Isolation::Namespaces { pod_root, volumes, users },
        },
        hostname: String::new(),
        interactive: flags.interactive,
        insecure: Default::default(),
        resolv_conf: None,
        layers: manifest.apps.iter().map(layers).collect(),
    };
    plan::compute(manifest, &world)
}
