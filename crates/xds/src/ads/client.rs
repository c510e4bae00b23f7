//! The client of one discovery stream.

mod backoff;
pub mod channel;
mod driver;
mod held;
mod options;
mod receive;
mod session;
#[cfg(test)]
mod tests;
mod values;

pub use backoff::Backoff;
pub use driver::{Driver, Event, Handle, start};
pub use options::{ChannelFactory, ConnectError, MetadataSource, Options, Service, bearer};
pub use session::Session;
pub use values::{
    Rejection, Request, Resource, Subscription, Ticket, UnknownType, Update, Variant,
};
