//! Where resources come from: servers that the bootstrap's clusters name, files, and the built-in
//! secrets.

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{self, Rejection, Subscription, Ticket};

use super::builtin::Builtin;
use super::dial::{DialError, Dialer};
use super::files::{self, FileWatcher};
use super::local::{self, Events};
use super::references::OriginKey;
use crate::config::source::Origin;

/// All sources.
pub struct Sources {
    /// The servers.
    pub dialer: Dialer,
    /// The built-in secrets, if there are any.
    pub builtin: Option<Builtin>,
    /// Watches all files.
    pub watcher: FileWatcher,
}

/// A source that was opened: tells it what is wanted. Dropping it closes the source.
pub enum Handle {
    /// A stream to a server.
    Stream(client::Handle),
    /// A source in this process.
    Local(local::Handle),
}

impl Handle {
    /// Sets what is wanted of one kind.
    pub fn set_subscription(&self, kind: ResourceType, wanted: Subscription) {
        match self {
            Handle::Stream(handle) => handle.set_subscription(kind, wanted),
            Handle::Local(handle) => handle.set_subscription(kind, wanted),
        }
    }

    /// Answers an update that has a ticket.
    pub fn outcome(&self, ticket: Ticket, rejections: Vec<Rejection>) {
        match self {
            Handle::Stream(handle) => handle.outcome(ticket, rejections),
            // Nobody is there to be told: what is refused was logged.
            Handle::Local(_) => {}
        }
    }
}

impl Sources {
    /// Opens the source `origin`, whose updates go to `events` under `key`. A server is told the names
    /// and versions that are `known` already. To be called on a runtime.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn open(
        &self,
        key: OriginKey,
        origin: &Origin,
        events: Events,
        known: &[(ResourceType, String, String)],
    ) -> Result<Handle, DialError> {
        if let Origin::File {
            path,
            watched_directory,
        } = origin
        {
            let directory = watched_directory.as_deref();
            let handle = files::attach(&self.watcher, key, path, directory, events);
            return Ok(Handle::Local(handle));
        }
        if let Some(builtin) = self
            .builtin
            .as_ref()
            .filter(|_| self.dialer.is_builtin(origin))
        {
            return Ok(Handle::Local(builtin.attach(key, events)));
        }
        let (mut driver, handle, mut received) = client::start(self.dialer.options(origin)?);
        for (kind, name, version) in known {
            driver.session_mut().seed(*kind, name, version.clone());
        }
        tokio::spawn(driver.run());
        tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                if events.send((key, event)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Handle::Stream(handle))
    }
}

/// Says why an origin cannot be asked, for the references that name it.
pub type Check = Box<dyn Fn(&Origin) -> Result<(), DialError>>;
