//! A query string, or the parameters of a form.

/// Names and values, still percent-encoded.
pub struct Query<'a>(pub &'a str);

impl Query<'_> {
    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.decoded()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// Whether there is a parameter of that name.
    pub fn has(&self, name: &str) -> bool {
        self.pairs().any(|(key, _)| key == name)
    }

    /// Whether a parameter has that value.
    pub fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|given| given == value)
    }

    /// All parameters.
    pub fn decoded(&self) -> impl Iterator<Item = (String, String)> {
        self.pairs()
            .map(|(key, value)| (percent_decoded(key), percent_decoded(value)))
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..2)
            .filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                out.push(b' ');
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let query = Query("filter=a%2Eb+c&usedonly&format=json&%61=1");
        assert_eq!(query.get("filter").as_deref(), Some("a.b c"));
        assert_eq!(query.get("a").as_deref(), Some("1"));
        assert!(query.has("usedonly"));
        assert!(query.is("format", "json"));
        assert!(!query.is("format", "text"));
        assert_eq!(percent_decoded("%zz%4%+5"), "%zz%4% 5");
        assert_eq!(Query("").decoded().count(), 0);
    }
}
