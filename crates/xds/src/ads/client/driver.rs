//! Connects a [`Session`] to a server, again and again.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::backoff::Backoff;
use super::options::{Options, Service};
use super::session::Session;
use super::values::{Rejection, Request, Subscription, Ticket, Update, Variant};
use crate::ads::ResourceType;
use crate::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;

/// The first and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long an attempt to connect may take as a whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How many events may wait for the application before the server is made to wait.
const EVENTS: usize = 16;

/// What happens on the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stream is open (whether the server likes it shows with its first response).
    Connected,
    /// The server changed something. To be answered with [`Handle::outcome`].
    Update(Update),
    /// The stream ended or could not be opened. What was accepted stays in force.
    Disconnected {
        /// Why.
        reason: String,
        /// When the next attempt is.
        retry_in: Duration,
    },
}

enum Command {
    Set(ResourceType, Subscription),
    Subscribe(ResourceType, Vec<String>),
    Unsubscribe(ResourceType, Vec<String>),
    Outcome(Ticket, Vec<Rejection>),
}

/// Tells a running client what to do. When the last one is dropped, the client ends.
#[derive(Clone, Debug)]
pub struct Handle(UnboundedSender<Command>);

impl Handle {
    /// See [`Session::set_subscription`].
    pub fn set_subscription(&self, resource_type: ResourceType, wanted: Subscription) {
        self.tell(Command::Set(resource_type, wanted));
    }

    /// See [`Session::subscribe`].
    pub fn subscribe(&self, resource_type: ResourceType, names: Vec<String>) {
        self.tell(Command::Subscribe(resource_type, names));
    }

    /// See [`Session::unsubscribe`].
    pub fn unsubscribe(&self, resource_type: ResourceType, names: Vec<String>) {
        self.tell(Command::Unsubscribe(resource_type, names));
    }

    /// See [`Session::outcome`].
    pub fn outcome(&self, ticket: Ticket, rejections: Vec<Rejection>) {
        self.tell(Command::Outcome(ticket, rejections));
    }

    fn tell(&self, command: Command) {
        // A client that has ended (its events were dropped) needs no commands.
        let _ = self.0.send(command);
    }
}

/// A client that is not running yet.
pub struct Driver {
    options: Options,
    session: Session,
    commands: UnboundedReceiver<Command>,
    events: mpsc::Sender<Event>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Driver")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A client, how to talk to it, and what it tells. Spawn [`Driver::run`].
#[must_use]
pub fn start(options: Options) -> (Driver, Handle, mpsc::Receiver<Event>) {
    let (send, commands) = mpsc::unbounded_channel();
    let (events, receive) = mpsc::channel(EVENTS);
    let session = Session::new(options.variant, options.node.clone());
    (
        Driver {
            options,
            session,
            commands,
            events,
        },
        Handle(send),
        receive,
    )
}

/// Why a stream is over.
enum End {
    /// Nobody holds a [`Handle`], or nobody listens to the events.
    Done,
    /// To be tried again.
    Failed(String),
}

impl Driver {
    /// The session, to [`seed`](Session::seed) it before it runs.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Runs until all handles or the events are dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let end = self.stream(&mut backoff).await;
            self.session.disconnected();
            let End::Failed(reason) = end else { return };
            let retry_in = backoff.next(rand::random());
            if self
                .events
                .send(Event::Disconnected { reason, retry_in })
                .await
                .is_err()
            {
                return;
            }
            let wait = tokio::time::sleep(retry_in);
            if self.meanwhile(wait).await.is_none() {
                return;
            }
        }
    }

    /// One stream, from connecting to its end.
    async fn stream(&mut self, backoff: &mut Backoff) -> End {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, (self.options.channel)());
        let channel = match self.meanwhile(connecting).await {
            None => return End::Done,
            Some(Err(_)) => return End::Failed("the connection took too long".to_owned()),
            Some(Ok(Err(error))) => return End::Failed(chain(error.as_ref())),
            Some(Ok(Ok(channel))) => channel,
        };
        let metadata = match (self.options.metadata)() {
            Ok(metadata) => metadata,
            Err(error) => return End::Failed(chain(error.as_ref())),
        };
        self.session.connected();
        let (outgoing, opening) = self.open(channel, metadata);
        // Some servers answer with headers only when they have read a request: send it first.
        self.flush(&outgoing);
        let mut opening = opening;
        let mut incoming = loop {
            tokio::select! {
                opened = &mut opening => match opened {
                    Ok(incoming) => break incoming,
                    Err(status) => return End::Failed(describe(&status)),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, &outgoing),
                    None => return End::Done,
                },
            }
        };
        if self.events.send(Event::Connected).await.is_err() {
            return End::Done;
        }
        loop {
            let expiry = self
                .session
                .next_expiry()
                .map(tokio::time::Instant::from_std);
            let updates = tokio::select! {
                received = incoming.next(&mut self.session) => match received {
                    Ok(update) => {
                        backoff.reset();
                        vec![update]
                    }
                    Err(end) => return end,
                },
                command = self.commands.recv() => {
                    let Some(command) = command else { return End::Done };
                    self.obey(command, &outgoing);
                    continue;
                }
                () = tokio::time::sleep_until(expiry.unwrap_or_else(tokio::time::Instant::now)),
                    if expiry.is_some() => self.session.expire(Instant::now()),
            };
            for update in updates {
                if self.events.send(Event::Update(update)).await.is_err() {
                    return End::Done;
                }
            }
            self.flush(&outgoing);
        }
    }

    fn open(&self, channel: Channel, metadata: MetadataMap) -> (Outgoing, Opening) {
        let limit = self.options.max_response;
        let service = self.options.service;
        match self.options.variant {
            Variant::StateOfTheWorld => {
                let (send, requests) = mpsc::unbounded_channel();
                let request = with(metadata, UnboundedReceiverStream::new(requests));
                let opening = async move {
                    let response = match service {
                        Service::Aggregated => {
                            let client = AggregatedDiscoveryServiceClient::new(channel);
                            let mut client = client.max_decoding_message_size(limit);
                            client.stream_aggregated_resources(request).await
                        }
                        Service::Secrets => {
                            let client = SecretDiscoveryServiceClient::new(channel);
                            let mut client = client.max_decoding_message_size(limit);
                            client.stream_secrets(request).await
                        }
                    };
                    response
                        .map(Response::into_inner)
                        .map(Incoming::StateOfTheWorld)
                };
                (Outgoing::StateOfTheWorld(send), Box::pin(opening))
            }
            Variant::Delta => {
                let (send, requests) = mpsc::unbounded_channel();
                let request = with(metadata, UnboundedReceiverStream::new(requests));
                let opening = async move {
                    let response = match service {
                        Service::Aggregated => {
                            let client = AggregatedDiscoveryServiceClient::new(channel);
                            let mut client = client.max_decoding_message_size(limit);
                            client.delta_aggregated_resources(request).await
                        }
                        Service::Secrets => {
                            let client = SecretDiscoveryServiceClient::new(channel);
                            let mut client = client.max_decoding_message_size(limit);
                            client.delta_secrets(request).await
                        }
                    };
                    response.map(Response::into_inner).map(Incoming::Delta)
                };
                (Outgoing::Delta(send), Box::pin(opening))
            }
        }
    }

    /// Waits for `work` and obeys meanwhile; `None` when all handles are dropped.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                command = self.commands.recv() => self.apply(command?),
            }
        }
    }

    /// Obeys a command and all that came with it, and only then says so to the server.
    fn obey(&mut self, command: Command, outgoing: &Outgoing) {
        self.apply(command);
        while let Ok(command) = self.commands.try_recv() {
            self.apply(command);
        }
        self.flush(outgoing);
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Set(resource_type, wanted) => {
                self.session.set_subscription(resource_type, wanted);
            }
            Command::Subscribe(resource_type, names) => {
                self.session.subscribe(resource_type, names);
            }
            Command::Unsubscribe(resource_type, names) => {
                self.session.unsubscribe(resource_type, names);
            }
            Command::Outcome(ticket, rejections) => self.session.outcome(ticket, rejections),
        }
    }

    fn flush(&mut self, outgoing: &Outgoing) {
        while let Some(request) = self.session.next_request() {
            outgoing.send(request);
        }
    }
}

type Opening = BoxFuture<'static, Result<Incoming, Status>>;

enum Outgoing {
    StateOfTheWorld(UnboundedSender<DiscoveryRequest>),
    Delta(UnboundedSender<DeltaDiscoveryRequest>),
}

impl Outgoing {
    fn send(&self, request: Request) {
        // A stream that is gone is noticed by its reader, which knows why.
        let _ = match (self, request) {
            (Self::StateOfTheWorld(to), Request::StateOfTheWorld(request)) => {
                to.send(request).is_ok()
            }
            (Self::Delta(to), Request::Delta(request)) => to.send(request).is_ok(),
            _ => false,
        };
    }
}

enum Incoming {
    StateOfTheWorld(Streaming<DiscoveryResponse>),
    Delta(Streaming<DeltaDiscoveryResponse>),
}

impl Incoming {
    async fn next(&mut self, session: &mut Session) -> Result<Update, End> {
        loop {
            let update = match self {
                Self::StateOfTheWorld(stream) => {
                    session.on_response(received(stream.message().await)?, Instant::now())
                }
                Self::Delta(stream) => {
                    session.on_delta_response(received(stream.message().await)?, Instant::now())
                }
            };
            match update {
                Ok(update) => return Ok(update),
                Err(unknown) => tracing::warn!("{unknown}; it is ignored"),
            }
        }
    }
}

fn received<T>(message: Result<Option<T>, Status>) -> Result<T, End> {
    match message {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(End::Failed("the server ended the stream".to_owned())),
        Err(status) => Err(End::Failed(describe(&status))),
    }
}

fn with<S>(metadata: MetadataMap, stream: S) -> tonic::Request<S> {
    let mut request = tonic::Request::new(stream);
    *request.metadata_mut() = metadata;
    request
}

fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => format!(
            "{:?}: {}: {}",
            status.code(),
            status.message(),
            chain(source)
        ),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}
