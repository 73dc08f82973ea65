//! Minted certificates, judged by x509-parser, rustls-webpki and openssl.

use std::process::Command;

use super::*;

/// A time at which certificates are minted in tests.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A fresh root.
pub(crate) fn authority() -> Authority {
    Authority::parse(mint_root(now()).unwrap()).unwrap()
}

/// A signing request with a fresh key, and whatever else asks for more than it should get.
pub(crate) fn request() -> String {
    let mut params = CertificateParams::new(vec!["evil.example.com".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "evil.example.com");
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

const POD: PodName<'static> = PodName {
    namespace: "agents",
    name: "claude-0",
    uid: "uid-1",
};

fn days(days: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_hours(24 * days)
}

#[test]
fn root_may_sign_one_level_of_authorities_for_ten_years() {
    let root = mint_root(now()).unwrap();
    let der = first_certificate(&root.certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let constraints = certificate.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca);
    assert_eq!(constraints.path_len_constraint, Some(1));
    let life = certificate_expiry(&root.certificate).unwrap() - now();
    assert_eq!(
        life.total(jiff::Unit::Hour).unwrap().round() as i64,
        3650 * 24
    );
}

#[test]
fn only_the_public_key_of_a_request_is_used() {
    let authority = authority();
    let chain = authority.sign_intermediate(&request(), POD, now()).unwrap();
    let der = first_certificate(&chain).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let common_name = certificate.subject().iter_common_name().next().unwrap();
    assert_eq!(
        common_name.as_str().unwrap(),
        "chaperone sidecar agents/claude-0"
    );
    assert!(certificate.subject_alternative_name().unwrap().is_none());
    let constraints = certificate.basic_constraints().unwrap().unwrap().value;
    assert_eq!(constraints.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign());
    let life = certificate.validity().not_after.timestamp() - now().as_second();
    assert!((24 * 3600 - 5..=24 * 3600).contains(&life), "{life}");
}

#[test]
fn a_name_too_long_for_a_certificate_is_cut() {
    let name = "p".repeat(253);
    let pod = PodName { name: &name, ..POD };
    let chain = authority()
        .sign_intermediate(&request(), pod, now())
        .unwrap();
    let der = first_certificate(&chain).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let common_name = certificate.subject().iter_common_name().next().unwrap();
    assert_eq!(common_name.as_str().unwrap().len(), MAX_COMMON_NAME);
}

#[test]
fn what_is_no_valid_request_is_refused() {
    let forged = {
        let other = CertificateParams::default()
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap();
        let mut der = other.der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n"
        )
    };
    for bad in ["", "nonsense", &forged] {
        let error = authority().sign_intermediate(bad, POD, now()).unwrap_err();
        assert!(matches!(error, AuthorityError::Request(_)), "{error}");
    }
}

#[test]
fn a_serving_certificate_is_renewed_after_two_thirds_of_its_life_and_when_names_or_root_change() {
    let authority = authority();
    let names = vec!["op.ns.svc".to_owned(), "op.ns.svc.cluster.local".to_owned()];
    let serving = authority
        .mint_serving("chaperone-operator", &names, now())
        .unwrap();
    assert!(authority.vouches_for(&serving, &names, now()));
    assert!(authority.vouches_for(&serving, &names, now() + days(59)));
    assert!(!authority.vouches_for(&serving, &names, now() + days(61)));
    assert!(!authority.vouches_for(&serving, &["other.ns.svc".to_owned()], now()));
    assert!(!super::tests::authority().vouches_for(&serving, &names, now()));
    let garbage = KeyedCertificate {
        certificate: "x".to_owned(),
        key: "y".to_owned(),
    };
    assert!(!authority.vouches_for(&garbage, &names, now()));
}

#[test]
fn a_key_of_another_root_is_refused() {
    let (one, two) = (mint_root(now()).unwrap(), mint_root(now()).unwrap());
    let mixed = KeyedCertificate {
        certificate: one.certificate,
        key: two.key,
    };
    assert!(matches!(
        Authority::parse(mixed),
        Err(AuthorityError::Mismatch)
    ));
}

#[test]
fn openssl_verifies_serving_and_leaf_chains() {
    let folder = std::env::temp_dir().join(format!("chaperone-authority-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let authority = authority();
    write("root.pem", authority.root_pem());
    let names = vec!["op.ns.svc".to_owned()];
    let serving = authority
        .mint_serving("chaperone-operator", &names, now())
        .unwrap();
    write("serving.pem", &serving.certificate);

    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let chain = authority
        .sign_intermediate(&csr.pem().unwrap(), POD, now())
        .unwrap();
    write("intermediate.pem", &chain);
    let issuer = Issuer::from_ca_cert_pem(&chain, key).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["api.example.com".to_owned()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    write("leaf.pem", &leaf.pem());

    let verify = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-CAfile", &path("root.pem")])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    verify(&[
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "op.ns.svc",
        &path("serving.pem"),
    ]);
    verify(&[
        "-untrusted",
        &path("intermediate.pem"),
        "-verify_hostname",
        "api.example.com",
        &path("leaf.pem"),
    ]);
    std::fs::remove_dir_all(&folder).unwrap();
}
