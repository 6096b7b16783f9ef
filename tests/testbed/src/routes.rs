//! Routes of a proxy in front of the stand-ins.

/// Two `[[routes]]` of a configuration: pictures under `/iiif/2/`, presentations under `/iiif-service/`, each to the
/// origin (scheme and authority) that is given.
pub fn routes(images: &str, service: &str) -> String {
    format!(
        r#"
        [[routes]]
        prefix = "/iiif/2/"
        upstream = "{images}/iiif/2/"
        kind = "image"
        [[routes]]
        prefix = "/iiif-service/"
        upstream = "{service}/iiif-service/"
        kind = "presentation"
        "#
    )
}
