//! A pod manifest that the user gives (`--pod-manifest`), completed from its images.

use std::fs;
use std::path::Path;

use pod::image_manifest::ImageManifest;
use pod::pod_manifest::{PodManifest, RuntimeApp};

use super::Error;
use super::manifest::add_annotations_of;
use crate::image::ARCHITECTURE;

/// Reads the manifest. It is to be [completed](complete) before it means anything.
pub fn read(path: &Path) -> Result<PodManifest, Error> {
    let json = fs::read(path).map_err(Error::io("read", path))?;
    PodManifest::parse_incomplete(&json)
        .map_err(|source| Error::PodManifestFile { path: path.to_owned(), source })
}

/// Fills in what the manifest leaves to its images, which are in the order of its apps, and checks it.
pub fn complete<'a>(
    manifest: &mut PodManifest,
    images: impl IntoIterator<Item = &'a ImageManifest>,
) -> Result<(), Error> {
    for (app, image) in manifest.apps.iter_mut().zip(images) {
        complete_app(app, image)?;
    }
    Ok(manifest.check()?)
}

fn complete_app(runtime: &mut RuntimeApp, image: &ImageManifest) -> Result<(), Error> {
    image.check_platform(ARCHITECTURE)?;
    let app = runtime.app.take().or_else(|| image.app.clone());
    if app.as_ref().is_none_or(|app| app.exec.is_empty()) {
        return Err(Error::App {
            app: runtime.name.to_string(),
            image: runtime.image.id.to_string(),
            what: match app {
                Some(_) => "its \"exec\" is empty",
                None => "neither the pod manifest nor the image has an app section",
            }
            .into(),
        });
    }
    runtime.app = app;
    add_annotations_of(image, &mut runtime.annotations);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a",
        "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}],
        "app":{"exec":["/of-image"],"user":"0","group":"0","ports":[{"name":"web","protocol":"tcp","port":80}]},
        "annotations":[{"name":"rkt/app/kill-signal","value":"SIGQUIT"},{"name":"homepage","value":"http://x"}]}"#;

    fn completed(pod: &str, image: &str) -> Result<PodManifest, Error> {
        let id = format!("sha512-{}", "0".repeat(64));
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11",
            "apps":[{{"name":"a","image":{{"id":"{id}"}}{pod}}}],"ports":[{{"name":"web","hostPort":8080}}]}}"#
        );
        let mut manifest = PodManifest::parse_incomplete(json.as_bytes()).unwrap();
        let image = ImageManifest::parse(image.as_bytes()).unwrap();
        complete(&mut manifest, [&image])?;
        Ok(manifest)
    }

    #[test]
    fn what_is_left_out_is_the_images() {
        let app = &completed("", IMAGE).unwrap().apps[0];
        assert_eq!(app.app.as_ref().unwrap().exec, ["/of-image"]);
        let annotations: Vec<_> = app.annotations.iter().map(|a| a.value.as_str()).collect();
        assert_eq!(annotations, ["SIGQUIT"]);
        let said = r#","app":{"exec":["/said"],"user":"0","group":"0",
            "ports":[{"name":"web","protocol":"tcp","port":81}]},
            "annotations":[{"name":"rkt/app/kill-signal","value":"SIGHUP"}]"#;
        let app = &completed(said, IMAGE).unwrap().apps[0];
        assert_eq!(app.app.as_ref().unwrap().exec, ["/said"]);
        assert_eq!((app.annotations.len(), app.annotations[0].value.as_str()), (1, "SIGHUP"));
    }

    #[test]
    fn what_nobody_says() {
        let bare = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a",
            "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]}"#;
        let failure = |pod, image: &str| completed(pod, image).unwrap_err().to_string();
        assert!(failure("", bare).contains("app section"));
        assert!(failure("", &IMAGE.replace(r#"["/of-image"]"#, "[]")).contains("\"exec\" is empty"));
        let no_port = r#","app":{"exec":["/x"],"user":"0","group":"0"}"#;
        assert!(matches!(completed(no_port, IMAGE), Err(Error::Manifest(_))));
        let elsewhere = IMAGE.replace("amd64", "aarch64");
        assert!(matches!(completed("", &elsewhere), Err(Error::Manifest(_))));
    }
}
