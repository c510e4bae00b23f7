//! gRPC's health service, as a kubelet's probe asks it. Source: grpc/doc/health-checking.md.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Question {
    /// The service that is asked about; empty asks about the whole server.
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Answer {
    /// 1: serving, 2: not serving.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Says of the whole server that it serves, and of any service by name that it does not.
#[derive(Clone)]
pub(super) struct Health;

impl UnaryService<Question> for Health {
    type Response = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Status>> + Send>>;

    fn call(&mut self, request: Request<Question>) -> Self::Future {
        let status = if request.get_ref().service.is_empty() {
            1
        } else {
            2
        };
        Box::pin(async move { Ok(Response::new(Answer { status })) })
    }
}

impl NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl<B> tower::Service<http::Request<B>> for Health
where
    B: hyper::body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut server = Grpc::new(ProstCodec::<Answer, Question>::default());
            Ok(match request.uri().path() {
                "/grpc.health.v1.Health/Check" => server.unary(Self, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
