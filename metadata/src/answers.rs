//! What pods are answered (appc spec, "App Container Metadata Service"). Below `/TOKEN/acMetadata/v1`:
//!
//! | | |
//! |---|---|
//! | GET `/pod/annotations`, `/pod/annotations/NAME` | the pod's annotations, or the value of one |
//! | GET `/pod/manifest` | its manifest |
//! | GET `/pod/uuid` | its UUID |
//! | GET `/apps/APP/annotations`, `/apps/APP/annotations/NAME` | those of the app, which win over its image's |
//! | GET `/apps/APP/image/manifest`, `/apps/APP/image/id` | the image's manifest, and its ID |
//! | POST `/pod/hmac/sign` | form `content`: its signature |
//! | POST `/pod/hmac/verify` | form `content`, `uuid`, `signature`: 200 if it is that pod's, else 403 |
//!
//! The values of single annotations are upstream's addition.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use pod::image_manifest::NameValue;
use pod::types::AcName;
use uuid::Uuid;

use crate::identity::Identity;
use crate::registry::{Registered, Registry};
use crate::reply::Reply;

/// A request of a pod's.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The path of its URL.
    pub path: &'a str,
    /// What follows a question mark.
    pub query: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// Answers it.
pub fn answer(registry: &Registry, identity: &Identity, request: Request<'_>) -> Reply {
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    let [token, "acMetadata", "v1", rest @ ..] = path.as_slice() else {
        return Reply::not_found("such path");
    };
    let pod = token.parse().ok().and_then(|token| registry.by_token(&token));
    let Some(pod) = pod else {
        return Reply::refusal(StatusCode::UNAUTHORIZED, "this is the token of no pod");
    };
    // As upstream, with a slash at the end and without.
    let rest = rest.strip_suffix(&[""]).unwrap_or(rest);
    let route = || match rest {
        ["pod", "hmac", "sign"] => (Method::POST, sign(pod, identity, request)),
        ["pod", "hmac", "verify"] => (Method::POST, verify(identity, request)),
        ["pod", rest @ ..] => (Method::GET, of_pod(pod, rest)),
        ["apps", app, rest @ ..] => (Method::GET, of_app(pod, app, rest)),
        _ => (Method::GET, Reply::not_found("such path")),
    };
    let (method, reply) = route();
    match *request.method == method || reply.status == StatusCode::NOT_FOUND {
        true => reply,
        false => Reply::refusal(StatusCode::METHOD_NOT_ALLOWED, format!("use {method}")),
    }
}

fn of_pod(pod: &Registered, path: &[&str]) -> Reply {
    match path {
        ["annotations", name @ ..] => annotations(&pod.manifest.content.annotations, name),
        ["manifest"] => Reply::json(pod.manifest.json.clone()),
        ["uuid"] => Reply::text(pod.uuid.to_string()),
        _ => Reply::not_found("such path"),
    }
}

fn of_app(pod: &Registered, name: &str, path: &[&str]) -> Reply {
    let name = name.parse::<AcName>().ok();
    let app = pod.manifest.content.apps.iter().find(|app| Some(&app.name) == name.as_ref());
    let image = name.as_ref().and_then(|name| pod.images.get(name));
    let (Some(app), Some(image)) = (app, image) else { return Reply::not_found("such app") };
    match path {
        ["annotations", name @ ..] => {
            annotations(&merged(&image.content.annotations, &app.annotations), name)
        }
        ["image", "manifest"] => Reply::json(image.json.clone()),
        ["image", "id"] => Reply::text(app.image.id.to_string()),
        _ => Reply::not_found("such path"),
    }
}

/// Those of the image, with what the app's own say instead and beside.
fn merged(image: &[NameValue], app: &[NameValue]) -> Vec<NameValue> {
    let of_image = image.iter().filter(|of_image| !app.iter().any(|own| own.name == of_image.name));
    of_image.chain(app).cloned().collect()
}

/// All, or the value of the one whose name this is: it may have slashes.
fn annotations(annotations: &[NameValue], name: &[&str]) -> Reply {
    if name.is_empty() {
        return match serde_json::to_vec(annotations) {
            Ok(json) => Reply::json(json.into()),
            Err(error) => Reply::refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
    }
    let name = name.join("/");
    match annotations.iter().find(|annotation| annotation.name.as_str() == name) {
        Some(annotation) => Reply::text(annotation.value.clone()),
        None => Reply::not_found("such annotation"),
    }
}

fn sign(pod: &Registered, identity: &Identity, request: Request<'_>) -> Reply {
    match field(request, "content") {
        Some(content) => Reply::text(identity.sign(pod.uuid, content.as_bytes())),
        None => Reply::refusal(StatusCode::BAD_REQUEST, "the form has no content"),
    }
}

fn verify(identity: &Identity, request: Request<'_>) -> Reply {
    let pod = field(request, "uuid").and_then(|text| text.parse::<Uuid>().ok());
    let signature = field(request, "signature").and_then(|text| STANDARD.decode(text).ok());
    let (Some(content), Some(pod), Some(signature)) = (field(request, "content"), pod, signature) else {
        let why = "the form has no content, no uuid that is one, or no signature in base64";
        return Reply::refusal(StatusCode::BAD_REQUEST, why);
    };
    match identity.verify(pod, content.as_bytes(), &signature) {
        true => Reply { body: Bytes::new(), ..Reply::text("") },
        false => Reply::refusal(StatusCode::FORBIDDEN, "the signature is not the pod's for this content"),
    }
}

/// A field of the form, or, as upstream takes it, of the query; none is empty.
fn field(request: Request<'_>, name: &str) -> Option<String> {
    let body = form_urlencoded::parse(request.body);
    let query = form_urlencoded::parse(request.query.as_bytes());
    let found = body.chain(query).find(|(found, _)| found == name);
    found.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::{IMAGE, pod, registry, token};

    struct World {
        _home: tempfile::TempDir,
        registry: Registry,
        identity: Identity,
    }

    impl World {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let identity = Identity::open(&home.path().join("key")).unwrap();
            Self { registry: registry(&home.path().join("pods")), identity, _home: home }
        }

        fn ask(&self, method: &Method, path: &str, body: &str) -> (u16, String, &'static str) {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let path = format!("/{}/acMetadata/v1{path}", token(1));
            let request = Request { method, path: &path, query, body: body.as_bytes() };
            let reply = answer(&self.registry, &self.identity, request);
            let text = String::from_utf8(reply.body.to_vec()).unwrap();
            (reply.status.as_u16(), text, reply.media_type)
        }

        fn get(&self, path: &str) -> (u16, String, &'static str) {
            self.ask(&Method::GET, path, "")
        }
    }

    #[test]
    fn every_route() {
        let world = World::new();
        let json = |text: &str| (200, text.to_owned(), "application/json");
        let text = |text: &str| (200, text.to_owned(), "text/plain; charset=us-ascii");
        let own = r#"[{"name":"example.com/ip","value":"192.0.2.7"}]"#;
        assert_eq!(world.get("/pod/annotations"), json(own));
        assert_eq!(world.get("/pod/annotations/"), json(own));
        assert_eq!(world.get("/pod/annotations/example.com/ip"), text("192.0.2.7"));
        assert_eq!(world.get("/pod/manifest"), json(&pod()));
        assert_eq!(world.get("/pod/uuid"), text("00000000-0000-0000-0000-000000000001"));
        let merged = r#"[{"name":"size","value":"7"},{"name":"color","value":"red"}]"#;
        assert_eq!(world.get("/apps/web/annotations"), json(merged));
        assert_eq!(world.get("/apps/web/annotations/color"), text("red"));
        assert_eq!(world.get("/apps/web/annotations/size"), text("7"));
        assert_eq!(world.get("/apps/web/image/manifest"), json(IMAGE));
        assert_eq!(world.get("/apps/web/image/id"), text(&format!("sha512-{}", "0".repeat(64))));
    }

    #[test]
    fn what_is_not_there() {
        let world = World::new();
        for path in [
            "",
            "/",
            "/pod",
            "/pod/x",
            "/pod/uuid/x",
            "/pod/annotations/x",
            "/apps",
            "/apps/web",
            "/apps/db/image/id",
            "/apps/../image/id",
            "/apps/web/image",
            "/apps/web/annotations/x",
            "/pod/hmac",
        ] {
            assert_eq!(world.get(path).0, 404, "{path}");
        }
        assert_eq!(world.get("/pod/hmac/sign").0, 405);
        assert_eq!(world.ask(&Method::POST, "/pod/uuid", "").0, 405);
        for token in [token(2).to_string(), "x".into(), String::new()] {
            let path = format!("/{token}/acMetadata/v1/pod/uuid");
            let request = Request { method: &Method::GET, path: &path, query: "", body: b"" };
            let reply = answer(&world.registry, &world.identity, request);
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }

    #[test]
    fn signatures() {
        let world = World::new();
        let post = |path: &str, body: &str| world.ask(&Method::POST, path, body);
        let (status, signature, media_type) = post("/pod/hmac/sign", "content=a%26b+c");
        assert_eq!((status, media_type), (200, "text/plain; charset=us-ascii"));
        assert_eq!(signature, world.identity.sign(Uuid::from_u128(1), b"a&b c"));
        let signature: String = form_urlencoded::byte_serialize(signature.as_bytes()).collect();
        let verify = |content: &str, uuid: u128, signature: &str| {
            let form = format!("content={content}&uuid={}&signature={signature}", Uuid::from_u128(uuid));
            post("/pod/hmac/verify", &form).0
        };
        assert_eq!(verify("a%26b+c", 1, &signature), 200);
        assert_eq!(verify("a%26b", 1, &signature), 403);
        assert_eq!(verify("a%26b+c", 2, &signature), 403);
        assert_eq!(verify("a%26b+c", 1, "AAAA"), 403);
        assert_eq!(verify("a%26b+c", 1, "%"), 400);
        assert_eq!(post("/pod/hmac/sign", "").0, 400);
        assert_eq!(post("/pod/hmac/verify", "content=a&uuid=x&signature=AAAA").0, 400);
        assert_eq!(post("/pod/hmac/sign?content=a", "").0, 200);
    }
}
