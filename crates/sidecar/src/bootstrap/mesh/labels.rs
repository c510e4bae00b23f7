//! The file in which the downward API shows the pod's labels.

/// One label a line, `name="value"`, the value quoted as Go quotes strings.
///
/// # Errors
/// The line, from 1, that is no such thing.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| label(line).ok_or(index + 1))
        .collect()
}

fn label(line: &str) -> Option<(String, String)> {
    let (name, value) = line.trim().split_once('=')?;
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    // The characters that a label's value may have need no escape.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let valid = !name.is_empty() && value.bytes().all(plain);
    valid.then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_label_a_line() {
        let text = "app=\"cart\"\n\nouter.example/tier=\"\"\npod-template-hash=\"5d-9\"";
        let expected = [
            ("app", "cart"),
            ("outer.example/tier", ""),
            ("pod-template-hash", "5d-9"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), []);
        for bad in [
            "a=\"b\"\nc",
            "a=\"b\"\nc=d",
            "a=\"b\"\n=\"d\"",
            "a=\"b\"\nc=\"d\\n\"",
        ] {
            assert_eq!(parse(bad), Err(2), "{bad}");
        }
    }
}
