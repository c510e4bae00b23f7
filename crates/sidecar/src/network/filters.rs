//! The filters before a chain's terminal one: what they do with a new connection.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::filter_state::{DYNAMIC_HOST, DYNAMIC_PORT, TCP_CLUSTER, Value};
use super::{connection_limit, direct_response, local_ratelimit, rbac, tcp_proxy};
use crate::config::listener::NetworkFilter;
use crate::config::network::{ConnectionFilter, FilterStateValue};
use crate::listener::connection::Connection;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::Record;
use crate::tls::stream::Stream;

/// What counts an admitted connection: keep it until the connection ends.
#[derive(Default)]
pub struct Admission {
    _permits: Vec<connection_limit::Permit>,
}

/// A filter's decision to end a connection.
#[derive(Debug)]
pub struct Refusal {
    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%`
    pub reason: &'static str,
    /// `%RESPONSE_FLAGS%`
    pub flags: Flags,
    /// How long it is held before it is closed, without a byte read.
    pub delay: Option<Duration>,
    /// Whether what the client says is read until it ends, for a moment: it then gets the end of the
    /// connection and not a reset.
    pub lingers: bool,
}

/// Runs the filters on a new connection, in order.
///
/// # Errors
/// The first filter's that does not let it through.
pub async fn admit(worker: &Rc<Worker>, connection: &Connection) -> Result<Admission, Refusal> {
    let mut admission = Admission::default();
    for filter in &connection.chain.filters {
        match filter {
            ConnectionFilter::ConnectionLimit(filter) => {
                let permit = connection_limit::admit(worker, filter)?;
                admission._permits.extend(permit);
            }
            ConnectionFilter::LocalRateLimit(filter) => local_ratelimit::admit(worker, filter)?,
            ConnectionFilter::Rbac(filter) => rbac::admit(worker, filter, connection)?,
            ConnectionFilter::SetFilterState(filter) => set(&filter.at_once, connection),
            ConnectionFilter::SniCluster => sni_cluster(connection),
            ConnectionFilter::SniDynamicForwardProxy { port, .. } => sni_host(connection, *port),
        }
    }
    Ok(admission)
}

/// Runs what filters do with the first bytes of a connection.
pub fn on_data(connection: &Connection) {
    for filter in &connection.chain.filters {
        if let ConnectionFilter::SetFilterState(filter) = filter {
            set(&filter.on_data, connection);
        }
    }
}

/// Ends a connection that was refused: its terminal filter, of which it is one all the same, counts
/// and logs it.
pub async fn refused(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    refusal: Refusal,
    stream: Stream,
) {
    tracing::debug!(
        connection = connection.id,
        reason = refusal.reason,
        "refused"
    );
    if let Some(delay) = refusal.delay {
        tokio::time::sleep(delay).await;
    }
    if refusal.lingers {
        direct_response::end(stream).await;
    } else {
        drop(stream);
    }
    connection.state.close_reason.set(refusal.reason);
    if let NetworkFilter::TcpProxy(proxy) = &connection.chain.filter {
        tcp_proxy::refused(worker, connection.clone(), proxy.clone(), refusal.flags);
    }
}

fn set(values: &[FilterStateValue], connection: &Connection) {
    for FilterStateValue {
        key,
        factory,
        format,
        skip_if_empty,
    } in values
    {
        let mut text = Vec::new();
        format.render(&Record::of_connection(connection), &mut text);
        if text.is_empty() && *skip_if_empty {
            continue;
        }
        let value = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| factory.make(text));
        match value {
            Some(value) => connection.state.filter_state.borrow_mut().set(key, value),
            None => tracing::debug!(
                connection = connection.id,
                %key,
                text = %text.escape_ascii(),
                "no filter state is made of this text"
            ),
        }
    }
}

fn sni_cluster(connection: &Connection) {
    static KEY: LazyLock<Arc<str>> = LazyLock::new(|| TCP_CLUSTER.into());
    if let Some(name) = connection
        .server_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        let mut state = connection.state.filter_state.borrow_mut();
        state.set(&KEY, Value::Text(name.into()));
    }
}

/// What another filter told goes before the server name and the port.
fn sni_host(connection: &Connection, port: u16) {
    static HOST: LazyLock<Arc<str>> = LazyLock::new(|| DYNAMIC_HOST.into());
    static PORT: LazyLock<Arc<str>> = LazyLock::new(|| DYNAMIC_PORT.into());
    let mut state = connection.state.filter_state.borrow_mut();
    if state.dynamic_host().is_none() {
        let Some(name) = connection.server_name.as_deref() else {
            return;
        };
        state.set(&HOST, Value::Text(name.to_ascii_lowercase().into()));
    }
    if state.dynamic_port().is_none() {
        state.set(&PORT, Value::Number(port.into()));
    }
}
