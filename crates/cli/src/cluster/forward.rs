//! HTTP to a port of a pod, through the API server and the kubelet.
//!
//! A forwarded port reaches what listens on the pod's loopback only, and needs no way from the API
//! server to the pod's network, which firewalls and NetworkPolicies often close.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Cluster, describe, is_forbidden};

/// How long a pod may take for one page.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest page that is read: the dump of a proxy with ten thousand services is less.
const MAX_PAGE: usize = 256 << 20;

/// Why a page of a pod could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// The caller may not.
    #[error("you may not forward ports of {pod} (create and get pods/portforward)")]
    Forbidden {
        /// The pod.
        pod: String,
    },
    /// The API server or the kubelet refused.
    #[error("no port-forward to {pod}: {}", describe(.source))]
    Refused {
        /// The pod.
        pod: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Nothing listens, or it went away meanwhile.
    #[error("port {port} of {pod}: {reason}")]
    Broken {
        /// The pod.
        pod: String,
        /// Which port.
        port: u16,
        /// What happened.
        reason: String,
    },
    /// It took too long.
    #[error("port {port} of {pod} did not answer within {} s", DEADLINE.as_secs())]
    Deadline {
        /// The pod.
        pod: String,
        /// Which port.
        port: u16,
    },
    /// It answered with an error.
    #[error("{pod} answered {path} with {status}: {page}")]
    Status {
        /// The pod.
        pod: String,
        /// What was asked for.
        path: String,
        /// The answer.
        status: StatusCode,
        /// The beginning of its text.
        page: String,
    },
    /// The page is not what it should be.
    #[error("{pod} answered {path} with something else: {source}")]
    Page {
        /// The pod.
        pod: String,
        /// What was asked for.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl ForwardError {
    /// Whether the caller may not.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }
}

/// Asks pods.
#[derive(Clone)]
pub(crate) struct Forwarder {
    cluster: Cluster,
}

impl Forwarder {
    /// Asks pods of this cluster.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
        }
    }

    /// A page of JSON.
    ///
    /// # Errors
    /// It cannot be had, or is not of this type.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<T, ForwardError> {
        let page = self.get(namespace, pod, port, path).await?;
        serde_json::from_slice(&page).map_err(|source| ForwardError::Page {
            pod: format!("{namespace}/{pod}"),
            path: path.to_owned(),
            source,
        })
    }

    /// A page.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) async fn get(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<Bytes, ForwardError> {
        let late = |_| ForwardError::Deadline {
            pod: format!("{namespace}/{pod}"),
            port,
        };
        timeout(DEADLINE, self.exchange(namespace, pod, port, path))
            .await
            .map_err(late)?
    }

    async fn exchange(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<Bytes, ForwardError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client().clone(), namespace);
        let shown = format!("{namespace}/{pod}");
        let forwarded = pods.portforward(pod, &[port]).await;
        let mut forwarded = forwarded.map_err(|source| match is_forbidden(&source) {
            true => ForwardError::Forbidden { pod: shown.clone() },
            false => ForwardError::Refused {
                pod: shown.clone(),
                source: Box::new(source),
            },
        })?;
        let broken = |reason: String| ForwardError::Broken {
            pod: shown.clone(),
            port,
            reason,
        };
        let (Some(stream), Some(failed)) =
            (forwarded.take_stream(port), forwarded.take_error(port))
        else {
            return Err(broken("the forward has no stream".to_owned()));
        };
        let asked = ask(stream, path);
        let answer = match asked.await {
            Ok(answer) => answer,
            // The kubelet tells why, on a channel beside the stream that it closed.
            Err(error) => {
                let told = timeout(Duration::from_millis(500), failed).await;
                let told = told.ok().flatten();
                return Err(broken(told.map_or(error, |told| told.trim().to_owned())));
            }
        };
        forwarded.abort();
        let (status, page) = answer;
        if status != StatusCode::OK {
            let page: String = String::from_utf8_lossy(&page).chars().take(200).collect();
            return Err(ForwardError::Status {
                pod: shown,
                path: path.to_owned(),
                status,
                page: page.trim().to_owned(),
            });
        }
        Ok(page)
    }
}

async fn ask(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let words = |error: &dyn std::error::Error| {
        error
            .source()
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    };
    let handshake = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    let driven = tokio::spawn(connection);
    let request = Request::get(path)
        .header(http::header::HOST, "localhost")
        .header(http::header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| words(&error))?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| words(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_PAGE).collect().await;
    let page = body.map_err(|error| error.to_string())?.to_bytes();
    driven.abort();
    Ok((status, page))
}
