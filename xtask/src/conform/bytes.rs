//! Bytes as cases write them and as reports show them.

use anyhow::{Context as _, Result, ensure};

/// Characters up to U+00FF are bytes.
///
/// # Errors
/// When there is another one.
pub(super) fn exact(text: &str) -> Result<Vec<u8>> {
    text.chars()
        .map(|character| u8::try_from(u32::from(character)).ok())
        .collect::<Option<Vec<u8>>>()
        .with_context(|| format!("{text:?}: a raw byte is at most \\xff"))
}

/// Each line ends with CRLF. A text that is only a head is completed with an empty line.
pub(super) fn lines(text: &str) -> Vec<u8> {
    let text = text.trim_end_matches('\n');
    let last = text.rsplit("\n\n").next().unwrap_or_default();
    let first_line = last.lines().next().unwrap_or_default();
    let is_head = !text.contains("\n\n") || first_line.contains(" HTTP/1.");
    let mut whole = text.replace('\n', "\r\n");
    if is_head {
        whole.push_str("\r\n\r\n");
    }
    whole.into_bytes()
}

/// Bytes in hexadecimal; blanks and lines that begin with # are left out.
///
/// # Errors
/// When it is none.
pub(super) fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u32> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|character| !character.is_whitespace())
        .map(|character| {
            character
                .to_digit(16)
                .with_context(|| format!("hex: {character:?} is no digit"))
        })
        .collect::<Result<_>>()?;
    ensure!(digits.len().is_multiple_of(2), "hex: half a byte");
    digits
        .chunks(2)
        .map(|pair| Ok(u8::try_from(pair[0] * 16 + pair[1])?))
        .collect()
}

/// Bytes as a report shows them: short ones whole, long ones by their beginning and length.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 2000;
    let part = &bytes[..bytes.len().min(MOST)];
    let text = part
        .escape_ascii()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'");
    if bytes.len() > MOST {
        let digest = outrider_testkit::servers::sha256(bytes);
        return format!("{text}... ({} bytes, {})", bytes.len(), &digest[..8]);
    }
    text
}
