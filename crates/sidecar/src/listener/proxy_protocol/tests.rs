use super::*;
use crate::config::listener_filter::PassThrough;

fn config() -> ProxyProtocol {
    ProxyProtocol {
        stat_prefix: "".into(),
        into_filter_state: false,
        rules: Vec::new(),
        optional: false,
        pass_through: PassThrough::None,
        v1_disallowed: false,
        v2_disallowed: false,
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE_V2.to_vec();
    bytes.extend([command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

const FOUR: [u8; 12] = [10, 1, 2, 3, 192, 0, 2, 4, 3, 232, 0, 80];

/// Each outcome in a few words, as a real Envoy has it.
#[test]
fn headers_are_taken_as_envoy_takes_them() {
    let from_ten = "10.1.2.3:1000 192.0.2.4:80";
    let mut with_tlv = FOUR.to_vec();
    with_tlv.extend(b"\x02\0\x03abc");
    let mut cut_tlv = FOUR.to_vec();
    cut_tlv.extend(b"\x02\0\x04abc");
    let mut cut_head = FOUR.to_vec();
    cut_head.extend(b"\x02\0");
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120], b"\r\n"].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"PROXY TCP4 10.1.2.3 192.0.2.4 1000 80\r\nGET", from_ten),
        (b"PROXY TCP6 a::1 b::2 1000 80\r\n", "[a::1]:1000 [b::2]:80"),
        (b"PROXY TCP4 10.1.2.3 192.0.2.4 01000 80\r\n", from_ten),
        (b"PROXY UNKNOWN\r\n", "none"),
        (b"PROXY UNKNOWN 1 2 3\r\n", "none"),
        (b"PROXY TCP4 10.1.2.3 192.0.2.4 1000 80", "more"),
        (b"PROX", "more"),
        (b"PROXY TCP4 1.2.3 192.0.2.4 1000 80\r\n", "broken 1"),
        (b"PROXY TCP6 10.0.0.1 10.0.0.2 1000 80\r\n", "broken 1"),
        (b"PROXY TCP4 a::1 b::2 1000 80\r\n", "broken 1"),
        (b"PROXY TCP4 10.1.2.3 192.0.2.4 70000 80\r\n", "broken 1"),
        (b"PROXY TCP4 10.1.2.3 192.0.2.4 +1000 80\r\n", "broken 1"),
        (b"PROXY TCP4  10.1.2.3 192.0.2.4 1000 80\r\n", "broken 1"),
        (b"PROXY TCP4 10.1.2.3 192.0.2.4 1000 80 9\r\n", "broken 1"),
        (b"PROXY TCP4 230.0.0.1 192.0.2.4 1000 80\r\n", "broken 1"),
        (b"PROXY TCP4 0.0.0.0 192.0.2.4 1000 80\r\n", "broken 1"),
        (b"PROXY \r\n", "broken 1"),
        (&long, "broken 1"),
        (b"GET / HTTP/1.1\r\n", "missing"),
        (b"\r\n\r\n\0\r\n", "more"),
        (&v2(0x21, 0x11, &FOUR), from_ten),
        (&v2(0x21, 0x12, &FOUR), from_ten),
        (
            &v2(0x21, 0x11, &with_tlv),
            "10.1.2.3:1000 192.0.2.4:80 2=abc",
        ),
        (&v2(0x21, 0x11, &cut_tlv), "broken 2"),
        (&v2(0x21, 0x11, &cut_head), "broken 2"),
        (&v2(0x20, 0x11, &FOUR), "none"),
        (&v2(0x20, 0, b""), "none"),
        (&v2(0x21, 0, b""), "broken 2"),
        (&v2(0x21, 0x31, &[b'a'; 216]), "broken 2"),
        (&v2(0x31, 0x11, &FOUR), "broken 2"),
        (&v2(0x22, 0x11, &FOUR), "broken 2"),
        (&v2(0x21, 0x11, b"abc"), "broken 2"),
        (&v2(0x21, 0x11, &FOUR)[..20], "more"),
    ];
    for (bytes, expected) in cases {
        let found = match parse(bytes, &config()) {
            Parsed::NeedMore => "more".to_owned(),
            Parsed::Absent => "absent".to_owned(),
            Parsed::Missing => "missing".to_owned(),
            Parsed::Disallowed(version) => format!("disallowed {version}"),
            Parsed::Broken(version) => format!("broken {version}"),
            Parsed::Header(header, _) => {
                let mut text = match header.addresses {
                    None => "none".to_owned(),
                    Some((source, destination)) => format!("{source} {destination}"),
                };
                for tlv in header.tlvs {
                    text += &format!(" {}={}", tlv.kind, tlv.value.escape_ascii());
                }
                text
            }
        };
        assert_eq!(found, *expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn the_length_is_that_of_the_header_alone() {
    let Parsed::Header(_, length) = parse(b"PROXY UNKNOWN\r\nGET /\r\n", &config()) else {
        panic!("a header");
    };
    assert_eq!(length, 15);
}

#[test]
fn what_is_not_allowed_is_refused_or_taken_for_other_bytes() {
    let line = b"PROXY UNKNOWN\r\n";
    let only_v2 = ProxyProtocol {
        v1_disallowed: true,
        ..config()
    };
    assert_eq!(parse(line, &only_v2), Parsed::Disallowed(1));
    let optional = ProxyProtocol {
        optional: true,
        ..only_v2
    };
    assert_eq!(parse(line, &optional), Parsed::Absent);
    assert_eq!(parse(b"GET /", &optional), Parsed::Absent);
    assert_eq!(parse(b"\r\n\r\n", &optional), Parsed::NeedMore);
}
