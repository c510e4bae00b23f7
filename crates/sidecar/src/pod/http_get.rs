//! One GET to the application.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::application::{HttpGet, Target};
use super::dial::Dialer;

/// How many redirects are followed, as the kubelet does.
const MAX_REDIRECTS: usize = 10;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// No connection.
    #[error("{0}")]
    Connect(io::Error),
    /// No TLS.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The settings of TLS do not work.
    #[error("TLS: {0}")]
    Settings(rustls::Error),
    /// No HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be made.
    #[error("the request: {0}")]
    Request(#[from] http::Error),
    /// A redirect to the same host leads to no end.
    #[error("stopped after {MAX_REDIRECTS} redirects")]
    Redirects,
}

/// An answer whose body can be read.
pub struct Answer {
    /// The answer.
    pub response: Response<Incoming>,
    /// Ends the connection when it is dropped.
    _connection: JoinSet<Result<(), hyper::Error>>,
}

/// Asks, and follows redirects that stay on the host, as the kubelet does; one that leads elsewhere is
/// the answer.
///
/// # Errors
/// [`GetError`]
pub async fn get(
    dialer: &Dialer,
    what: &HttpGet,
    user_agent: Option<&HeaderValue>,
) -> Result<Answer, GetError> {
    let headers = headers(what, user_agent);
    let mut target = what.target.clone();
    let (mut tls, mut path) = (what.tls, what.path.clone());
    for _ in 0..=MAX_REDIRECTS {
        let answer = once(dialer, &target, tls, &path, &headers).await?;
        let here = Place {
            host: &dialer.host(&target),
            port: target.port,
            tls,
            path: &path,
        };
        let Some(next) = redirect(&answer.response, &here) else {
            return Ok(answer);
        };
        (target.port, tls, path) = next;
    }
    Err(GetError::Redirects)
}

fn headers(what: &HttpGet, user_agent: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &what.headers {
        headers.append(name, value.clone());
    }
    let defaults = [
        (USER_AGENT, user_agent.cloned()),
        (ACCEPT, Some(HeaderValue::from_static("*/*"))),
    ];
    for (name, value) in defaults {
        if let (false, Some(value)) = (headers.contains_key(&name), value) {
            headers.insert(name, value);
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

async fn once(
    dialer: &Dialer,
    target: &Target,
    tls: bool,
    path: &PathAndQuery,
    headers: &HeaderMap,
) -> Result<Answer, GetError> {
    let host = dialer.host(target);
    let mut request = Request::get(path.as_str()).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(HOST) {
        let authority = match host.contains(':') {
            true => format!("[{host}]:{}", target.port),
            false => format!("{host}:{}", target.port),
        };
        let value = HeaderValue::try_from(authority).map_err(http::Error::from)?;
        request.headers_mut().insert(HOST, value);
    }
    let stream = dialer.connect(target).await.map_err(GetError::Connect)?;
    if !tls {
        return exchange(stream, request).await;
    }
    let name =
        ServerName::try_from(host).map_err(|error| GetError::Tls(io::Error::other(error)))?;
    let connector = TlsConnector::from(Arc::new(tls_config()?));
    let stream = connector.connect(name, stream).await;
    exchange(stream.map_err(GetError::Tls)?, request).await
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, GetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    Ok(Answer {
        response: sender.send_request(request).await?,
        _connection: tasks,
    })
}

/// Where an answer came from.
struct Place<'a> {
    host: &'a str,
    port: u16,
    tls: bool,
    path: &'a PathAndQuery,
}

/// Port, TLS and path of the next request; `None` where the answer is the last one.
fn redirect<B>(response: &Response<B>, here: &Place<'_>) -> Option<(u16, bool, PathAndQuery)> {
    let follows = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    if !follows || location.is_empty() {
        return None;
    }
    if let Some(rest) = location.strip_prefix('/')
        && !rest.starts_with('/')
    {
        return Some((here.port, here.tls, location.parse().ok()?));
    }
    let scheme = if here.tls { "https:" } else { "http:" };
    let uri = match location.starts_with("//") {
        true => format!("{scheme}{location}").parse::<Uri>(),
        false => location.parse(),
    };
    let uri = uri.ok()?;
    let Some(authority) = uri.authority().filter(|_| uri.scheme().is_some()) else {
        // Relative to the folder of the present path.
        let (folder, _) = here.path.path().rsplit_once('/').unwrap_or_default();
        return Some((
            here.port,
            here.tls,
            format!("{folder}/{location}").parse().ok()?,
        ));
    };
    let tls = uri.scheme_str() == Some("https");
    let host = authority.host().trim_matches(['[', ']']);
    let path = uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    (host == here.host).then_some((port, tls, path))
}

/// TLS to whoever answers, as the kubelet has it: who it is does not matter on the way to the own
/// application.
fn tls_config() -> Result<ClientConfig, GetError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions();
    Ok(builder
        .map_err(GetError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_that_stay_on_the_host_are_followed() {
        let path = PathAndQuery::from_static("/a/b?c");
        let here = Place {
            host: "10.0.0.1",
            port: 8080,
            tls: false,
            path: &path,
        };
        for (status, location, expected) in [
            (302, "/login?x=1", Some((8080, false, "/login?x=1"))),
            (301, "c", Some((8080, false, "/a/c"))),
            (307, "http://10.0.0.1:9/d", Some((9, false, "/d"))),
            (308, "https://10.0.0.1/", Some((443, true, "/"))),
            (302, "http://elsewhere/", None),
            (302, "//elsewhere/", None),
            (304, "/login", None),
            (200, "/login", None),
        ] {
            let response = Response::builder()
                .status(status)
                .header(LOCATION, location);
            let next = redirect(&response.body(()).unwrap(), &here);
            let next = next
                .as_ref()
                .map(|(port, tls, path)| (*port, *tls, path.as_str()));
            assert_eq!(next, expected, "{status} {location}");
        }
    }
}
