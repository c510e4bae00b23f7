//! What happens to a response's head on its way to the client.

use std::rc::Rc;

use tokio::time::Instant;

use super::header_changes::{self, Additions, Levels};
use super::internal_redirect;
use super::relay::{HeadOutcome, OnHead};
use crate::config::route::{HeaderChanges, InternalRedirects};
use crate::http::connection_manager::context::Context;
use crate::http::connection_manager::request::write_log;
use crate::http::connection_manager::{hop_by_hop, response_head};
use crate::http::filters::{self, Settings};
use crate::http::headers::Name;
use crate::http::message::{RequestHead, ResponseHead, Version};
use crate::http::route::stats::Counted;
use crate::http::stream_info::StreamInfo;
use crate::telemetry::access_log::record::LogKind;
use crate::upstream::Cluster;

/// The rules that apply to the response of one request.
pub struct ResponseRules<'a> {
    context: &'a Rc<Context>,
    info: &'a mut StreamInfo,
    levels: Levels<'a>,
    settings: &'a dyn Settings,
    counted: &'a Counted,
    upgrade_asked: bool,
    /// Upstream has accepted the upgrade.
    pub upgraded: bool,
    redirects: Option<Redirects<'a>>,
    /// Where a redirect that is followed leads.
    pub target: Option<Box<RequestHead>>,
}

/// The redirects that a route follows.
struct Redirects<'a> {
    policy: &'a InternalRedirects,
    cluster: &'a Cluster,
    random: u64,
}

impl<'a> ResponseRules<'a> {
    pub fn new(
        context: &'a Rc<Context>,
        info: &'a mut StreamInfo,
        levels: Levels<'a>,
        settings: &'a dyn Settings,
        counted: &'a Counted,
        upgrade_asked: bool,
    ) -> Self {
        ResponseRules {
            context,
            info,
            levels,
            settings,
            counted,
            upgrade_asked,
            upgraded: false,
            redirects: None,
            target: None,
        }
    }

    /// Follows redirects, if the route does.
    pub fn follow(
        &mut self,
        policy: Option<&'a InternalRedirects>,
        cluster: &'a Cluster,
        random: u64,
    ) {
        self.redirects = policy.map(|policy| Redirects {
            policy,
            cluster,
            random,
        });
    }

    /// When the request came.
    pub fn started(&self) -> std::time::Instant {
        self.info.started
    }
}

impl OnHead for ResponseRules<'_> {
    fn informational(&mut self, response: &mut ResponseHead) -> bool {
        hop_by_hop::remove(&mut response.headers, false);
        // The client has had the leave to send its body from us.
        response.status != 100 || self.context.manager.proxy_100_continue
    }

    fn lasts(&mut self, request: &RequestHead, response: &ResponseHead, bytes: (u64, u64)) {
        let earlier = (self.info.bytes_received, self.info.bytes_sent);
        self.info.bytes_received += bytes.0;
        self.info.bytes_sent += bytes.1;
        let response = (self.info.status != 0).then_some(response);
        let kind = LogKind::DownstreamPeriodic;
        write_log(self.context, self.info, kind, request, response, None);
        (self.info.bytes_received, self.info.bytes_sent) = earlier;
    }

    fn is_followed(&mut self, request: &RequestHead, response: &ResponseHead, whole: bool) -> bool {
        let Some(redirects) = &self.redirects else {
            return false;
        };
        if !redirects.policy.statuses.contains(&response.status) {
            return false;
        }
        let Redirects { policy, random, .. } = *redirects;
        self.target = match response.headers.first(Name::Location) {
            Some(location) if whole => internal_redirect::target(
                policy,
                self.context,
                self.info,
                random,
                request,
                response,
                location,
            ),
            _ => None,
        };
        let stats = redirects.cluster.stats();
        if self.target.is_none() {
            stats.internal_redirect_failed.increment(1);
            return false;
        }
        stats.internal_redirect_succeeded.increment(1);
        self.info.details = "internal_redirect".into();
        self.info.status = response.status;
        true
    }

    fn is_last(&self) -> bool {
        self.context.is_draining()
    }

    fn final_head(
        &mut self,
        now: Instant,
        received: u64,
        request: &RequestHead,
        response: &mut ResponseHead,
    ) -> HeadOutcome {
        let took = now.into_std().saturating_duration_since(self.info.started);
        self.info.response_after = Some(took);
        self.info.details = "via_upstream".into();
        self.upgraded = self.upgrade_asked
            && (response.status == 101 || (request.method == b"CONNECT" && response.status == 200));
        let switches = self.upgraded && response.status == 101;
        let keep = switches && request.version != Version::Http2;
        hop_by_hop::remove(&mut response.headers, keep);
        if self.upgraded && response.status == 101 {
            if request.version == Version::Http2 {
                // RFC 8441, section 5: there is no switching within HTTP/2.
                response.status = 200;
                response.reason.clear();
            } else if !response.headers.contains(Name::Connection) {
                response.headers.push_known(Name::Connection, b"upgrade");
            }
        }
        // It counts from the end of the request, which a tunnel's has not come to.
        if !self.upgrade_asked && !self.context.manager.suppress_envoy_headers {
            let mut text = itoa::Buffer::new();
            let text = text.format(took.as_millis() as u64);
            response
                .headers
                .set(Name::XEnvoyUpstreamServiceTime, text.as_bytes());
        }
        self.info.status = response.status;
        for stats in self.counted.iter() {
            stats.response(response.status);
        }
        let earlier = self.info.bytes_received;
        self.info.bytes_received += received;
        change_headers(self.context, self.info, self.levels, request, response);
        filters::on_response(self.context, self.settings, request, response, self.info);
        // The relay tells the sum when it has ended.
        self.info.bytes_received = earlier;
        response_head::finish(self.context, request, response);
        if self.upgraded {
            HeadOutcome::Upgraded
        } else {
            HeadOutcome::Response
        }
    }
}

/// Says how many attempts there were, if that is wanted, and applies the response header changes of
/// all levels.
pub fn change_headers(
    context: &Context,
    info: &StreamInfo,
    levels: Levels<'_>,
    request: &RequestHead,
    response: &mut ResponseHead,
) {
    if info.tell_attempts && info.attempts > 0 {
        let mut text = itoa::Buffer::new();
        let text = text.format(info.attempts);
        let headers = &mut response.headers;
        headers.set(Name::XEnvoyAttemptCount, text.as_bytes());
    }
    for changes in levels.iter().filter_map(HeaderChanges::response) {
        header_changes::remove(&mut response.headers, changes);
        let additions = Additions::of(changes, &response.headers, |format, out| {
            let record = info.record(&context.connection, Some(request), Some(response), None);
            format.render(&record, out);
        });
        additions.apply(&mut response.headers);
    }
}
