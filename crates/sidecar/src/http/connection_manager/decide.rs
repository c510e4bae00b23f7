//! What is to be done with a request: its head is made fit for the next hop, and its route is found.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::context::Context;
use super::local_reply::LocalReply;
use super::request::write_log;
use super::{client_certificate, forwarded, hop_by_hop, path};
use crate::config::cluster::Cluster;
use crate::config::http_connection_manager::{HttpConnectionManager, StripPort, Underscores};
use crate::config::http_filter::{FilterSettings, HeaderMutations, HostRewrite};
use crate::config::route::{
    Action, Forward, Route, RouteTable, VirtualCluster, VirtualHost, WeightedCluster,
};
use crate::http::filters::{self, Settings};
use crate::http::headers::{Headers, Name};
use crate::http::message::{RequestHead, Version};
use crate::http::route::stats::Counted;
use crate::http::route::{self, Chosen, Facts, RouteMatchResult};
use crate::http::router::Levels;
use crate::http::stream_info::StreamInfo;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::LogKind;

/// What is to be done with a request.
pub enum Decision {
    /// Answer it ourselves.
    Reply(LocalReply),
    /// It breaks a rule of its protocol: an HTTP/1 client is told so, an HTTP/2 stream is reset.
    Refuse(LocalReply),
    /// A route matched.
    Route {
        route: Arc<Route>,
        levels: Held,
        upgrade: Option<Vec<u8>>,
        random: u64,
    },
}

/// The levels of header changes, kept alive for as long as the request uses them.
pub struct Held {
    /// Where the route sends it: chosen with the route, before any filter has changed the head.
    pub chosen: Chosen,
    route: Arc<Route>,
    /// The virtual host, which has settings of its own for the router.
    pub host: Arc<VirtualHost>,
    table: Arc<RouteTable>,
}

impl Held {
    /// In the order in which they apply.
    pub fn levels(&self) -> Levels<'_> {
        let mut levels = [&self.route.headers, &self.host.headers, &self.table.headers];
        if self.table.most_specific_wins {
            levels.reverse();
        }
        let levels = Levels::new(levels);
        match self.share() {
            Some(share) => levels.with_cluster(&share.headers),
            None => levels,
        }
    }

    /// The share of a weighted cluster that was chosen.
    fn share(&self) -> Option<&WeightedCluster> {
        match &self.route.action {
            Action::Forward(forward) => forward.share_of(&self.chosen),
            Action::Redirect(_) | Action::Direct(_) => None,
        }
    }

    /// What is said of filters, the most specific level first.
    fn settings(&self) -> impl Iterator<Item = &FilterSettings> {
        let share = self.share().map(|share| &share.filters);
        let levels = [&self.route.filters, &self.host.filters, &self.table.filters];
        share.into_iter().chain(levels)
    }
}

impl Settings for Held {
    fn runs(&self, name: &str) -> Option<bool> {
        let mut levels = self.settings();
        levels.find_map(|level| level.of(name).map(|setting| !setting.disabled))
    }

    fn host(&self, name: &str) -> Option<&HostRewrite> {
        let mut levels = self.settings();
        levels.find_map(|level| level.of(name)?.host.as_ref())
    }

    fn mutations(&self, name: &str, each: &mut dyn FnMut(&HeaderMutations)) {
        for level in self.settings() {
            let setting = level.of(name);
            if let Some(mutations) = setting.and_then(|setting| setting.mutations.as_ref()) {
                each(mutations);
            }
        }
    }
}

/// The counters of a request's virtual cluster and of its route.
pub fn counted(
    context: &Context,
    host: &VirtualHost,
    route: &Route,
    request: &RequestHead,
) -> Counted {
    let stats = |name| context.worker.route_stats(name);
    let all = |cluster: &&VirtualCluster| {
        let mut matchers = cluster.headers.iter();
        matchers.all(|matcher| matcher.matches(request))
    };
    let cluster = host.virtual_clusters.iter().find(all);
    Counted::new(
        cluster.map(|cluster| stats(&cluster.stat)),
        route.stat.as_ref().map(stats),
    )
}

/// Sanitises the head and finds its route.
pub fn decide(context: &Rc<Context>, request: &mut RequestHead, info: &mut StreamInfo) -> Decision {
    if context.overload_refuses() {
        context.stats.downstream_rq_overload_close.increment(1);
        let mut answer = LocalReply::new(503, "envoy overloaded", "overload", Flags::NONE);
        answer.locally_overloaded = context.manager.tell_local_overload;
        return Decision::Reply(answer);
    }
    let manager = &context.manager;
    if has_bad_underscores(manager, request) {
        let details = match request.version {
            Version::Http2 => "http2.unexpected_underscore",
            Version::Http10 | Version::Http11 => "http1.unexpected_underscore",
        };
        let flags = Flags::DOWNSTREAM_PROTOCOL_ERROR;
        let answer = LocalReply::new(400, "Bad Request", details, flags);
        return Decision::Refuse(answer.closing());
    }
    if manager.underscores == Underscores::Drop && has_underscores(&request.headers) {
        request.headers.retain(|_, name, _| !name.contains(&b'_'));
    }
    if request.hostless {
        let mut answer = LocalReply::new(400, "", "missing_host_header", Flags::NONE);
        answer.close = request.version == Version::Http10;
        return Decision::Reply(answer);
    }
    if request.path == b"*" {
        // OPTIONS of the whole server: there is none behind a router.
        context.stats.downstream_rq_non_relative_path.increment(1);
        let answer = LocalReply::new(404, "", "absolute_path_rejected", Flags::NONE);
        return Decision::Reply(answer);
    }
    if let Err(mut answer) = path::normalize(manager, &mut request.path) {
        // As with Envoy: no client of gRPC follows a redirect.
        if answer.location.is_some() && request.is_grpc() {
            answer = path::refused();
        }
        return Decision::Reply(answer);
    }
    // The target of a CONNECT is a host with its port (RFC 9110, section 9.3.6).
    let keeps_port = request.method == b"CONNECT" && request.protocol.is_none();
    shorten_host(context, &mut request.authority, keeps_port);
    if !manager.early_mutations.is_empty() {
        filters::apply_to_request(context, &manager.early_mutations, request, info);
    }
    let upgrade = if request.method == b"CONNECT" {
        let protocol = request.protocol.as_deref().unwrap_or(b"connect");
        Some(protocol.to_ascii_lowercase())
    } else {
        hop_by_hop::upgrade(request)
    };
    if request.version == Version::Http2 {
        request.join_cookies();
    }
    let switches = upgrade.is_some() && request.method != b"CONNECT";
    hop_by_hop::remove(&mut request.headers, switches);
    if switches {
        request.headers.join(Name::Connection, b",");
    }
    let caller = match forwarded::apply(manager, &context.connection, request) {
        Ok(caller) => caller,
        Err(answer) => return Decision::Reply(answer),
    };
    info.client = caller.told.map(|ip| SocketAddr::new(ip, 0));
    forwarded::request_id(manager, caller, || context.worker.random_128(), request);
    client_certificate::apply(context, request);
    if !manager.proxy_100_continue && continues(&request.headers) {
        request.headers.remove(Name::Expect);
    }

    find(context, request, info, upgrade, caller.internal)
}

/// Finds the route of a request that an internal redirect has sent on its way anew. Where it comes
/// from and who it is is known already.
pub fn again(context: &Rc<Context>, request: &mut RequestHead, info: &mut StreamInfo) -> Decision {
    if let Err(answer) = path::normalize(&context.manager, &mut request.path) {
        return Decision::Reply(answer);
    }
    shorten_host(context, &mut request.authority, false);
    find(context, request, info, None, true)
}

/// The route of a request, none where it is told to come by TLS, and its cluster.
pub struct Destination {
    pub route: Option<Arc<Route>>,
    pub cluster: Option<Arc<Cluster>>,
}

/// Where a request would go; `None` if no route takes it.
pub fn destination(
    context: &Context,
    request: &RequestHead,
    info: &StreamInfo,
    random: u64,
) -> Option<Destination> {
    let table = context.manager.routes.load()?;
    let route = match table.route(&facts(context, request, random)) {
        RouteMatchResult::NotFound => return None,
        RouteMatchResult::NeedsTls => None,
        RouteMatchResult::Found { route, .. } => Some(route.clone()),
    };
    let cluster = route.as_ref().and_then(|route| match &route.action {
        Action::Forward(forward) => {
            let chosen = choose(context, forward, request, info, random);
            let name = forward.cluster_of(&chosen)?;
            let cluster = context.worker.clusters.cluster(name)?;
            Some(cluster.config().clone())
        }
        Action::Redirect(_) | Action::Direct(_) => None,
    });
    Some(Destination { route, cluster })
}

fn choose(
    context: &Context,
    forward: &Forward,
    request: &RequestHead,
    info: &StreamInfo,
    random: u64,
) -> Chosen {
    let client = info.client.or(context.connection.peer.socket());
    let state = &context.connection.state.filter_state;
    let hash = || forward.hash(request, client.map(|client| client.ip()), &state.borrow());
    forward.choose(request, random, hash)
}

fn facts<'a>(context: &'a Context, request: &'a RequestHead, random: u64) -> Facts<'a> {
    Facts {
        request,
        random,
        certificate: context.certificate,
        state: &context.connection.state,
    }
}

/// Finds the route of a request, and with it the cluster.
fn find(
    context: &Rc<Context>,
    request: &mut RequestHead,
    info: &mut StreamInfo,
    upgrade: Option<Vec<u8>>,
    internal: bool,
) -> Decision {
    let manager = &context.manager;
    context.stats.rq_total.increment(1);
    let Some(table) = manager.routes.load() else {
        context.stats.no_route.increment(1);
        log_start(context, info, request);
        return Decision::Reply(LocalReply::new(
            404,
            "",
            "route_configuration_not_found",
            Flags::NO_ROUTE_FOUND,
        ));
    };
    if !internal {
        for name in &table.internal_only {
            request.headers.remove_named(name);
        }
    }
    let random = context.worker.random();
    match table.route(&facts(context, request, random)) {
        RouteMatchResult::NotFound => {
            log_start(context, info, request);
            context.stats.no_route.increment(1);
            Decision::Reply(LocalReply::new(
                404,
                "",
                "route_not_found",
                Flags::NO_ROUTE_FOUND,
            ))
        }
        RouteMatchResult::NeedsTls => {
            log_start(context, info, request);
            context.stats.rq_direct_response.increment(1);
            let mut answer = LocalReply::new(301, "", "direct_response", Flags::NONE);
            let mut location = Vec::new();
            route::write_https_location(request, &mut location);
            answer.location = Some(location);
            Decision::Reply(answer)
        }
        RouteMatchResult::Found {
            virtual_host,
            route,
        } => {
            info.route = Some(route.clone());
            info.tell_attempts = virtual_host.attempt_count_in_response;
            let chosen = match &route.action {
                Action::Forward(forward) => choose(context, forward, request, info, random),
                Action::Redirect(_) | Action::Direct(_) => Chosen::Nowhere,
            };
            if manager.log_times.on_request {
                if let Action::Forward(forward) = &route.action {
                    tell_cluster(context, forward.cluster_of(&chosen), info);
                }
                log_start(context, info, request);
            }
            if let Some(asked) = &upgrade {
                let forward = match &route.action {
                    Action::Forward(forward) => Some(forward),
                    _ => None,
                };
                let of_route = forward.and_then(|forward| {
                    let mut upgrades = forward.upgrades.iter();
                    upgrades
                        .find(|(kind, _)| **kind == **asked)
                        .map(|(_, on)| *on)
                });
                let allowed = of_route
                    .unwrap_or_else(|| manager.upgrades.iter().any(|kind| **kind == **asked));
                if !allowed {
                    if let Some(forward) = forward {
                        tell_cluster(context, forward.cluster_of(&chosen), info);
                    }
                    context.stats.downstream_rq_ws_on_non_ws_route.increment(1);
                    return Decision::Reply(
                        LocalReply::new(403, "", "upgrade_failed", Flags::NONE).closing(),
                    );
                }
            }
            let (route, host) = (route.clone(), virtual_host.clone());
            Decision::Route {
                levels: Held {
                    chosen,
                    route: route.clone(),
                    host,
                    table,
                },
                route,
                upgrade,
                random,
            }
        }
    }
}

/// Tells the log of the cluster of a request that is not forwarded there, or not yet.
fn tell_cluster(context: &Context, name: Option<&str>, info: &mut StreamInfo) {
    let cluster = name.and_then(|name| context.worker.clusters.cluster(name));
    info.cluster = cluster.map(|cluster| cluster.config().clone());
}

/// `flush_access_log_on_new_request`: before anything is done with it.
fn log_start(context: &Context, info: &StreamInfo, request: &RequestHead) {
    if context.manager.log_times.on_request {
        write_log(context, info, LogKind::DownstreamStart, request, None, None);
    }
}

/// Whether the client waits for leave to send its body, and for nothing else.
pub fn continues(headers: &Headers) -> bool {
    let mut asked = headers.all(Name::Expect);
    asked
        .next()
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
        && asked.next().is_none()
}

/// `headers_with_underscores_action: REJECT_REQUEST`, and the request is to be.
pub fn has_bad_underscores(manager: &HttpConnectionManager, request: &RequestHead) -> bool {
    manager.underscores == Underscores::Reject && has_underscores(&request.headers)
}

fn has_underscores(headers: &Headers) -> bool {
    headers.iter().any(|(_, name, _)| name.contains(&b'_'))
}

/// `strip_trailing_host_dot`, `strip_matching_host_port`, `strip_any_host_port`
fn shorten_host(context: &Context, authority: &mut Vec<u8>, keeps_port: bool) {
    let manager = &context.manager;
    if manager.strip_host_dot {
        let host = route::split_port(authority).0.len();
        if host > 0 && authority[host - 1] == b'.' {
            authority.remove(host - 1);
        }
    }
    if keeps_port || manager.strip_host_port == StripPort::No {
        return;
    }
    let (host, port) = route::split_port(authority);
    let port = port
        .get(1..)
        .and_then(|port| std::str::from_utf8(port).ok())
        .and_then(|port| port.parse::<u16>().ok());
    if manager.strip_host_port == StripPort::Any
        || port.is_some() && port == context.connection.local.port()
    {
        let keep = host.len();
        authority.truncate(keep);
    }
}
