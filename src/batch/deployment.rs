//! The deployment itself: what must be right before any image can be healed.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::Settings;
use crate::config::settings::RouteKind;
use crate::heal::{DeploymentFacts, Healer};
use crate::iiif::CanvasUrl;
use crate::observe::counted;

/// How one thing about the deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// As it should be.
    Good,
    /// Works, but not as well as it could.
    Note,
    /// Healing or viewing cannot work so.
    Bad,
}

/// A finding about the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetupFinding {
    /// What was looked at.
    pub about: &'static str,
    /// How it is.
    pub state: FindingState,
    /// In words, with what to do.
    pub text: String,
}

impl SetupFinding {
    /// Something is wrong.
    pub fn is_bad(&self) -> bool {
        self.state == FindingState::Bad
    }
}

/// Canvases that belong to no presentation route.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnmappedCanvases {
    pub(crate) canvases: u64,
    pub(crate) strange: u64,
    pub(crate) example: Option<String>,
}

/// The canvas that a heal of one of these images would ask for and may not: the one that its manifest names, or where there
/// is another one, such as that which the index derives from the image's file, that one. `None`: one may be asked for.
pub(crate) fn strange_canvas(healer: &Healer, canvas: &str, images: &[String]) -> Option<String> {
    let mut strange = canvas.to_owned();
    if healer.is_allowed_canvas(canvas) {
        return None;
    }
    for image in images.iter().filter_map(|key| healer.image_by_key(key, None)) {
        for canvas in healer.with_owners(&image).canvases() {
            if healer.is_allowed_canvas(canvas) {
                return None;
            }
            canvas.clone_into(&mut strange);
        }
    }
    Some(strange)
}

/// What image URLs start with for the public.
pub(crate) fn image_base(settings: &Settings) -> String {
    let route = settings.routes.iter().find(|route| route.kind == RouteKind::Image);
    match (settings.server.public_hosts.first(), route) {
        (Some(host), Some(route)) => format!("https://{host}{}", route.prefix),
        _ => String::new(),
    }
}

/// Clocks may differ by this many seconds.
const CLOCKS: i64 = 60;

/// What the facts mean.
pub(crate) fn findings(
    settings: &Settings,
    facts: Option<&DeploymentFacts>,
    unmapped: &UnmappedCanvases,
) -> Vec<SetupFinding> {
    let mut all = Vec::new();
    if let Some(facts) = facts {
        all.extend(facts.info_id.as_ref().map(|id| public_id(settings, id)));
        all.extend(facts.resources_open.map(resources));
        all.extend(facts.clock_ahead.map(clock));
    }
    if unmapped.canvases > 0 {
        all.push(routes(unmapped));
    }
    all
}

fn public_id(settings: &Settings, id: &Result<String, String>) -> SetupFinding {
    let about = "public @id";
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
                hosts.iter().any(|host| url.authority_is(host)) && on_route == Some(RouteKind::Image)
            });
            if names_us {
                (FindingState::Good, id.clone())
            } else {
                let hint =
                    "viewers would go there: let the image server believe X-Forwarded-Host, -Port, -Proto";
                (FindingState::Bad, format!("info.json says {id}; {hint}"))
            }
        }
    };
    SetupFinding { about, state, text }
}

fn resources(open: bool) -> SetupFinding {
    let (state, text) = if open {
        (FindingState::Good, "open: expiry is told from a missing file by one look into Redis".to_owned())
    } else {
        let text = "closed: small tiles are asked for instead, and a missing file looks like an expired image; \
            open GET {canvas service}/resources/{uuid} for this host";
        (FindingState::Note, text.to_owned())
    };
    SetupFinding { about: "/resources", state, text }
}

fn clock(ahead: i64) -> SetupFinding {
    let (state, text) = if ahead.abs() <= CLOCKS {
        (FindingState::Good, format!("{} s apart from the image server's", ahead.abs()))
    } else {
        let which = if ahead > 0 { "ahead of" } else { "behind" };
        let text = format!("the image server's is {} s {which} ours: run NTP on both", ahead.abs());
        (FindingState::Bad, text)
    };
    SetupFinding { about: "clock", state, text }
}

fn routes(unmapped: &UnmappedCanvases) -> SetupFinding {
    let UnmappedCanvases { canvases, strange, example } = unmapped;
    let mut text =
        format!("{} of {} on a presentation route", canvases - strange, counted(*canvases, "canvas"));
    let state = match strange {
        0 => FindingState::Good,
        some if some == canvases => FindingState::Bad,
        _ => FindingState::Note,
    };
    if let Some(example) = example {
        let _ = write!(text, "; not so {example}: see [[routes]] and [server] public_hosts");
    }
    SetupFinding { about: "canvases", state, text }
}
