//! Findings about a setup, made of its facts: a sentence or two each, with what to do.

use std::fmt::Write as _;

use serde::Serialize;

use super::facts::{IndexFacts, SetupFacts, UnmappedCanvases};
use crate::config::Settings;
use crate::config::settings::RouteKind;
use crate::heal::UnreachableServer;
use crate::iiif::CanvasUrl;

/// State of one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// Good: as it should be.
    Good,
    /// Works, but not as well as it could.
    Note,
    /// Healing or viewing cannot work so.
    Bad,
}

impl FindingState {
    /// Name in reports, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// A finding about the setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetupFinding {
    /// Subject, out of a closed list.
    pub about: &'static str,
    /// State.
    pub state: FindingState,
    /// Description, with what to do.
    pub text: String,
}

impl SetupFinding {
    fn new(about: &'static str, state: FindingState, text: impl Into<String>) -> Self {
        Self { about, state, text: text.into() }
    }

    /// True if the setup is wrong in this point.
    pub fn is_bad(&self) -> bool {
        self.state == FindingState::Bad
    }

    /// True of the sources of the index.
    pub fn is_about_sources(&self) -> bool {
        self.about == SOURCES
    }

    /// True if all is as it should be.
    pub fn is_good(&self) -> bool {
        self.state == FindingState::Good
    }
}

const LADDER: &str = "ladder";
const SOURCES: &str = "sources";
const INDEX: &str = "index";
const CANVASES: &str = "canvases";
const IMAGE_SERVER: &str = "image server";
const CANVAS_SERVICE: &str = "canvas service";
const PUBLIC_ID: &str = "public @id";
const RESOURCES: &str = "/resources";
const CLOCK: &str = "clock";

/// Subjects of findings, each with its label in metrics.
pub(super) const ABOUT: [(&str, &str); 9] = [
    (LADDER, "ladder"),
    (SOURCES, "sources"),
    (INDEX, "index"),
    (CANVASES, "canvases"),
    (IMAGE_SERVER, "image_server"),
    (CANVAS_SERVICE, "canvas_service"),
    (PUBLIC_ID, "public_id"),
    (RESOURCES, "resources"),
    (CLOCK, "clock"),
];

/// The beginning of image URLs as readers know them; empty: no public host or no image route is known.
pub(crate) fn image_base(settings: &Settings) -> String {
    let route = settings.routes.iter().find(|route| route.kind == RouteKind::Image);
    match (settings.first_public_origin(), route) {
        (Some(origin), Some(route)) => format!("{origin}{}", route.prefix),
        _ => String::new(),
    }
}

/// Clocks may differ by this many seconds.
const CLOCK_DIFFERENCE: i64 = 60;

/// Hosts that a text names.
const MAX_NAMED_HOSTS: usize = 5;

/// The findings that follow from the facts.
pub(crate) fn findings(settings: &Settings, facts: &SetupFacts) -> Vec<SetupFinding> {
    let mut all = vec![ladder(settings, facts)];
    match &facts.index {
        Some(Ok(index)) => all.extend(index_and_sources(settings, index)),
        Some(Err(error)) => {
            let text = format!("it cannot be read, so nothing can be healed: {error}");
            all.push(SetupFinding::new(INDEX, FindingState::Bad, text));
        }
        None => {}
    }
    if facts.canvases.canvases > 0 {
        all.push(canvases(settings, &facts.canvases));
    }
    let silent = |kind| facts.unreachable.iter().flatten().any(|server| server.kind == kind);
    if let Some(unreachable) = &facts.unreachable {
        all.extend(servers(settings, unreachable, RouteKind::Image, IMAGE_SERVER));
        all.extend(servers(settings, unreachable, RouteKind::Presentation, CANVAS_SERVICE));
    }
    if let Some(seen) = &facts.deployment {
        all.extend(
            seen.info_id.iter().filter(|_| !silent(RouteKind::Image)).map(|id| public_id(settings, id)),
        );
        let resources_open = seen.resources_open.filter(|_| !silent(RouteKind::Presentation));
        all.extend(resources_open.map(resources));
        all.extend(seen.clock_ahead.map(clock));
    }
    all
}

/// The finding about `heal.ladder`: whether one of its rungs can bring an image back.
fn ladder(settings: &Settings, facts: &SetupFacts) -> SetupFinding {
    let (heal, images) = (&settings.heal, RouteKind::Image);
    let rungs: Vec<&str> = heal.ladder.iter().map(|rung| rung.as_str()).collect();
    let rungs = rungs.join(", ");
    let index = facts.index.as_ref().and_then(|index| index.as_ref().ok());
    let needs = "Write \"variant\" and \"visit\" into [heal] ladder, or take the line out";
    let (state, text) = if !heal.enabled {
        let text = "[heal] enabled = false: nothing is healed, this is a plain reverse proxy. Take the line out to heal";
        (FindingState::Note, text.to_owned())
    } else if settings.routes.iter().all(|route| route.kind != images) {
        let text = "no route has kind = \"image\", so nothing is healed: write that into the [[routes]] of the image server";
        (FindingState::Bad, text.to_owned())
    } else if let Some((known, images)) = index.and_then(|index| index.files) {
        let text = format!(
            "{rungs} need to know an image's file, which the index does of {known} of {images} images looked at: others are not \
             healed. {needs}; or ask for the files while the images are alive: iiif-mender index learn-files"
        );
        (if known * 2 < images { FindingState::Bad } else { FindingState::Note }, text)
    } else if heal.needs_files() {
        let text = format!("{rungs}: only images whose file is known are healed. {needs}");
        (FindingState::Note, text)
    } else {
        (FindingState::Good, rungs)
    };
    SetupFinding::new(LADDER, state, text)
}

/// The findings about the index and its sources: which ones give no image, and whether there is any.
fn index_and_sources(settings: &Settings, index: &IndexFacts) -> Vec<SetupFinding> {
    let mut all = Vec::new();
    for (location, unreadable) in &index.useless {
        let text = match unreadable {
            Some(why) => format!(
                "{location} cannot be read: {why}. Correct [[index.sources]], or let this user read it"
            ),
            None => format!(
                "no image is known from {location}. Is it the right place, and are there manifests with images in it? \
                 `iiif-mender index build` says what it reads there"
            ),
        };
        all.push(SetupFinding::new(SOURCES, FindingState::Bad, text));
    }
    if index.useless.is_empty() && index.sources > 0 {
        let text = format!("{} read, with images in each", index.sources);
        all.push(SetupFinding::new(SOURCES, FindingState::Good, text));
    }
    let (state, text) = match (index.is_empty, index.sources, settings.index.learn) {
        (false, ..) => (FindingState::Good, "it knows images"),
        (true, 0, true) => (
            FindingState::Bad,
            "it is empty, so nothing can be healed. Write where the manifests are (path = \"…\" or url = \"…\") under \
             [[index.sources]], or open a manifest through the proxy",
        ),
        (true, 0, false) => (
            FindingState::Bad,
            "it is empty, so nothing can be healed, and [index] learn = false keeps it so. Write where the manifests are \
             (path = \"…\" or url = \"…\") under [[index.sources]]",
        ),
        (true, ..) => (
            FindingState::Bad,
            "it is empty, so nothing can be healed: no source gave an image. `iiif-mender index build` says what is wrong \
             with them",
        ),
    };
    all.push(SetupFinding::new(INDEX, state, text));
    all
}

/// Finding about canvases: how many of the index's can be requested.
fn canvases(settings: &Settings, unmapped: &UnmappedCanvases) -> SetupFinding {
    let UnmappedCanvases { canvases, strange, hosts } = unmapped;
    let mut text = format!("{} of {canvases} canvases belong to a presentation route", canvases - strange);
    let state = match strange {
        0 => FindingState::Good,
        some if some == canvases => FindingState::Bad,
        _ => FindingState::Note,
    };
    if state == FindingState::Bad {
        text.push_str(", so nothing can be healed");
    }
    let mut hosts: Vec<_> = hosts.iter().collect();
    hosts.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let seen: Vec<_> =
        hosts.iter().take(MAX_NAMED_HOSTS).map(|(host, (count, _))| format!("{host} ({count})")).collect();
    if let Some((host, (_, example))) = hosts.first() {
        let (seen, remedy) = (seen.join(", "), remedy(settings, host, example));
        let _ = write!(text, ". The others name these hosts: {seen}, such as {example}. {remedy}");
    }
    SetupFinding::new(CANVASES, state, text)
}

/// The change to the configuration that makes this canvas belong to a presentation route.
fn remedy(settings: &Settings, host: &str, example: &str) -> String {
    let Some(url) = CanvasUrl::parse(example) else {
        return "A canvas must be named by a URL".to_owned();
    };
    let ours = &settings.server.public_hosts;
    let mut routes = settings.routes.iter().filter(|route| route.kind == RouteKind::Presentation);
    let lacks_route = routes.all(|route| !url.path.starts_with(&route.prefix));
    let route = "give the [[routes]] of the canvas service (kind = \"presentation\") a prefix with which that path begins";
    if ours.iter().any(|own| url.authority_is(own)) {
        return format!("That host is ours, so {route}");
    }
    let quoted: Vec<_> =
        ours.iter().map(String::as_str).chain([host]).map(|host| format!("\"{host}\"")).collect();
    let line =
        format!("If that is this library, write under [server]: public_hosts = [{}]", quoted.join(", "));
    if lacks_route { format!("{line}; and {route}") } else { line }
}

/// The findings about servers: which ones of the routes of this kind do not answer, or that all do.
fn servers(
    settings: &Settings,
    unreachable: &[UnreachableServer],
    kind: RouteKind,
    about: &'static str,
) -> Vec<SetupFinding> {
    let silent = unreachable.iter().filter(|server| server.kind == kind).map(|server| {
        let UnreachableServer { upstream, why, .. } = server;
        let text = format!(
            "{upstream}: {why}. Start it, or correct `upstream` (or `connect`) of its [[routes]]; until then nothing can be healed"
        );
        SetupFinding::new(about, FindingState::Bad, text)
    });
    let mut all: Vec<_> = silent.collect();
    if all.is_empty() && settings.routes.iter().any(|route| route.kind == kind) {
        all.push(SetupFinding::new(about, FindingState::Good, "it answers"));
    }
    all
}

/// The finding about the `@id` of an info.json: whether it sends viewers to us.
fn public_id(settings: &Settings, id: &Result<String, String>) -> SetupFinding {
    let hosts = &settings.server.public_hosts;
    let (state, text) = match id {
        Err(why) => (FindingState::Note, format!("not seen: {why}")),
        Ok(_) if hosts.is_empty() => {
            (FindingState::Note, "not checked: [server] public_hosts is empty".to_owned())
        }
        Ok(id) => {
            let parsed = CanvasUrl::parse(id);
            let names_us = parsed.is_some_and(|url| {
                let on_route = settings.route_of(&url.host(), url.path).map(|at| settings.routes[at].kind);
                settings.public_origin(id).is_some() && on_route == Some(RouteKind::Image)
            });
            if names_us {
                (FindingState::Good, id.clone())
            } else {
                let wanted = image_base(settings);
                let text = format!(
                    "info.json says {id}, where it should begin with {wanted}: viewers would go there. Let the image server \
                     believe X-Forwarded-Host, -Port and -Proto (Cantaloupe: base_uri left empty), or correct [server] \
                     public_hosts"
                );
                (FindingState::Bad, text)
            }
        }
    };
    SetupFinding::new(PUBLIC_ID, state, text)
}

/// The finding about `/resources`: whether the canvas service answers it.
fn resources(open: bool) -> SetupFinding {
    let (state, text) = if open {
        (FindingState::Good, "open: expiry is told from a missing file by one look into Redis")
    } else {
        let text = "closed: small tiles are asked for instead, and a missing file looks like an expired image; \
            open GET {canvas service}/resources/{uuid} for this host";
        (FindingState::Note, text)
    };
    SetupFinding::new(RESOURCES, state, text)
}

/// The finding about clocks, by the seconds that the image server's is ahead of ours.
fn clock(ahead: i64) -> SetupFinding {
    let (state, text) = if ahead.abs() <= CLOCK_DIFFERENCE {
        (FindingState::Good, format!("{} s apart from the image server's", ahead.abs()))
    } else {
        let which = if ahead > 0 { "ahead of" } else { "behind" };
        let text = format!("the image server's is {} s {which} ours: run NTP on both", ahead.abs());
        (FindingState::Bad, text)
    };
    SetupFinding::new(CLOCK, state, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::settings_of;

    #[test]
    fn readers_are_led_to_the_address_by_which_they_reach_us() {
        let read = |more: &str| {
            let text = format!(
                "[server]\npublic_hosts = [\"lib.example\"]\n[[routes]]\nprefix = \"/iiif/2/\"\n\
                 upstream = \"http://127.0.0.1:9/iiif/2/\"\nkind = \"image\"\n[heal]\nenabled = false\n{more}"
            );
            settings_of(&text)
        };
        let state = |settings: &Settings, id: &str| public_id(settings, &Ok(id.to_owned())).state;
        let (old, new) = ("https://lib.example/iiif/2/x", "http://localhost:8080/iiif/2/x");
        let plain = read("");
        assert_eq!(image_base(&plain), "https://lib.example/iiif/2/");
        assert_eq!((state(&plain, old), state(&plain, new)), (FindingState::Good, FindingState::Bad));
        // As `init` writes it: the public URL beside the old host name, which is rewritten on the way.
        let beside = read("[rewrite]\npublic_url = \"http://localhost:8080\"\n");
        assert_eq!(image_base(&beside), "http://localhost:8080/iiif/2/");
        assert_eq!((state(&beside, old), state(&beside, new)), (FindingState::Good, FindingState::Good));
        assert_eq!(state(&beside, "http://127.0.0.1:9/iiif/2/x"), FindingState::Bad);
    }
}
