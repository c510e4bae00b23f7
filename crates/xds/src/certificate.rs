//! The certificate signing service: a CSR in, a certificate chain out.
//!
//! It is `istio.v1.auth.IstioCertificateService` on the wire, so that either side works with
//! Istio's. The messages are declared by hand, as `envoy-types` does not have them.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Extensions, Request, Response, Status, async_trait};
use tonic_prost::ProstCodec;

use crate::pb::google::protobuf::Struct;

/// The name of the service.
const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
/// The path of its only method.
const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// The largest answer in bytes. A chain takes a few thousand.
const MAX_MESSAGE: usize = 1 << 20;
/// The largest request in bytes: it is read before its caller is known. A CSR takes about a
/// thousand.
const MAX_REQUEST: usize = 64 << 10;
/// How long a call may take, the request's arrival included.
const DEADLINE: Duration = Duration::from_secs(15);

/// A request for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The certificate signing request, in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// For how long the certificate is wanted, in seconds. The server may give less.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Facts for the server, in Istio such as `ClusterID`.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// Certificates in PEM, the new one first, the root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Asks the authority on `channel` for a certificate. `metadata` has the token.
///
/// # Errors
/// What the server or the connection says.
pub async fn create_certificate(
    channel: Channel,
    metadata: MetadataMap,
    request: CertificateRequest,
) -> Result<CertificateResponse, Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(request);
    *request.metadata_mut() = metadata;
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let path = http::uri::PathAndQuery::from_static(METHOD);
    client
        .unary(request, path, codec)
        .await
        .map(Response::into_inner)
}

/// Who signs.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// Signs for a caller who proves who it is by the token in `metadata` or by what `extensions`
    /// know of its connection. The identity comes from that proof, never from the CSR.
    ///
    /// # Errors
    /// What to tell a caller that gets no certificate.
    async fn create_certificate(
        &self,
        request: CertificateRequest,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<CertificateResponse, Status>;
}

/// The service in front of an [`Authority`], to be added to a tonic server.
pub struct CertificateService<A>(Arc<A>);

impl<A> CertificateService<A> {
    /// The service of this authority.
    #[must_use]
    pub fn new(authority: Arc<A>) -> Self {
        Self(authority)
    }
}

impl<A> Clone for CertificateService<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> fmt::Debug for CertificateService<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("CertificateService")
    }
}

impl<A> NamedService for CertificateService<A> {
    const NAME: &'static str = SERVICE;
}

impl<A: Authority> tonic::codegen::Service<http::Request<Body>> for CertificateService<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let authority = Arc::clone(&self.0);
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
            let answer = timeout(DEADLINE, grpc.unary(Method(authority), request)).await;
            let late = |_| Status::deadline_exceeded("the call took too long").into_http();
            Ok(answer.unwrap_or_else(late))
        })
    }
}

struct Method<A>(Arc<A>);

impl<A: Authority> UnaryService<CertificateRequest> for Method<A> {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let authority = Arc::clone(&self.0);
        Box::pin(async move {
            let (metadata, extensions, request) = request.into_parts();
            authority
                .create_certificate(request, &metadata, &extensions)
                .await
                .map(Response::new)
        })
    }
}
