//! What rkt is answered at the socket, as upstream has it:
//!
//! | | |
//! |---|---|
//! | PUT `/pods/UUID?token=TOKEN` | registers a pod, whose manifest is the body; the answer tells the service's port |
//! | PUT `/pods/UUID/APP` | registers the image of an app of it, whose manifest is the body |
//! | DELETE `/pods/UUID` | unregisters the pod |

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use pod::types::AcName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::registry::{Document, Registry};
use crate::reply::Reply;

/// The largest manifest.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;

/// What the service tells whoever registers a pod. Ours: upstream has one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The port at which pods reach it.
    pub port: u16,
}

/// Carries a request out.
pub fn carry_out(
    registry: &mut Registry,
    service: Service,
    method: &Method,
    uri: &str,
    body: Bytes,
) -> Reply {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path: Vec<&str> = path.split('/').skip(1).collect();
    let ["pods", uuid, rest @ ..] = path.as_slice() else { return Reply::not_found("such path") };
    let Ok(uuid) = uuid.parse::<Uuid>() else { return bad("this is not a pod's UUID") };
    let result = match (method, rest) {
        (&Method::PUT, []) => register(registry, service, uuid, query, body),
        (&Method::PUT, [app]) => register_app(registry, uuid, app, body),
        (&Method::DELETE, []) => match registry.unregister(uuid) {
            Ok(true) => Ok(done()),
            Ok(false) => Ok(Reply::not_found("such pod")),
            Err(error) => Err(error),
        },
        _ => Ok(Reply::not_found("such path, or no such method of it")),
    };
    result.unwrap_or_else(|error| Reply::refusal(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)))
}

fn register(
    registry: &mut Registry,
    service: Service,
    uuid: Uuid,
    query: &str,
    body: Bytes,
) -> Result<Reply, crate::Error> {
    let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token");
    let Some(Ok(token)) = token.map(|(_, token)| token.parse()) else {
        return Ok(bad("a token of 32 hexadecimal digits is missing"));
    };
    let manifest = match Document::of_pod(body) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(bad(&chain(&error))),
    };
    registry.register(uuid, token, manifest)?;
    Ok(serde_json::to_vec(&service).map_or_else(|error| bad(&chain(&error)), |json| Reply::json(json.into())))
}

fn register_app(registry: &mut Registry, uuid: Uuid, app: &str, body: Bytes) -> Result<Reply, crate::Error> {
    let (app, manifest) = match (app.parse::<AcName>(), Document::of_image(body)) {
        (Ok(app), Ok(manifest)) => (app, manifest),
        (Err(error), _) | (_, Err(error)) => return Ok(bad(&chain(&error))),
    };
    match registry.register_app(uuid, app, manifest)? {
        true => Ok(done()),
        false => Ok(Reply::not_found("such pod")),
    }
}

fn done() -> Reply {
    Reply::text("")
}

fn bad(why: &str) -> Reply {
    Reply::refusal(StatusCode::BAD_REQUEST, why)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::{IMAGE, pod, token};

    #[test]
    fn a_pods_life() {
        let home = tempfile::tempdir().unwrap();
        let (mut registry, _) = Registry::open(home.path()).unwrap();
        let uuid = Uuid::from_u128(7);
        let mut put = |method: Method, uri: String, body: String| {
            let reply = carry_out(&mut registry, Service { port: 7 }, &method, &uri, body.into());
            (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).unwrap())
        };
        assert_eq!(put(Method::PUT, format!("/pods/{uuid}/web"), IMAGE.into()).0, 404);
        let registered = put(Method::PUT, format!("/pods/{uuid}?token={}", token(1)), pod());
        assert_eq!(registered, (200, r#"{"port":7}"#.to_owned()));
        assert_eq!(put(Method::PUT, format!("/pods/{uuid}/web"), IMAGE.into()).0, 200);
        for (method, uri, body) in [
            (Method::PUT, format!("/pods/{uuid}"), pod()),
            (Method::PUT, format!("/pods/{uuid}?token=1"), pod()),
            (Method::PUT, format!("/pods/7?token={}", token(1)), pod()),
            (Method::PUT, format!("/pods/{uuid}?token={}", token(1)), "{}".into()),
            (Method::PUT, format!("/pods/{uuid}/WEB"), IMAGE.into()),
            (Method::PUT, format!("/pods/{uuid}/web"), pod()),
        ] {
            assert_eq!(put(method, uri.clone(), body).0, 400, "{uri}");
        }
        for (method, uri) in [(Method::GET, format!("/pods/{uuid}")), (Method::PUT, "/".into())] {
            assert_eq!(put(method, uri.clone(), String::new()).0, 404, "{uri}");
        }
        assert_eq!(put(Method::DELETE, format!("/pods/{uuid}"), String::new()).0, 200);
        assert_eq!(put(Method::DELETE, format!("/pods/{uuid}"), String::new()).0, 404);
    }
}
