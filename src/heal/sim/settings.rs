//! The settings of a simulated world.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::world::SimWorld;
use crate::config::Settings;
use crate::config::tests::settings_of;

/// Settings of a world; `number` is the value that a reload changes.
pub(super) fn settings(world: &SimWorld, number: u32, manifests: &Path) -> Arc<Settings> {
    static MADE: OnceLock<Mutex<HashMap<String, Arc<Settings>>>> = OnceLock::new();
    let thumbs = if world.two_routes {
        "[[routes]]\nprefix = \"/thumbs/\"\nupstream = \"http://thumbs.invalid/iiif/2/\"\nkind = \"image\"\n"
    } else {
        ""
    };
    let other_site = if world.two_sites {
        r#"
[[routes]]
prefix = "/iiif/b/"
upstream = "http://images-b.invalid/iiif/2/"
kind = "image"
[[routes]]
prefix = "/b-service/"
upstream = "http://service-b.invalid/iiif-service/"
kind = "presentation"
"#
    } else {
        ""
    };
    let cluster = if world.nodes > 1 { "[cluster]\nurl = \"redis://shared.invalid\"\n" } else { "" };
    let text = format!(
        r#"
[server]
listen = "127.0.0.1:0"
public_hosts = ["lib.example"]
{thumbs}[[routes]]
prefix = "/iiif/2/"
upstream = "http://images.invalid/iiif/2/"
kind = "image"
[[routes]]
prefix = "/iiif-service/"
upstream = "http://service.invalid/iiif-service/"
kind = "presentation"
{other_site}{cluster}
# In a folder that is not there: cases that are played side by side share nothing.
[index]
path = "no-such-folder/index.sqlite3"
[[index.sources]]
path = "{}"
{}
[heal]
wait = "25s"
missing = "20s"
per_client = {number}
concurrency = {}
ahead = {}
sweep = {}
mass_expiry = {{ ids = {}, within = "10s" }}
"#,
        manifests.display(),
        if world.warm { "warm = \"30s\"" } else { "" },
        world.concurrency,
        world.ahead,
        world.sweep,
        if world.sweep { 6 } else { 20 },
    );
    let mut made = MADE.get_or_init(Mutex::default).lock();
    Arc::clone(made.entry(text.clone()).or_insert_with(|| Arc::new(settings_of(&text))))
}
