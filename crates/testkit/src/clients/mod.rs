//! Clients that send exact bytes and show exactly what came back.

pub mod grpc;
pub mod http1;
pub mod http2;
