//! Base64 as proto3 JSON has it: written in the standard alphabet, read in both, padded or not.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_ENGINE: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_SAFE_ENGINE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD_ENGINE.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let url_safe = text.contains(['-', '_']);
    let engine = if url_safe {
        &URL_SAFE_ENGINE
    } else {
        &STANDARD_ENGINE
    };
    engine.decode(text).ok()
}
