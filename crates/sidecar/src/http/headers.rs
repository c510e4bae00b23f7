//! A header list for relaying: one arena of bytes, fields as ranges into it.
//!
//! A proxy reads far more headers than it changes. So fields keep their order and the case of
//! their names, nothing is hashed, and a whole list costs two allocations that the next message
//! on the same connection uses again. Names that the proxy itself acts on are recognised once, when
//! they are pushed, and found by comparing one byte.

use std::fmt;

macro_rules! known_names {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A header name that the proxy itself reads or writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name {
            /// Any other name: compare its text.
            Other,
            $(#[doc = $text] $variant),+
        }

        impl Name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Name] = &[Name::Other, $(Name::$variant),+];

            /// The name in lower case, as HTTP/2 wants it; empty for [`Name::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    Name::Other => "",
                    $(Name::$variant => $text),+
                }
            }

            /// Recognises a name in any case.
            pub fn recognise(name: &[u8]) -> Name {
                // The length alone rules out all but one or two candidates.
                match name.len() {
                    $(n if n == $text.len() && name.eq_ignore_ascii_case($text.as_bytes()) => Name::$variant,)+
                    _ => Name::Other,
                }
            }
        }
    };
}

known_names! {
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Http2Settings = "http2-settings",
    Expect = "expect",
    Cookie = "cookie",
    ContentType = "content-type",
    Date = "date",
    Server = "server",
    Location = "location",
    Referer = "referer",
    UserAgent = "user-agent",
    Via = "via",
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    GrpcTimeout = "grpc-timeout",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedClientCert = "x-forwarded-client-cert",
    XRequestId = "x-request-id",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Name,
    at: u32,
    name_len: u16,
    value_at: u32,
    value_len: u32,
}

/// An ordered list of header or trailer fields; names keep the case in which they came.
#[derive(Clone, Default)]
pub struct Headers {
    arena: Vec<u8>,
    fields: Vec<Field>,
}

impl Headers {
    /// An empty list that allocates when first used.
    pub const fn new() -> Self {
        Headers {
            arena: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Forgets all fields and keeps the memory for the next message.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.fields.clear();
    }

    /// Bytes of memory that it holds on to.
    pub fn capacity(&self) -> usize {
        self.arena.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Makes room for so many fields whose names and values have so many bytes.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.fields.reserve(fields);
        self.arena.reserve(bytes);
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes of all names and values.
    pub fn byte_len(&self) -> usize {
        self.fields
            .iter()
            .map(|f| f.name_len as usize + f.value_len as usize)
            .sum()
    }

    /// Appends a field. The caller has checked the grammar of both (RFC 9110, section 5), and that
    /// the whole head is within the limits that the ranges can hold (a name of 65,535 bytes).
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_recognised(Name::recognise(name), name, value);
    }

    /// Appends a field whose name the proxy knows, in lower case.
    pub fn push_known(&mut self, name: Name, value: &[u8]) {
        self.push_recognised(name, name.as_str().as_bytes(), value);
    }

    /// Appends a field whose name the caller has recognised already: `name` belongs to `text`.
    pub fn push_recognised(&mut self, name: Name, text: &[u8], value: &[u8]) {
        let at = self.arena.len() as u32;
        self.arena.extend_from_slice(text);
        let value_at = self.arena.len() as u32;
        self.arena.extend_from_slice(value);
        self.fields.push(Field {
            name,
            at,
            name_len: text.len() as u16,
            value_at,
            value_len: value.len() as u32,
        });
    }

    fn value_of(&self, field: &Field) -> &[u8] {
        &self.arena[field.value_at as usize..][..field.value_len as usize]
    }

    fn name_of(&self, field: &Field) -> &[u8] {
        &self.arena[field.at as usize..][..field.name_len as usize]
    }

    /// All fields in order: recognised name, name as it came, value.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &[u8], &[u8])> {
        self.fields
            .iter()
            .map(|f| (f.name, self.name_of(f), self.value_of(f)))
    }

    /// The first value of a known name.
    pub fn first(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every value of a known name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |f| f.name == name)
            .map(|f| self.value_of(f))
    }

    /// Whether a known name is there.
    pub fn contains(&self, name: Name) -> bool {
        self.fields.iter().any(|f| f.name == name)
    }

    /// Every value of any name, compared without regard to case.
    pub fn named<'a, 'n>(&'a self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields
            .iter()
            .filter(move |f| {
                f.name_len as usize == name.len() && self.name_of(f).eq_ignore_ascii_case(name)
            })
            .map(|f| self.value_of(f))
    }

    /// Removes every field of a known name; says whether there was one.
    pub fn remove(&mut self, name: Name) -> bool {
        let before = self.fields.len();
        self.fields.retain(|f| f.name != name);
        before != self.fields.len()
    }

    /// Removes every field of any name, compared without regard to case.
    pub fn remove_named(&mut self, name: &[u8]) -> bool {
        let before = self.fields.len();
        let arena = &self.arena;
        self.fields
            .retain(|f| !arena[f.at as usize..][..f.name_len as usize].eq_ignore_ascii_case(name));
        before != self.fields.len()
    }

    /// Keeps the fields for which `keep` answers true.
    pub fn retain(&mut self, mut keep: impl FnMut(Name, &[u8], &[u8]) -> bool) {
        let arena = &self.arena;
        self.fields.retain(|f| {
            keep(
                f.name,
                &arena[f.at as usize..][..f.name_len as usize],
                &arena[f.value_at as usize..][..f.value_len as usize],
            )
        });
    }

    /// Makes `value` the only value of a known name. The first field's place and case are kept.
    pub fn set(&mut self, name: Name, value: &[u8]) {
        let Some(first) = self.fields.iter().position(|f| f.name == name) else {
            return self.push_known(name, value);
        };
        self.replace(first, value);
        let mut index = 0;
        self.fields.retain(|f| {
            let keep = f.name != name || index == first;
            index += 1;
            keep
        });
    }

    /// Makes `value` the only value of any name.
    pub fn set_named(&mut self, name: &[u8], value: &[u8]) {
        let position = self.fields.iter().position(|f| {
            self.arena[f.at as usize..][..f.name_len as usize].eq_ignore_ascii_case(name)
        });
        let Some(first) = position else {
            return self.push(name, value);
        };
        self.replace(first, value);
        let arena = &self.arena;
        let mut index = 0;
        self.fields.retain(|f| {
            let same = arena[f.at as usize..][..f.name_len as usize].eq_ignore_ascii_case(name);
            let keep = !same || index == first;
            index += 1;
            keep
        });
    }

    /// Appends to the last value of a known name, after a comma (RFC 9110, section 5.3), or adds it.
    pub fn append_to_list(&mut self, name: Name, value: &[u8]) {
        self.append_after(name, b",", value);
    }

    /// The same with a separator of its own.
    pub fn append_after(&mut self, name: Name, separator: &[u8], value: &[u8]) {
        let Some(last) = self.fields.iter().rposition(|f| f.name == name) else {
            return self.push_known(name, value);
        };
        let old = self.fields[last];
        let value_at = self.arena.len() as u32;
        let range = old.value_at as usize..(old.value_at + old.value_len) as usize;
        self.arena.extend_from_within(range);
        if old.value_len > 0 {
            self.arena.extend_from_slice(separator);
        }
        self.arena.extend_from_slice(value);
        let field = &mut self.fields[last];
        field.value_at = value_at;
        field.value_len = self.arena.len() as u32 - value_at;
    }

    /// Joins all values of a known name in its first field.
    pub fn join(&mut self, name: Name, separator: &[u8]) {
        if self.all(name).nth(1).is_none() {
            return;
        }
        let value_at = self.arena.len() as u32;
        let mut first = None;
        for index in 0..self.fields.len() {
            let field = self.fields[index];
            if field.name != name {
                continue;
            }
            if first.is_some() {
                self.arena.extend_from_slice(separator);
            }
            first.get_or_insert(index);
            let range = field.value_at as usize..(field.value_at + field.value_len) as usize;
            self.arena.extend_from_within(range);
        }
        let value_len = self.arena.len() as u32 - value_at;
        let mut index = 0;
        self.fields.retain_mut(|field| {
            let is_first = Some(index) == first;
            index += 1;
            if is_first {
                field.value_at = value_at;
                field.value_len = value_len;
            }
            is_first || field.name != name
        });
    }

    fn replace(&mut self, index: usize, value: &[u8]) {
        let value_at = self.arena.len() as u32;
        self.arena.extend_from_slice(value);
        let field = &mut self.fields[index];
        field.value_at = value_at;
        field.value_len = value.len() as u32;
    }
}

/// Names only: a value may be a credential.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.iter()
                    .map(|(_, name, _)| name.escape_ascii().to_string()),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(headers: &Headers) -> Vec<String> {
        headers
            .iter()
            .map(|(_, n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii()))
            .collect()
    }

    #[test]
    fn order_and_case_are_kept_and_lookups_ignore_case() {
        let mut headers = Headers::new();
        headers.push(b"X-First", b"1");
        headers.push(b"HOST", b"example");
        headers.push(b"x-first", b"2");
        assert_eq!(
            shown(&headers),
            ["X-First: 1", "HOST: example", "x-first: 2"]
        );
        assert_eq!(headers.first(Name::Host), Some(&b"example"[..]));
        assert_eq!(headers.named(b"x-FIRST").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn setting_leaves_one_value_in_the_place_of_the_first() {
        let mut headers = Headers::new();
        headers.push(b"A", b"1");
        headers.push(b"b", b"2");
        headers.push(b"a", b"3");
        headers.set_named(b"a", b"new");
        assert_eq!(shown(&headers), ["A: new", "b: 2"]);
        headers.push(b"Host", b"x");
        headers.set(Name::Host, b"y");
        headers.set(Name::Server, b"envoy");
        assert_eq!(
            shown(&headers),
            ["A: new", "b: 2", "Host: y", "server: envoy"]
        );
    }

    #[test]
    fn values_are_joined_in_the_first_field() {
        let mut headers = Headers::new();
        headers.push(b"Cookie", b"a=1");
        headers.push(b"x", b"y");
        headers.join(Name::Cookie, b"; ");
        assert_eq!(shown(&headers), ["Cookie: a=1", "x: y"]);
        headers.push(b"cookie", b"b=2");
        headers.push(b"cookie", b"c=3");
        headers.join(Name::Cookie, b"; ");
        assert_eq!(shown(&headers), ["Cookie: a=1; b=2; c=3", "x: y"]);
    }

    #[test]
    fn lists_grow_by_comma() {
        let mut headers = Headers::new();
        headers.append_to_list(Name::XForwardedFor, b"10.0.0.1");
        headers.append_to_list(Name::XForwardedFor, b"10.0.0.2");
        assert_eq!(shown(&headers), ["x-forwarded-for: 10.0.0.1,10.0.0.2"]);
    }
}
