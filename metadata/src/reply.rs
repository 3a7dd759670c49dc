//! What is answered to a request.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// The media type of a text (appc spec, "Pod Metadata").
const TEXT: &str = "text/plain; charset=us-ascii";
/// The media type of all else.
const JSON: &str = "application/json";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of HTTP.
    pub status: StatusCode,
    /// The body's media type.
    pub media_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, media_type: TEXT, body: Bytes::from(text.into()) }
    }

    /// A document in JSON.
    pub fn json(json: Bytes) -> Self {
        Self { status: StatusCode::OK, media_type: JSON, body: json }
    }

    /// What is wrong with a request.
    pub fn refusal(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, ..Self::text(why.into() + "\n") }
    }

    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::refusal(StatusCode::NOT_FOUND, format!("there is no {what}"))
    }
}

impl From<Reply> for Response<Full<Bytes>> {
    fn from(reply: Reply) -> Self {
        let mut response = Self::new(Full::new(reply.body));
        *response.status_mut() = reply.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply.media_type));
        response
    }
}
