//! The service: one thread that answers rkt at a socket, and pods at a port.
//!
//! Pods are hostile. A connection is for one request; that has little room and little time; and no pod has so many connections
//! that others get none.

mod listen;
mod seats;

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use self::seats::Seats;
use crate::answers;
use crate::error::Error;
use crate::identity::Identity;
use crate::registration::{self, MAX_MANIFEST_BYTES, Service};
use crate::registry::Registry;
use crate::reply::Reply;
use crate::{Places, registry};

/// The largest body of a pod's request: what is to be signed is mostly a digest.
const MAX_BODY_BYTES: usize = 64 << 10;
/// The largest head of a request, and the most of its fields.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_FIELDS: usize = 64;
/// How long a head may take, and how long a request with its answer.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(15);
/// How many connections of pods there are, and how many of one address.
const MAX_CONNECTIONS: usize = 256;
const MAX_OF_PEER: usize = 16;
/// How many of rkt's. Only root makes them.
const MAX_REGISTRATIONS: usize = 64;
/// How long nothing is accepted after that has failed, for want of descriptors for instance.
const PAUSE: Duration = Duration::from_millis(50);

struct State {
    registry: RefCell<Registry>,
    identity: Identity,
    service: Service,
}

/// Runs the service until a signal ends it. Once it is reached, `tell` is called with its port and with files of pods that
/// cannot be understood.
pub fn run(places: &Places, port: u16, tell: impl FnOnce(u16, &[std::path::PathBuf])) -> Result<(), Error> {
    let directory = places.state();
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(places.directory());
    made.map_err(Error::io("make", places.directory()))?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(Error::io("make", &directory))?;
    let _lock = lock(&directory)?;
    let (registry, damaged) = Registry::open(&places.pods())?;
    let identity = Identity::open(&directory.join("hmac-key"))?;
    let to_pods = listen::to_pods(port)?;
    let to_rkt = listen::to_rkt(&places.socket())?;
    let port = to_pods.local_addr().map_err(|error| Error::System("find the port", error))?.port();
    let service = Service { port };
    let state = Rc::new(State { registry: RefCell::new(registry), identity, service });

    let failed = |error| Error::System("run the service", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let serving = async {
        let (to_pods, to_rkt) = (TcpListener::from_std(to_pods)?, UnixListener::from_std(to_rkt)?);
        let end = end()?;
        spawn_local(serve_pods(to_pods, Rc::clone(&state)));
        spawn_local(serve_rkt(to_rkt, Rc::clone(&state)));
        tell(port, &damaged);
        end.await;
        Ok(())
    };
    let result = LocalSet::new().block_on(&runtime, serving);
    let socket = places.socket();
    fs::remove_file(&socket).map_err(Error::io("remove", &socket))?;
    result.map_err(failed)
}

/// Locks the service's directory for as long as the result lives.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let mut options = File::options();
    let file =
        options.write(true).create(true).truncate(false).open(&path).map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Running(path)),
        Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

/// Comes with the signal that ends the service.
fn end() -> io::Result<impl Future<Output = ()>> {
    let mut signals = [SignalKind::terminate(), SignalKind::interrupt()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    Ok(poll_fn(move |context| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    }))
}

async fn serve_pods(listener: TcpListener, state: Rc<State>) {
    let seats = Seats::new(MAX_CONNECTIONS, MAX_OF_PEER);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        // Who has too many is not even told: that would take a connection.
        let Some(seat) = seats.take(peer.ip()) else { continue };
        let state = Rc::clone(&state);
        spawn_local(async move {
            serve(stream, MAX_BODY_BYTES, |request, body| {
                let uri = request.uri();
                let request = answers::Request {
                    method: request.method(),
                    path: uri.path(),
                    query: uri.query().unwrap_or_default(),
                    body: &body,
                };
                answers::answer(&state.registry.borrow(), &state.identity, request)
            })
            .await;
            drop(seat);
        });
    }
}

async fn serve_rkt(listener: UnixListener, state: Rc<State>) {
    let seats = Seats::new(MAX_REGISTRATIONS, MAX_REGISTRATIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
            continue;
        }
        let Some(seat) = seats.take(IpAddr::from([0; 4])) else { continue };
        let state = Rc::clone(&state);
        spawn_local(async move {
            serve(stream, MAX_MANIFEST_BYTES, |request, body| {
                let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str());
                let mut registry = state.registry.borrow_mut();
                registration::carry_out(&mut registry, state.service, request.method(), uri, body)
            })
            .await;
            drop(seat);
        });
    }
}

/// Serves the one request of a connection.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    max_body_bytes: usize,
    answer: impl Fn(&Request<()>, Bytes) -> Reply,
) {
    let answer = &answer;
    let service = service_fn(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let reply = match Limited::new(body, max_body_bytes).collect().await {
            Ok(body) => answer(&Request::from_parts(head, ()), body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let why = format!("more than {max_body_bytes} bytes");
                Reply::refusal(StatusCode::PAYLOAD_TOO_LARGE, why)
            }
            Err(_) => Reply::refusal(StatusCode::BAD_REQUEST, "the body is not whole"),
        };
        Ok::<Response<Full<Bytes>>, Infallible>(reply.into())
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).keep_alive(false);
    // Who has asked may say so by the end of what he says.
    builder.half_close(true).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_FIELDS);
    let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Whoever is cut off, or says what is no HTTP, is none of ours.
    let _ = timeout(PATIENCE, connection).await;
}

impl Places {
    /// The directory with the files of pods.
    pub(crate) fn pods(&self) -> std::path::PathBuf {
        self.state().join("pods")
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    /// Forgets a pod of a service that does not run.
    pub(crate) fn forget(&self, pod: uuid::Uuid) -> Result<(), Error> {
        registry::remove(&self.pods(), pod)
    }
}
