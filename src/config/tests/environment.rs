//! Variables: each key can be set, each mistake names its variable.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::super::Settings;
use super::super::settings::{LogFormat, Rung, SourceSettings};
use super::{ROUTES, good, load};

#[test]
fn a_variable_wins_over_the_file_and_over_the_default() {
    let settings = good(
        "heal.wait = '20s'\n",
        &[("IIIF_MENDER__HEAL__WAIT", "10s"), ("IIIF_MENDER__HEAL__COOLDOWN", "5s")],
    );
    assert_eq!(
        (settings.heal.wait, settings.heal.cooldown),
        (Duration::from_secs(10), Duration::from_secs(5))
    );
}

#[test]
fn values_of_every_kind_can_be_set() {
    let settings = good(
        "",
        &[
            ("IIIF_MENDER__SERVER__LISTEN", "0.0.0.0:80, [::1]:80"),
            ("IIIF_MENDER__SERVER__PUBLIC_HOSTS", "a.test,B.test"),
            ("IIIF_MENDER__SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
            ("IIIF_MENDER__SERVER__TLS__CERT", "a.pem"),
            ("IIIF_MENDER__SERVER__TLS__KEY", "\"b.pem\""),
            ("IIIF_MENDER__SERVER__MAX_HEAD_BYTES", "131072"),
            ("IIIF_MENDER__SERVER__NAME", "1.5"),
            ("IIIF_MENDER__ADMIN__LISTEN", "off"),
            ("IIIF_MENDER__INDEX__SOURCES", "[{ url = 'http://a.test/m.json' }]"),
            ("IIIF_MENDER__INDEX__SOURCES__1__PATH", "m/"),
            ("IIIF_MENDER__HEAL__ENABLED", "true"),
            ("IIIF_MENDER__HEAL__STATUSES", "404,410"),
            ("IIIF_MENDER__HEAL__LADDER", "visit, rebuild"),
            ("IIIF_MENDER__HEAL__ORIGINS", ""),
            ("IIIF_MENDER__HEAL__CONCURRENCY", "4"),
            ("IIIF_MENDER__HEAL__IDENTIFIERS", "^[0-9a-f-]{36}$"),
            ("IIIF_MENDER__HEAL__MASS_EXPIRY", "{ ids = 3 }"),
            ("IIIF_MENDER__HEAL__MASS_EXPIRY__WITHIN", "1s"),
            ("IIIF_MENDER__LOG__FORMAT", "json"),
            ("IIIF_MENDER_CONFIG", "not ours"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(
        settings.server.listen.iter().map(|listen| listen.address.to_string()).collect::<Vec<_>>(),
        ["0.0.0.0:80", "[::1]:80"]
    );
    assert_eq!(settings.server.public_hosts, ["a.test", "b.test"]);
    assert_eq!(settings.server.trusted_proxies.len(), 1);
    assert_eq!(settings.server.tls.map(|tls| tls.key[0].clone()), Some("/etc/mender/b.pem".into()));
    assert_eq!(settings.server.max_head_bytes, 131_072);
    assert_eq!(settings.server.name, "1.5");
    assert_eq!(settings.admin.listen, None);
    assert_eq!(
        settings.index.sources,
        [SourceSettings::url("http://a.test/m.json"), SourceSettings::path("/etc/mender/m/")]
    );
    assert_eq!(settings.heal.statuses, [404, 410]);
    assert_eq!(settings.heal.ladder, [Rung::Visit, Rung::Rebuild]);
    assert!(settings.heal.origins.is_empty());
    assert_eq!(settings.heal.concurrency, 4);
    assert!(settings.heal.identifiers.is_some_and(|pattern| !pattern.is_match("x")));
    assert_eq!(
        (settings.heal.mass_expiry.ids, settings.heal.mass_expiry.within),
        (3, Duration::from_secs(1))
    );
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn a_route_can_be_changed_and_added_by_its_number() {
    let settings = good(
        "",
        &[
            ("IIIF_MENDER__ROUTES__0__CONNECT", "10.1.2.3:443"),
            ("IIIF_MENDER__ROUTES__2__PREFIX", "/"),
            ("IIIF_MENDER__ROUTES__2__UPSTREAM", "http://rest.test"),
            ("IIIF_MENDER__ROUTES__2__HOSTS", "rest.test"),
        ],
    );
    let image = settings.routes.iter().find(|route| route.prefix == "/iiif/2/").expect("it is in the file");
    assert_eq!(image.connect, ["10.1.2.3:443"]);
    let added = settings.routes.last().expect("three routes");
    assert_eq!(
        (added.upstream.authority.as_str(), added.hosts.as_slice()),
        ("rest.test", &["rest.test".to_owned()][..])
    );
}

#[test]
fn a_whole_configuration_can_come_from_the_environment() {
    let settings = load("", &[("IIIF_MENDER__ROUTES", "[{ prefix = '/', upstream = 'http://a.test/' }]")]);
    assert_eq!(settings.map(|settings| settings.routes.len()).ok(), Some(1));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused_only_when_it_is_ours() {
    use std::os::unix::ffi::OsStringExt;
    let raw = || OsString::from_vec(vec![0xff]);
    let path = Path::new("config.toml");
    let others = Settings::from_text(path, ROUTES, [(OsString::from("LS_COLORS"), raw())]);
    assert!(others.is_ok());
    let ours = Settings::from_text(path, ROUTES, [(OsString::from("IIIF_MENDER__HEAL__WAIT"), raw())]);
    assert!(ours.expect_err("not text").0[0].message.contains("IIIF_MENDER__HEAL__WAIT is not UTF-8"));
}
