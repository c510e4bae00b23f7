use super::*;

const TITLE: &str = "Secret outrider-system/outrider-ca";

fn new() -> AuthorityMaterial {
    let domain = TrustDomain::new("cluster.local").unwrap();
    AuthorityMaterial::self_signed(&domain, SystemTime::now()).unwrap()
}

#[test]
fn an_empty_secret_is_filled_with_what_is_read_back() {
    let empty = Secret::default();
    assert_eq!(material(&empty, TITLE).unwrap(), None);
    let nothing = String::new();
    let blank = BTreeMap::from([(CERTIFICATE, &nothing), (KEY, &nothing), (ROOTS, &nothing)]);
    let blank = with_texts(Secret::default(), blank);
    assert_eq!(material(&blank, TITLE).unwrap(), None);

    let mut other = empty;
    other.data = Some(BTreeMap::from([("x".to_owned(), ByteString(vec![1]))]));
    let new = new();
    let filled = fill(other, &new);
    assert_eq!(filled.data.as_ref().unwrap().len(), 4, "the rest stays");
    let read = material(&filled, TITLE).unwrap().unwrap();
    assert_eq!(read.key.pem, new.key.pem);
    assert_eq!(read.key.origin, format!("{TITLE}, key tls.key"));
    let domain = TrustDomain::new("cluster.local").unwrap();
    let lifetimes = Lifetimes::default();
    assert!(Authority::new(read, &domain, lifetimes, SystemTime::now()).is_ok());
}

#[test]
fn what_is_missing_or_wrong_is_named_and_never_quoted() {
    let (new, other) = (new(), new());
    let secret = |texts: &[(&'static str, &String)]| {
        with_texts(Secret::default(), texts.iter().copied().collect())
    };
    let (certificate, key) = (&new.certificate.pem, &new.key.pem);
    let garbage = "garbage".to_owned();
    let cases: &[(&[(&'static str, &String)], &str)] = &[
        (&[(KEY, key), (ROOTS, certificate)], "no tls.crt"),
        (&[(CERTIFICATE, certificate)], "no tls.key"),
        (&[(ROOTS, certificate)], "no tls.crt"),
        (
            &[(CERTIFICATE, certificate), (KEY, &other.key.pem)],
            "another key than the one in Secret outrider-system/outrider-ca, key tls.key",
        ),
        (
            &[(CERTIFICATE, certificate), (KEY, &garbage)],
            "key tls.key: not a usable private key",
        ),
        (
            &[(CERTIFICATE, &garbage), (KEY, key)],
            "key tls.crt: no CERTIFICATE",
        ),
        (
            &[
                (CERTIFICATE, certificate),
                (KEY, key),
                (ROOTS, &other.certificate.pem),
            ],
            "root in Secret outrider-system/outrider-ca, key ca.crt",
        ),
    ];
    let domain = TrustDomain::new("cluster.local").unwrap();
    for (texts, reason) in cases {
        let read = material(&secret(texts), TITLE);
        let error = read
            .and_then(|read| {
                let (lifetimes, now) = (Lifetimes::default(), SystemTime::now());
                Ok(Authority::new(read.unwrap(), &domain, lifetimes, now)?)
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains(TITLE) && error.contains(reason), "{error}");
        let secret_line = other.key.pem.lines().nth(1).unwrap();
        assert!(!error.contains(secret_line) && !error.contains("garbage"));
    }
}
