//! `xds.type.matcher.v3.Matcher`.

use std::collections::HashMap;

use envoy_types::pb::envoy::extensions::matching::common_inputs::environment_variable::v3 as environment;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3 as network;
use envoy_types::pb::envoy::extensions::matching::input_matchers::ip::v3 as ip;
use envoy_types::pb::envoy::r#type::matcher::v3 as http;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig;
use envoy_types::pb::xds::r#type::matcher::v3 as proto;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::Predicate as ProtoPredicate;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::single_predicate::Matcher as ValueMatcher;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, SinglePredicate,
};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_tree::{MatchMap, TreeType};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{
    MatcherType, OnMatch as ProtoOnMatch, on_match,
};

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{Together as _, Within as _, cidr, each, named, one_of, refuse, required};
use super::{matcher, regex};
use crate::config::error::{ConfigError, Result};
use crate::config::matcher::StringMatcher;
use crate::matching::input::Input;
use crate::matching::{Condition, Kind, OnMatch, Predicate, Tree};

/// Where a tree is asked: which inputs there are.
#[derive(Clone, Copy)]
pub struct Place(&'static [Extension<Build<Input>>]);

const NETWORK: &str = "envoy.extensions.matching.common_inputs.network.v3";

/// Inputs of a new connection.
pub const CONNECTION: Place = Place(&[
    DESTINATION_IP,
    DESTINATION_PORT,
    SOURCE_IP,
    SOURCE_PORT,
    DIRECT_SOURCE_IP,
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.network.v3.SourceTypeInput",
        build: |_| Ok(Input::SourceType),
    },
    SERVER_NAME,
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput",
        build: |_| Ok(Input::TransportProtocol),
    },
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.network.v3.ApplicationProtocolInput",
        build: |_| Ok(Input::ApplicationProtocol),
    },
    ENVIRONMENT,
]);

/// Inputs of a connection that its filter chain has.
pub const NETWORK_FILTER: Place = Place(&[
    DESTINATION_IP,
    DESTINATION_PORT,
    SOURCE_IP,
    SOURCE_PORT,
    DIRECT_SOURCE_IP,
    SERVER_NAME,
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
        build: |bytes| {
            let proto = decode::<network::FilterStateInput>(bytes)?;
            let field = (!proto.field.is_empty()).then(|| proto.field.as_str().into());
            Ok(Input::FilterState(named(&proto.key, "key")?.into(), field))
        },
    },
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput",
        build: |_| Ok(Input::UriSan),
    },
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.ssl.v3.DnsSanInput",
        build: |_| Ok(Input::DnsSan),
    },
    Extension {
        type_name: "envoy.extensions.matching.common_inputs.ssl.v3.SubjectInput",
        build: |_| Ok(Input::Subject),
    },
    ENVIRONMENT,
]);

/// Inputs of a datagram.
pub const DATAGRAM: Place = Place(&[
    DESTINATION_IP,
    DESTINATION_PORT,
    SOURCE_IP,
    SOURCE_PORT,
    ENVIRONMENT,
]);

/// Inputs of a request that looks for its route: headers alone, as in Envoy.
pub const REQUEST: Place = Place(&[Extension {
    type_name: "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
    build: |bytes| {
        let proto = decode::<http::HttpRequestHeaderMatchInput>(bytes)?;
        matcher::header_or_pseudo(&proto.header_name, "header_name").map(Input::Header)
    },
}]);

const DESTINATION_IP: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput",
    build: |_| Ok(Input::DestinationIp),
};

const DESTINATION_PORT: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput",
    build: |_| Ok(Input::DestinationPort),
};

const SOURCE_IP: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput",
    build: |_| Ok(Input::SourceIp),
};

const SOURCE_PORT: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.network.v3.SourcePortInput",
    build: |_| Ok(Input::SourcePort),
};

const DIRECT_SOURCE_IP: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.network.v3.DirectSourceIPInput",
    build: |_| Ok(Input::DirectSourceIp),
};

const SERVER_NAME: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.network.v3.ServerNameInput",
    build: |_| Ok(Input::ServerName),
};

const ENVIRONMENT: Extension<Build<Input>> = Extension {
    type_name: "envoy.extensions.matching.common_inputs.environment_variable.v3.Config",
    build: |bytes| {
        let proto = decode::<environment::Config>(bytes)?;
        let name = named(&proto.name, "name")?;
        let value = std::env::var_os(name).map(|value| value.into_encoded_bytes().into());
        Ok(Input::Fixed(value))
    },
};

/// Builds a tree whose actions `action` makes of their configurations.
pub fn build<Action>(
    proto: &proto::Matcher,
    place: Place,
    action: &mut dyn FnMut(&Any) -> Result<Action>,
) -> Result<Tree<Action>> {
    let kind = match &proto.matcher_type {
        None => Ok(Kind::List(Vec::new())),
        Some(MatcherType::MatcherList(list)) => {
            let matchers = each("matchers", &list.matchers, |field| {
                (
                    required(&field.predicate, "predicate")
                        .and_then(|proto| predicate(proto, place).within("predicate")),
                    required(&field.on_match, "on_match")
                        .and_then(|proto| on_match(proto, place, action).within("on_match")),
                )
                    .together()
            });
            matchers.map(Kind::List).within("matcher_list")
        }
        Some(MatcherType::MatcherTree(tree)) => {
            let input = required(&tree.input, "input")
                .and_then(|proto| input(proto, place).within("input"));
            let kind = match &tree.tree_type {
                Some(TreeType::ExactMatchMap(map)) => {
                    (input, entries(map, place, action).within("exact_match_map"))
                        .together()
                        .map(|(input, map)| Kind::Exact(input, map))
                }
                Some(TreeType::PrefixMatchMap(map)) => (
                    input,
                    entries(map, place, action).within("prefix_match_map"),
                )
                    .together()
                    .map(|(input, map)| {
                        let mut prefixes: Vec<_> = map.into_iter().collect();
                        prefixes.sort_by(|one, other| {
                            (other.0.len().cmp(&one.0.len())).then_with(|| one.0.cmp(&other.0))
                        });
                        Kind::Prefix(input, prefixes)
                    }),
                Some(TreeType::CustomMatch(_)) => Err(ConfigError::new(
                    "custom_match",
                    "trees of other kinds are not supported: use exact_match_map or \
                     prefix_match_map, or a matcher_list",
                )),
                None => Err(ConfigError::new(
                    "exact_match_map",
                    "must be set, or prefix_match_map",
                )),
            };
            kind.within("matcher_tree")
        }
    };
    let otherwise = proto.on_no_match.as_ref().map(|proto| {
        on_match(proto, place, action)
            .map(Box::new)
            .within("on_no_match")
    });
    let (kind, otherwise) = (kind, otherwise.transpose()).together()?;
    Ok(Tree { kind, otherwise })
}

/// A map's entries; Envoy wants at least one.
fn entries<Action>(
    proto: &MatchMap,
    place: Place,
    action: &mut dyn FnMut(&Any) -> Result<Action>,
) -> Result<HashMap<Box<[u8]>, OnMatch<Action>>> {
    refuse(proto.map.is_empty(), "map", "must not be empty")?;
    let mut keys: Vec<&String> = proto.map.keys().collect();
    // A map has no order, but errors should.
    keys.sort();
    let mut map = HashMap::new();
    let mut problems: Option<ConfigError> = None;
    for key in keys {
        match on_match(&proto.map[key], place, action).within(format_args!("map[{key}]")) {
            Ok(on_match) => {
                map.insert(key.as_bytes().into(), on_match);
            }
            Err(error) => {
                problems = Some(match problems {
                    None => error,
                    Some(before) => before.and(error),
                });
            }
        }
    }
    match problems {
        None => Ok(map),
        Some(problems) => Err(problems),
    }
}

fn on_match<Action>(
    proto: &ProtoOnMatch,
    place: Place,
    action: &mut dyn FnMut(&Any) -> Result<Action>,
) -> Result<OnMatch<Action>> {
    refuse(
        proto.keep_matching,
        "keep_matching",
        "is not supported: here the first action that is found decides",
    )?;
    match one_of::<ProtoOnMatch, _>(&proto.on_match, "action")? {
        on_match::OnMatch::Matcher(nested) => build(nested, place, action)
            .map(|tree| OnMatch::Tree(Box::new(tree)))
            .within("matcher"),
        on_match::OnMatch::Action(extension) => required(&extension.typed_config, "typed_config")
            .and_then(|any| action(any).within("typed_config"))
            .map(OnMatch::Action)
            .within("action"),
    }
}

fn predicate(proto: &ProtoPredicate, place: Place) -> Result<Predicate> {
    match one_of::<ProtoPredicate, _>(&proto.match_type, "single_predicate")? {
        MatchType::SinglePredicate(single) => {
            self::single(single, place).within("single_predicate")
        }
        MatchType::OrMatcher(list) => each("predicate", &list.predicate, |proto| {
            predicate(proto, place)
        })
        .map(Predicate::Any)
        .within("or_matcher"),
        MatchType::AndMatcher(list) => each("predicate", &list.predicate, |proto| {
            predicate(proto, place)
        })
        .map(Predicate::All)
        .within("and_matcher"),
        MatchType::NotMatcher(proto) => predicate(proto, place)
            .map(|predicate| Predicate::Not(Box::new(predicate)))
            .within("not_matcher"),
    }
}

fn single(proto: &SinglePredicate, place: Place) -> Result<Predicate> {
    let condition = match one_of::<SinglePredicate, _>(&proto.matcher, "value_match") {
        Ok(ValueMatcher::ValueMatch(proto)) => {
            string(proto).map(Condition::Text).within("value_match")
        }
        Ok(ValueMatcher::CustomMatch(extension)) => custom(extension).within("custom_match"),
        Err(error) => Err(error),
    };
    let (input, condition) = (
        required(&proto.input, "input").and_then(|proto| input(proto, place).within("input")),
        condition,
    )
        .together()?;
    if let Condition::Address(_) = condition {
        refuse(
            !matches!(
                input,
                Input::DestinationIp | Input::SourceIp | Input::DirectSourceIp
            ),
            "custom_match",
            format_args!("compares addresses: the input must be one of {NETWORK}"),
        )?;
    }
    Ok(Predicate::Single(input, condition))
}

fn input(proto: &TypedExtensionConfig, place: Place) -> Result<Input> {
    let any = required(&proto.typed_config, "typed_config")?;
    let extension = resolve(place.0, "input of a matcher here", any)?;
    (extension.build)(&any.value).within("typed_config")
}

const CUSTOM: &[Extension<Build<Condition>>] = &[Extension {
    type_name: "envoy.extensions.matching.input_matchers.ip.v3.Ip",
    build: |bytes| {
        let proto = decode::<ip::Ip>(bytes)?;
        refuse(
            proto.cidr_ranges.is_empty(),
            "cidr_ranges",
            "must not be empty",
        )?;
        each("cidr_ranges", &proto.cidr_ranges, cidr).map(Condition::Address)
    },
}];

fn custom(proto: &TypedExtensionConfig) -> Result<Condition> {
    let any = required(&proto.typed_config, "typed_config")?;
    let extension = resolve(CUSTOM, "matcher of inputs", any)?;
    (extension.build)(&any.value).within("typed_config")
}

/// `xds.type.matcher.v3.StringMatcher`, which is Envoy's by another name.
fn string(proto: &proto::StringMatcher) -> Result<StringMatcher> {
    use http::string_matcher::MatchPattern as Envoys;
    use proto::string_matcher::MatchPattern as Pattern;
    let pattern = match one_of::<proto::StringMatcher, _>(&proto.match_pattern, "exact")? {
        Pattern::Exact(text) => Envoys::Exact(text.clone()),
        Pattern::Prefix(text) => Envoys::Prefix(text.clone()),
        Pattern::Suffix(text) => Envoys::Suffix(text.clone()),
        Pattern::Contains(text) => Envoys::Contains(text.clone()),
        Pattern::SafeRegex(expression) => {
            return regex::whole(named(&expression.regex, "regex")?, "regex")
                .map(StringMatcher::Regex)
                .within("safe_regex");
        }
        Pattern::Custom(_) => {
            return Err(ConfigError::new(
                "custom",
                "matchers that come from extensions are not supported",
            ));
        }
    };
    matcher::string(&http::StringMatcher {
        match_pattern: Some(pattern),
        ignore_case: proto.ignore_case,
    })
}
