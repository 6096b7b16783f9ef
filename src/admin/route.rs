//! Routes of the admin listener. Pure.

/// Parsed target of an admin request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminRoute {
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// The description of the API.
    Description,
    /// Live event stream (SSE).
    Events,
    /// A page of the dashboard.
    Page(DashboardPage),
    /// Static file: content type and text.
    Asset(&'static str, &'static str),
    /// Images that readers do not get.
    Broken,
    /// GET endpoint of the API.
    Read(ApiQuery),
    /// POST endpoint of the API.
    Act(AdminAction),
}

/// GET endpoints of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiQuery {
    Stats,
    Servers,
    Heals,
    Heal(i64),
    Images,
    Sources,
    Manifests,
    Manifest(i64),
    Canvas(i64),
    Thumbnail(String),
}

/// A page of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DashboardPage {
    Now,
    /// Parts of the overview that a live page renews.
    NowLive,
    Broken,
    Collections,
    Manifest(i64),
    Heals,
    Heal(i64),
    Search,
    Setup,
}

/// POST endpoints of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdminAction {
    Heal,
    Rebuild,
    Forget,
    ResetBreakers,
    StartSweep,
    StopSweep,
    PurgeCache,
    ClearCache,
    Reload,
}

impl AdminAction {
    /// Path of the act, which is its name in the log too.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Heal => "heal",
            Self::Rebuild => "rebuild",
            Self::Forget => "forget",
            Self::ResetBreakers => "breakers/reset",
            Self::StartSweep => "sweep/start",
            Self::StopSweep => "sweep/stop",
            Self::PurgeCache => "cache/purge",
            Self::ClearCache => "cache/clear",
            Self::Reload => "reload",
        }
    }
}

const ACTS: [AdminAction; 9] = [
    AdminAction::Heal,
    AdminAction::Rebuild,
    AdminAction::Forget,
    AdminAction::ResetBreakers,
    AdminAction::StartSweep,
    AdminAction::StopSweep,
    AdminAction::PurgeCache,
    AdminAction::ClearCache,
    AdminAction::Reload,
];

/// Route at this path.
pub(super) fn parse(path: &str) -> Option<AdminRoute> {
    match path {
        "/livez" => return Some(AdminRoute::Live),
        "/readyz" => return Some(AdminRoute::Ready),
        "/metrics" => return Some(AdminRoute::Metrics),
        _ => {}
    }
    let Some(path) = path.strip_prefix("/api/v1/") else { return page(path) };
    if let Some(act) = ACTS.into_iter().find(|act| act.as_str() == path) {
        return Some(AdminRoute::Act(act));
    }
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let number = || rest.and_then(|rest| rest.parse::<i64>().ok()).filter(|id| *id > 0);
    Some(AdminRoute::Read(match (first, rest) {
        ("openapi.json", None) => return Some(AdminRoute::Description),
        ("events", None) => return Some(AdminRoute::Events),
        ("broken", None) => return Some(AdminRoute::Broken),
        ("stats", None) => ApiQuery::Stats,
        ("servers", None) => ApiQuery::Servers,
        ("heals", None) => ApiQuery::Heals,
        ("heals", Some(_)) => ApiQuery::Heal(number()?),
        ("images", None) => ApiQuery::Images,
        ("images", Some(rest)) => ApiQuery::Thumbnail(thumbnail(rest)?),
        ("sources", None) => ApiQuery::Sources,
        ("manifests", None) => ApiQuery::Manifests,
        ("manifests", Some(_)) => ApiQuery::Manifest(number()?),
        ("canvases", Some(_)) => ApiQuery::Canvas(number()?),
        _ => return None,
    }))
}

fn page(path: &str) -> Option<AdminRoute> {
    let number = |id: &str| id.parse::<i64>().ok().filter(|id| *id > 0);
    let page = match path {
        "/" => DashboardPage::Now,
        "/now" => DashboardPage::NowLive,
        "/broken" => DashboardPage::Broken,
        "/collections" => DashboardPage::Collections,
        "/heals" => DashboardPage::Heals,
        "/search" => DashboardPage::Search,
        "/setup" => DashboardPage::Setup,
        "/style.css" => return Some(AdminRoute::Asset("text/css", include_str!("assets/style.css"))),
        "/live.js" => return Some(AdminRoute::Asset("text/javascript", include_str!("assets/live.js"))),
        "/icon.svg" => return Some(AdminRoute::Asset("image/svg+xml", include_str!("assets/icon.svg"))),
        other => match other.strip_prefix("/collections/") {
            Some(id) => DashboardPage::Manifest(number(id)?),
            None => DashboardPage::Heal(number(other.strip_prefix("/heals/")?)?),
        },
    };
    Some(AdminRoute::Page(page))
}

/// `{key}/thumbnail`, the key percent-encoded.
fn thumbnail(rest: &str) -> Option<String> {
    let key = rest.strip_suffix("/thumbnail").filter(|key| !key.is_empty() && !key.contains('/'))?;
    let key = percent_encoding::percent_decode_str(key).decode_utf8().ok()?;
    Some(key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        assert_eq!(parse("/livez"), Some(AdminRoute::Live));
        assert_eq!(parse("/api/v1/heals/7"), Some(AdminRoute::Read(ApiQuery::Heal(7))));
        assert_eq!(parse("/api/v1/sweep/start"), Some(AdminRoute::Act(AdminAction::StartSweep)));
        let thumbnail = ApiQuery::Thumbnail("a/b".to_owned());
        assert_eq!(parse("/api/v1/images/a%2Fb/thumbnail"), Some(AdminRoute::Read(thumbnail)));
        for nothing in
            ["/api/v1/heals/x", "/api/v1/heals/0", "/api/v1/", "/api/v2/stats", "/livez/", "/api/v1/stats/1"]
        {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn the_description_names_every_path_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(super::super::OPENAPI).expect("JSON");
        assert!(described["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        let paths = described["paths"].as_object().expect("paths");
        let mut acts = 0;
        for (path, operations) in paths {
            let operations = operations.as_object().expect("operations");
            let real = path.replace("{id}", "1").replace("{key}", "k");
            let asked = parse(&real).unwrap_or_else(|| panic!("{path} is described, and is not there"));
            let method = if matches!(asked, AdminRoute::Act(_)) { "post" } else { "get" };
            acts += usize::from(method == "post");
            assert_eq!(operations.keys().collect::<Vec<_>>(), [method], "{path}");
        }
        assert_eq!(acts, ACTS.len(), "every act is described");
        assert_eq!(paths.len(), ACTS.len() + 16, "every page is described");
    }
}
