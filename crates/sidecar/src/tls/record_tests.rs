//! Records without a connection: every version and cipher, and every way in which one can be wrong.

use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::record::{
    ContentType, Gathered, MAX_PLAINTEXT, MAX_SEALED, Opener, RecordError, Sealer, record_length,
};
use crate::config::tls::TlsVersion;

fn secrets(aes: bool) -> ConnectionTrafficSecrets {
    let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
    if aes {
        ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    } else {
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
    }
}

fn each_kind(mut test: impl FnMut(&mut dyn FnMut() -> (Sealer, Opener))) {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for aes in [true, false] {
            test(&mut || {
                (
                    Sealer::new(version, (1, secrets(aes)), 1 << 24).unwrap(),
                    Opener::new(version, (1, secrets(aes))).unwrap(),
                )
            });
        }
    }
}

fn seal(sealer: &mut Sealer, slices: &[&[u8]]) -> Vec<u8> {
    let mut record = vec![0; MAX_SEALED];
    let kind = ContentType::APPLICATION_DATA;
    let length = sealer
        .seal(kind, Gathered::new(slices), &mut record)
        .unwrap();
    record.truncate(length);
    record
}

#[test]
fn what_is_sealed_opens_in_order_whichever_way_and_only_once() {
    each_kind(|pair| {
        let (mut sealer, mut opener) = pair();
        let whole = vec![3; MAX_PLAINTEXT];
        for slices in [
            &[&b"one"[..]][..],
            &[b"two", b"", b"parts"],
            &[&whole],
            &[b""],
        ] {
            let mut record = seal(&mut sealer, slices);
            assert_eq!(record_length(&record), Ok(Some(record.len())));
            let mut out = vec![0; opener.room(record.len())];
            let (kind, length) = opener.open_into(&record, &mut out).unwrap();
            assert_eq!(kind, ContentType::APPLICATION_DATA);
            assert_eq!(out[..length], slices.concat());
            let again = opener.open_in_place(&mut record);
            assert_eq!(again.unwrap_err(), RecordError::BadMac, "a replay");

            let mut record = seal(&mut sealer, slices);
            let (_, content) = opener.open_in_place(&mut record).unwrap();
            assert_eq!(content, slices.concat());
        }
    });
}

#[test]
fn no_byte_of_a_record_can_be_changed_and_none_cut_off() {
    each_kind(|pair| {
        let record = seal(&mut pair().0, &[b"attack at dawn"]);
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            // The length is for who cuts the stream into records: opened alone, it is ignored by
            // TLS 1.2, whose tag covers the plaintext's.
            let of_length = (1..5).contains(&at);
            let outcome = pair().1.open_in_place(&mut changed).map(|_| ());
            assert!(outcome.is_err() || of_length, "byte {at}: {outcome:?}");
            let mut cut = record[..at].to_vec();
            assert!(pair().1.open_in_place(&mut cut).is_err(), "cut at {at}");
        }
    });
}

#[test]
fn what_is_no_record_is_told_by_its_header() {
    for (bytes, expected) in [
        (&b""[..], Ok(None)),
        (b"\x17\x03\x03\x00", Ok(None)),
        (b"\x17\x03\x03\x00\x05", Ok(Some(10))),
        (b"GET / HTTP/1.1", Err(RecordError::NotTls)),
        (b"\x18\x03\x03\x00\x05", Err(RecordError::NotTls)),
        (b"\x17\x03\x03\xff\xff", Err(RecordError::TooLong)),
    ] {
        assert_eq!(record_length(bytes), expected, "{bytes:?}");
    }
}
