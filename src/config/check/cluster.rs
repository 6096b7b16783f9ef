//! Checks of `[cluster]`: its keys among themselves, and with `[index]`.

use crate::config::report::Validator;
use crate::config::settings::{ClusterKind, IndexStore, Settings};

pub(super) fn nodes(settings: &Settings, report: &mut Validator<'_>) {
    let cluster = &settings.cluster;
    if cluster.urls.len() > 1 && cluster.kind == ClusterKind::Server {
        report.at(
            &["cluster.url", "cluster.kind"],
            "several URLs, and `kind` says that they lead to one server",
            "write kind = \"sentinel\" or kind = \"cluster\", or one URL only",
        );
    }
    if settings.index.store == IndexStore::Redis && cluster.urls.is_empty() {
        report.at(
            &["index.store"],
            "the index is to be in Redis, and none is named",
            "write [cluster] url, or store = \"sqlite\"",
        );
    }
    if cluster.ca.is_some() && !cluster.urls.iter().any(|url| url.starts_with("rediss:")) {
        report.at(
            &["cluster.ca"],
            "an authority is named, and no URL speaks TLS",
            "write rediss:// in place of redis://, or leave `ca` out",
        );
    }
}
