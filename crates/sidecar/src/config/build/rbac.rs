//! `envoy.config.rbac.v3`: policies of connections and of requests.

use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::config::rbac::v3::permission::Rule as PermissionRule;
use envoy_types::pb::envoy::config::rbac::v3::principal::Identifier;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3 as mtls;
use envoy_types::pb::envoy::r#type::matcher::v3::PathMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, cidr, each, enumeration, named, one_of, port, refuse, required,
};
use super::{cel, filter_state_matcher, matcher, matching, metadata_matcher, validation_context};
use crate::config::error::{ConfigError, Result};
use crate::rbac::{Action, Engine, NamedAction, Policies, Policy, Rule, Whose};

/// What the policies are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Connections: there are no headers.
    Connection,
}

/// `rules` or `matcher`, with the fields' names; `None` where neither is set.
pub fn engine(
    scope: Scope,
    rules: Option<(&proto::Rbac, &str)>,
    tree: Option<(&Matcher, &str)>,
) -> Result<Option<Engine>> {
    if let Some((proto, field)) = tree {
        let place = match scope {
            Scope::Connection => matching::NETWORK_FILTER,
        };
        let mut logs = false;
        let mut action = |any: &Any| {
            let built = named_action(any)?;
            logs |= built.action == Action::Log;
            Ok(built)
        };
        let tree = matching::build(proto, place, &mut action).within(field)?;
        return Ok(Some(Engine::Tree { tree, logs }));
    }
    rules
        .map(|(proto, field)| policies(proto, scope).within(field))
        .transpose()
        .map(|policies| policies.map(Engine::Policies))
}

const ACTIONS: &[Extension<Build<NamedAction>>] = &[Extension {
    type_name: "envoy.config.rbac.v3.Action",
    build: |bytes| {
        let proto = decode::<proto::Action>(bytes)?;
        let (name, action) = (named(&proto.name, "name"), action(proto.action)).together()?;
        Ok(NamedAction {
            name: name.into(),
            action,
        })
    },
}];

fn named_action(any: &Any) -> Result<NamedAction> {
    (resolve(ACTIONS, "action of rbac", any)?.build)(&any.value)
}

fn action(value: i32) -> Result<Action> {
    Ok(match enumeration(value, "action")? {
        proto::rbac::Action::Allow => Action::Allow,
        proto::rbac::Action::Deny => Action::Deny,
        proto::rbac::Action::Log => Action::Log,
    })
}

fn policies(proto: &proto::Rbac, scope: Scope) -> Result<Policies> {
    let mut names: Vec<_> = proto.policies.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let mut policies: Result<Vec<_>> = Ok(Vec::new());
    for (name, proto) in names {
        let built = policy(proto, scope).within(format_args!("policies[{name}]"));
        policies = match (policies, built) {
            (Ok(mut policies), Ok(policy)) => {
                policies.push((name.as_str().into(), policy));
                Ok(policies)
            }
            (Err(error), Err(other)) => Err(error.and(other)),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        };
    }
    let (action, policies) = (action(proto.action), policies).together()?;
    Ok(Policies { action, policies })
}

fn policy(proto: &proto::Policy, scope: Scope) -> Result<Policy> {
    let some = |empty: bool, field| refuse(empty, field, "must not be empty; `any: true` is all");
    let checked = proto.checked_condition.as_ref();
    let (condition, field) = match &proto.condition {
        Some(condition) => (Some(condition), "condition"),
        None => (
            checked.and_then(|checked| checked.expr.as_ref()),
            "checked_condition.expr",
        ),
    };
    let condition = condition.map(|proto| cel::tree(proto).within(field));
    let (permissions, principals, condition, _, _, _, _) = (
        each("permissions", &proto.permissions, |proto| {
            permission(proto, scope)
        }),
        each("principals", &proto.principals, |proto| {
            principal(proto, scope)
        }),
        condition.transpose(),
        refuse(
            proto.condition.is_some() && checked.is_some(),
            "checked_condition",
            "condition is set too, and only one of the two can be",
        ),
        refuse(
            checked.is_some_and(|checked| checked.expr.is_none()),
            "checked_condition.expr",
            "must be set",
        ),
        some(proto.permissions.is_empty(), "permissions"),
        some(proto.principals.is_empty(), "principals"),
    )
        .together()?;
    Ok(Policy {
        permissions,
        principals,
        condition,
    })
}

fn permission(proto: &proto::Permission, scope: Scope) -> Result<Rule> {
    let several = |set: &proto::permission::Set| {
        refuse(set.rules.is_empty(), "rules", "must not be empty")?;
        each("rules", &set.rules, |proto| permission(proto, scope))
    };
    Ok(match one_of::<proto::Permission, _>(&proto.rule, "any")? {
        PermissionRule::AndRules(set) => Rule::All(several(set).within("and_rules")?),
        PermissionRule::OrRules(set) => Rule::Any(several(set).within("or_rules")?),
        PermissionRule::Any(any) => always(*any)?,
        PermissionRule::NotRule(proto) => {
            Rule::Not(Box::new(permission(proto, scope).within("not_rule")?))
        }
        PermissionRule::Header(proto) => header(proto, scope)?,
        PermissionRule::UrlPath(proto) => path(proto).within("url_path")?,
        PermissionRule::DestinationIp(range) => {
            Rule::Address(Whose::Destination, cidr(range).within("destination_ip")?)
        }
        PermissionRule::DestinationPort(number) => {
            let number = u32::from(port(*number, true, "destination_port")?);
            Rule::Port(number..number + 1)
        }
        PermissionRule::DestinationPortRange(range) => {
            ports(range).within("destination_port_range")?
        }
        PermissionRule::Metadata(proto) => {
            Rule::Metadata(metadata_matcher::build(proto).within("metadata")?)
        }
        PermissionRule::SourcedMetadata(proto) => {
            sourced_metadata(proto).within("sourced_metadata")?
        }
        PermissionRule::RequestedServerName(proto) => {
            Rule::ServerName(matcher::string(proto).within("requested_server_name")?)
        }
        PermissionRule::Matcher(_) => {
            return Err(ConfigError::new(
                "matcher",
                "permissions that come from extensions are not supported: match the address that \
                 the client connects to with destination_ip and destination_port",
            ));
        }
        PermissionRule::UriTemplate(_) => {
            return Err(ConfigError::new(
                "uri_template",
                "connections have no path: match them with destination_ip, destination_port or \
                 requested_server_name",
            ));
        }
    })
}

fn principal(proto: &proto::Principal, scope: Scope) -> Result<Rule> {
    let several = |set: &proto::principal::Set| {
        refuse(set.ids.is_empty(), "ids", "must not be empty")?;
        each("ids", &set.ids, |proto| principal(proto, scope))
    };
    let address = |whose, range, field| Ok(Rule::Address(whose, cidr(range).within(field)?));
    match one_of::<proto::Principal, _>(&proto.identifier, "any")? {
        Identifier::AndIds(set) => several(set).map(Rule::All).within("and_ids"),
        Identifier::OrIds(set) => several(set).map(Rule::Any).within("or_ids"),
        Identifier::Any(any) => always(*any),
        Identifier::NotId(proto) => principal(proto, scope)
            .map(|rule| Rule::Not(Box::new(rule)))
            .within("not_id"),
        Identifier::Authenticated(proto) => proto
            .principal_name
            .as_ref()
            .map(|name| matcher::string(name).within("principal_name"))
            .transpose()
            .map(Rule::Authenticated)
            .within("authenticated"),
        Identifier::SourceIp(range) => address(Whose::Connection, range, "source_ip"),
        Identifier::DirectRemoteIp(range) => address(Whose::Socket, range, "direct_remote_ip"),
        Identifier::RemoteIp(range) => address(Whose::Client, range, "remote_ip"),
        Identifier::Header(proto) => header(proto, scope),
        Identifier::UrlPath(proto) => path(proto).within("url_path"),
        Identifier::Metadata(proto) => metadata_matcher::build(proto)
            .map(Rule::Metadata)
            .within("metadata"),
        Identifier::SourcedMetadata(proto) => sourced_metadata(proto).within("sourced_metadata"),
        Identifier::FilterState(proto) => filter_state_matcher::build(proto)
            .map(Rule::FilterState)
            .within("filter_state"),
        Identifier::Custom(extension) => required(&extension.typed_config, "typed_config")
            .and_then(|any| {
                let extension = resolve(PRINCIPALS, "principal", any)?;
                (extension.build)(&any.value).within("typed_config")
            })
            .within("custom"),
    }
}

const PRINCIPALS: &[Extension<Build<Rule>>] = &[Extension {
    type_name: "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
    build: |bytes| {
        let proto = decode::<mtls::Config>(bytes)?;
        let name = proto
            .san_matcher
            .as_ref()
            .map(|name| validation_context::subject_alt_name(name).within("san_matcher"))
            .transpose()?;
        refuse(
            name.is_none() && !proto.any_validated_client_certificate,
            "any_validated_client_certificate",
            "must be true where there is no san_matcher",
        )?;
        Ok(Rule::Validated(name))
    },
}];

fn always(any: bool) -> Result<Rule> {
    refuse(!any, "any", "must be true")?;
    Ok(Rule::Always)
}

fn header(proto: &HeaderMatcher, scope: Scope) -> Result<Rule> {
    refuse(
        scope == Scope::Connection,
        "header",
        format_args!(
            "`{}`: connections have no headers; the network filter rbac takes no rule for them",
            proto.name
        ),
    )?;
    matcher::header(proto).map(Rule::Header).within("header")
}

fn path(proto: &PathMatcher) -> Result<Rule> {
    let PathRule::Path(path) = one_of::<PathMatcher, _>(&proto.rule, "path")?;
    matcher::string(path).map(Rule::Path).within("path")
}

fn ports(range: &Int32Range) -> Result<Rule> {
    let bound = |value: i32, field| {
        u32::try_from(value)
            .ok()
            .filter(|value| *value <= 65536)
            .ok_or_else(|| ConfigError::new(field, format_args!("{value} is not within 0..=65536")))
    };
    let (start, end) = (bound(range.start, "start"), bound(range.end, "end")).together()?;
    refuse(
        start >= end,
        "end",
        format_args!("{end} must be above start, which is {start}"),
    )?;
    Ok(Rule::Port(start..end))
}

fn sourced_metadata(proto: &proto::SourcedMetadata) -> Result<Rule> {
    let source: proto::MetadataSource = enumeration(proto.metadata_source, "metadata_source")?;
    refuse(
        source == proto::MetadataSource::Route,
        "metadata_source",
        "ROUTE is not supported: a connection has no route; use DYNAMIC",
    )?;
    required(&proto.metadata_matcher, "metadata_matcher")
        .and_then(|proto| metadata_matcher::build(proto).within("metadata_matcher"))
        .map(Rule::Metadata)
}
