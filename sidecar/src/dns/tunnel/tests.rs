use proptest::prelude::*;

use super::*;

/// Names that agents ask for in an ordinary minute, the longest kinds among them.
const ORDINARY: [&str; 62] = [
    "api.anthropic.com",
    "statsig.anthropic.com",
    "sentry.io",
    "o1158394.ingest.us.sentry.io",
    "github.com",
    "api.github.com",
    "codeload.github.com",
    "objects.githubusercontent.com",
    "raw.githubusercontent.com",
    "productionresultssa0.blob.core.windows.net",
    "super-duper-adventure-v6q9x7j4pq3x5w-3000.app.github.dev",
    "registry.npmjs.org",
    "pypi.org",
    "files.pythonhosted.org",
    "index.crates.io",
    "static.crates.io",
    "proxy.golang.org",
    "sum.golang.org",
    "repo1.maven.org",
    "deb.debian.org",
    "production.cloudflare.docker.com",
    "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
    "d5l0dvt14r5h8.cloudfront.net",
    "d111111abcdef8.cloudfront.net",
    "prod-us-west-2-starport-layer-bucket.s3.us-west-2.amazonaws.com",
    "sfc-prod3-ds1-16-customer-stage.s3.us-west-2.amazonaws.com",
    "dynamodb.eu-central-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "vpce-0123456789abcdef0-abcdefgh-us-east-1a.execute-api.us-east-1.vpce.amazonaws.com",
    "0123456789ABCDEF0123456789ABCDEF.gr7.us-east-1.eks.amazonaws.com",
    "mydb.cluster-ro-c9akciq32rzy.us-east-1.rds.amazonaws.com",
    "internal-k8s-default-myingress-0123456789-1234567890.us-east-1.elb.amazonaws.com",
    "ec2-203-0-113-25.us-west-2.compute.amazonaws.com",
    "ip-10-0-12-34.us-west-2.compute.internal",
    "storage.googleapis.com",
    "us-central1-aiplatform.googleapis.com",
    "service-abcdefghij-uc.a.run.app",
    "r3---sn-n4v7sn7l.googlevideo.com",
    "rr5---sn-4g5ednsl.googlevideo.com",
    "login.microsoftonline.com",
    "myaccount.privatelink.blob.core.windows.net",
    "md-hdd-abc1defghijk.z12.blob.storage.azure.net",
    "myapp.happyhill-70162bb9.canadacentral.azurecontainerapps.io",
    "adb-1234567890123456.7.azuredatabricks.net",
    "contoso-my.sharepoint.com",
    "project-git-feature-a-very-long-branch-name-team-name.vercel.app",
    "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi.ipfs.dweb.link",
    "_3639ac514e785e898d2646601fa951d5.example.com",
    "abcdefghijklmnopqrstuvwxyz123456._domainkey.example.com",
    "_dmarc.example.com",
    "www.bbc.co.uk",
    "static.files.bbci.co.uk",
    "e11847.dscg.akamaiedge.net",
    "e6858.dscx.akamaiedge.net",
    "a1887.dscq.akamai.net",
    "4.3.2.1.in-addr.arpa",
    "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
    "web-0.nginx.default.svc.cluster.local",
    "10-244-0-5.default.pod.cluster.local",
    "kubernetes.default.svc.cluster.local",
    "chaperone-operator.chaperone-system.svc.cluster.local",
    "_https._tcp.api.example.com",
];

const SEARCH: [&str; 3] = [
    "agents.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
];

fn tunnels(now: Instant) -> Tunnels {
    Tunnels::new(&SEARCH.map(str::to_owned), now)
}

/// Asks as a client with a search list does: every completion of every name, for both families.
fn ask(tunnels: &mut Tunnels, name: &str, now: Instant) -> Option<Sign> {
    let completed = SEARCH.iter().map(|domain| format!("{name}.{domain}"));
    let names: Vec<String> = completed.chain([name.to_owned()]).collect();
    let kinds = ["A", "AAAA", "HTTPS"];
    names
        .iter()
        .flat_map(|name| kinds.map(|kind| (name, kind)))
        .find_map(|(name, kind)| tunnels.check(name, kind, now))
}

#[test]
fn ordinary_names_trip_nothing_with_search_lists_again_and_again() {
    let now = Instant::now();
    let mut tunnels = tunnels(now);
    for _ in 0..20 {
        for name in ORDINARY {
            let name = name.to_ascii_lowercase();
            assert_eq!(ask(&mut tunnels, &name, now), None, "{name}");
        }
    }
    let used = tunnels
        .domains
        .values()
        .map(|window| window.information)
        .fold(0.0, f64::max);
    assert!(
        used < MAX_INFORMATION / 4.0,
        "{used} bytes: too close to the limit"
    );
    assert!(tunnels.all.information < MAX_INFORMATION_OF_ALL / 4.0);
}

#[test]
fn a_walk_through_a_providers_tenants_and_a_crawl_of_many_sites_trip_nothing() {
    let now = Instant::now();
    let mut tunnels = tunnels(now);
    for number in 0..200 {
        let bucket = format!("customer-reports-{number}.s3.eu-central-1.amazonaws.com");
        assert_eq!(ask(&mut tunnels, &bucket, now), None, "bucket {number}");
    }
    for number in 0..1_000 {
        assert_eq!(
            ask(&mut tunnels, &format!("www.site-number-{number}.org"), now),
            None,
            "site {number}"
        );
    }
}

/// Text that says as much as text of its alphabet can.
fn noise(seed: u64, length: usize) -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(alphabet[usize::try_from(state >> 59).unwrap()])
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn tunnels_trip_within_few_kilobytes_whatever_shape_they_have() {
    let now = Instant::now();
    // Long names, as iodine's and dnscat2's; single labels; short ones; words by number.
    type Shape = fn(u64) -> String;
    let shapes: [(&str, Shape); 4] = [
        ("one label", |n| format!("{}.evil.example", noise(n, 60))),
        ("two labels", |n| {
            format!("{}.{}.evil.example", noise(n, 60), noise(n + 10_000, 60))
        }),
        ("short labels", |n| format!("{}.evil.example", noise(n, 6))),
        ("below a search domain", |n| {
            format!("{}.evil.example.svc.cluster.local", noise(n, 60))
        }),
    ];
    for (what, name) in shapes {
        let mut tunnels = tunnels(now);
        let passed = (0..1_000).take_while(|n| tunnels.check(&name(*n), "A", now).is_none());
        let bytes: usize = passed.map(|n| name(n).len()).sum();
        assert!(bytes < 12 * 1024, "{what}: {bytes} bytes passed");
    }
    assert_eq!(
        tunnels(now).check(&format!("{0}.{0}.{0}.evil.example", noise(1, 60)), "A", now),
        Some(Sign::Length)
    );
    assert_eq!(
        tunnels(now).check("x.evil.example", "NULL", now),
        Some(Sign::Type)
    );
    assert_eq!(
        tunnels(now).check("x.evil.example", "TYPE65399", now),
        Some(Sign::Type)
    );
}

#[test]
fn a_tunnel_over_many_domains_trips_too() {
    let now = Instant::now();
    let mut tunnels = tunnels(now);
    let name = |n: u64| format!("{}.evil-{}.example", noise(n, 60), n % 900);
    let passed = (0..2_000)
        .take_while(|n| tunnels.check(&name(*n), "A", now).is_none())
        .count();
    assert!(passed < 600, "{passed} names passed");
}

#[test]
fn text_is_asked_for_at_a_bounded_rate_and_the_limits_lift_with_the_minute() {
    let now = Instant::now();
    let mut tunnels = tunnels(now);
    let passed = (0..200)
        .take_while(|_| tunnels.check("x.evil.example", "TXT", now).is_none())
        .count();
    assert_eq!(passed, 60);
    assert_eq!(
        tunnels.check("x.evil.example", "A", now),
        None,
        "other types go on"
    );
    assert_eq!(
        tunnels.check("x.good.example", "TXT", now),
        None,
        "other domains too"
    );
    assert_eq!(tunnels.check("x.evil.example", "TXT", now + WINDOW), None);
}

#[test]
fn names_are_split_at_the_registered_domain() {
    for (name, part, domain) in [
        ("a.b.example.com", "a.b", "example.com"),
        ("example.com", "", "example.com"),
        ("www.bbc.co.uk", "www", "bbc.co.uk"),
        ("bbc.co.uk", "", "bbc.co.uk"),
        ("localhost", "", "localhost"),
        ("4.3.2.1.in-addr.arpa", "4.3", "2.1.in-addr.arpa"),
        ("", "", ""),
    ] {
        assert_eq!(split(name), (part, domain), "{name}");
    }
}

proptest! {
    #[test]
    fn any_names_keep_memory_bounded(names in proptest::collection::vec("[a-z0-9._-]{0,80}", 0..200)) {
        let now = Instant::now();
        let mut tunnels = tunnels(now);
        for name in &names {
            for number in 0..8 {
                tunnels.check(&format!("{name}.{number}.x{number}"), "A", now);
            }
            let says = information(name);
            prop_assert!((0.0..=80.0).contains(&says));
        }
        prop_assert!(tunnels.domains.len() <= MAX_DOMAINS);
        prop_assert!(tunnels.domains.values().all(|window| window.names.len() <= MAX_NAMES));
    }
}
