use super::*;

#[test]
fn tables_are_sorted_and_point_inside_themselves() {
    assert!(
        MESSAGES
            .windows(2)
            .all(|pair| text(pair[0].name) < text(pair[1].name))
    );
    for at in 0..MESSAGES.len() {
        let message = Message(u16::try_from(at).unwrap());
        assert_eq!(Message::named(message.name()), Some(message));
        let numbers: Vec<u32> = message.fields().map(Field::number).collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] < pair[1]),
            "{}",
            message.name()
        );
        for field in message.fields() {
            assert_eq!(message.field(field.number()), Some(field));
            match field.kind() {
                Kind::Message(Some(target)) => assert!(!target.name().is_empty()),
                Kind::Enum(Some(target)) => assert!(target.values().count() > 0),
                // What is acted on must be known down to its leaves.
                Kind::Message(None) | Kind::Enum(None) => {
                    assert!(
                        matches!(field.support(), Support::Rejected(_)),
                        "{}",
                        field.name()
                    );
                }
                _ => {}
            }
        }
    }
}

#[test]
fn tables_know_what_the_protos_say() {
    let cluster = Message::named("envoy.config.cluster.v3.Cluster").unwrap();
    let policy = cluster.field_for_key("lbPolicy").unwrap();
    assert_eq!((policy.name(), policy.number()), ("lb_policy", 6));
    let Kind::Enum(Some(values)) = policy.kind() else {
        panic!("lb_policy is an enum")
    };
    assert_eq!(values.value_number("LEAST_REQUEST"), Some(1));
    assert_eq!(values.value_name(0), Some("ROUND_ROBIN"));
    assert!(
        cluster
            .field_for_key("typed_extension_protocol_options")
            .unwrap()
            .is_map()
    );
    assert_eq!(
        cluster.field_for_key("type").unwrap().oneof(),
        cluster.field_for_key("clusterType").unwrap().oneof()
    );
    assert!(
        matches!(cluster.field(8).unwrap().support(), Support::Rejected(why) if !why.is_empty())
    );

    let certificate =
        Message::for_type_url("x/envoy.extensions.transport_sockets.tls.v3.TlsCertificate");
    let sensitive: Vec<&str> = certificate
        .unwrap()
        .fields()
        .filter(|field| field.is_sensitive())
        .map(Field::name)
        .collect();
    assert_eq!(sensitive, ["private_key", "password", "pkcs12"]);
}

/// The tables' size is a promise of the design: no pool, no heap, little memory.
#[test]
fn tables_are_small() {
    let bytes = TEXT.len()
        + size_of_val(&MESSAGES)
        + size_of_val(&FIELDS)
        + size_of_val(&ENUMS)
        + size_of_val(&VALUES);
    assert!(bytes < 256 * 1024, "{bytes} bytes");
    println!("the schema tables take {bytes} bytes");
}
