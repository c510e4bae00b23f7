//! Performs the application's own probes: what the kubelet would ask, asked from within the pod.

use std::io;
use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;
use outrider_xds::ads::client::channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::application::{Action, Probe, Target};
use super::dial::Dialer;
use super::http_get::{self, GetError};

/// Why a probe has failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The application answered with a status that is none of 200 to 399.
    #[error("the application answered {0}")]
    Status(u16),
    /// There was no answer to a GET.
    #[error(transparent)]
    Get(#[from] GetError),
    /// No connection.
    #[error("{0}")]
    Connect(io::Error),
    /// No gRPC.
    #[error("gRPC: {0}")]
    Channel(String),
    /// The health service answered with an error.
    #[error("gRPC: {:?}: {}", .0.code(), .0.message())]
    Grpc(Box<Status>),
    /// The health service says that the service is not serving.
    #[error("gRPC: the service is {0}")]
    NotServing(&'static str),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The method of `grpc.health.v1.Health`.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `ServingStatus.SERVING`
const SERVING: i32 = 1;

/// Performs a probe within its timeout. `user_agent` is the kubelet's.
///
/// # Errors
/// [`ProbeError`]: the probe has failed.
pub async fn perform(
    probe: &Probe,
    dialer: &Dialer,
    user_agent: Option<&HeaderValue>,
) -> Result<(), ProbeError> {
    let work = async {
        match &probe.action {
            Action::Http(get) => {
                let answer = http_get::get(dialer, get, user_agent).await?;
                match answer.response.status().as_u16() {
                    200..=399 => Ok(()),
                    other => Err(ProbeError::Status(other)),
                }
            }
            Action::Tcp(target) => {
                let connected = dialer.connect(target).await;
                connected.map(drop).map_err(ProbeError::Connect)
            }
            Action::Grpc { port, service } => check(dialer, *port, service).await,
        }
    };
    let timeout = probe.timeout;
    let done = tokio::time::timeout(timeout, work).await;
    done.unwrap_or(Err(ProbeError::Timeout(timeout)))
}

async fn check(dialer: &Dialer, port: u16, service: &str) -> Result<(), ProbeError> {
    let target = Target { host: None, port };
    let authority = match dialer.host(&target) {
        host if host.contains(':') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    };
    let dialer = dialer.clone();
    let connect = move || {
        let (dialer, target) = (dialer.clone(), target.clone());
        async move { dialer.connect(&target).await }
    };
    let channel = channel::over(&authority, connect).await;
    let channel = channel.map_err(|error| ProbeError::Channel(describe(error.as_ref())))?;
    let mut client = tonic::client::Grpc::new(channel);
    let ready = client.ready().await;
    ready.map_err(|error| ProbeError::Channel(error.to_string()))?;
    let request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client
        .unary(request, PathAndQuery::from_static(CHECK), codec)
        .await;
    let answer = answer.map_err(|status| ProbeError::Grpc(Box::new(status)))?;
    match answer.into_inner().status {
        SERVING => Ok(()),
        0 => Err(ProbeError::NotServing("UNKNOWN")),
        2 => Err(ProbeError::NotServing("NOT_SERVING")),
        3 => Err(ProbeError::NotServing("SERVICE_UNKNOWN")),
        _ => Err(ProbeError::NotServing("in a state of no known name")),
    }
}

/// The innermost cause: what is around it says only that the transport failed.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
