//! Scrape page for monitoring systems, in the format of their choice.

/// Formats of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrapeFormat {
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
    /// Prometheus text 0.0.4, the default.
    Text,
}

impl ScrapeFormat {
    /// Format that `Accept` prefers. Prometheus names OpenMetrics; curl and browsers name neither, and get the older one,
    /// as from other exporters.
    pub fn accepted(accept: &str) -> Self {
        let open = weight(accept, "application/openmetrics-text");
        if open > 0.0 && open >= weight(accept, "text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Quality value of this type (RFC 9110 section 12.4.2); zero where it is not named.
fn weight(accept: &str, wanted: &str) -> f64 {
    let of = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        if parts.next() != Some(wanted) {
            return 0.0;
        }
        parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0)
    };
    accept.split(',').map(of).fold(0.0, f64::max)
}

/// OpenMetrics text as Prometheus text 0.0.4: counters and infos are named in full in their comments, there are no
/// units, no exemplars and no end.
pub(super) fn as_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let kinds = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let kinds: std::collections::HashMap<&str, &str> = kinds.collect();
    for line in page.lines() {
        let comment = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match comment {
            Some((word @ ("TYPE" | "HELP"), rest)) => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let (suffix, kind) = match kinds.get(name) {
                    Some(&"counter") => ("_total", "counter"),
                    Some(&"info") => ("_info", "gauge"),
                    Some(kind) => ("", *kind),
                    None => ("", "untyped"),
                };
                let rest = if word == "TYPE" { kind } else { rest };
                text.extend(["# ", word, " ", name, suffix, " ", rest, "\n"]);
            }
            Some(_) => {}
            None if line == "# EOF" => {}
            // Label values hold no " # ": they come from closed lists.
            None => text.extend([line.split(" # ").next().unwrap_or(line), "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_what_it_prefers_and_curl_gets_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.1";
        assert_eq!(ScrapeFormat::accepted(prometheus), ScrapeFormat::OpenMetrics);
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html,*/*",
            "application/openmetrics-text;q=0",
            "text/plain;q=0.9, application/openmetrics-text;q=0.2",
        ] {
            assert_eq!(ScrapeFormat::accepted(accept), ScrapeFormat::Text, "{accept}");
        }
    }

    #[test]
    fn the_older_format_has_full_names_and_neither_units_nor_exemplars() {
        let page = "# HELP a_b Counts.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n\
             # HELP t_seconds Time.\n# TYPE t_seconds histogram\n# UNIT t_seconds seconds\n\
             t_seconds_bucket{le=\"1.0\"} 3 # {request_id=\"7\"} 0.5\n\
             # HELP build Which.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_b_total Counts.\n# TYPE a_b_total counter\na_b_total{x=\"y\"} 1\n\
             # HELP t_seconds Time.\n# TYPE t_seconds histogram\n\
             t_seconds_bucket{le=\"1.0\"} 3\n\
             # HELP build_info Which.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n";
        assert_eq!(as_text(page), text);
    }
}
