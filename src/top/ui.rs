//! Drawing of one screen.

use std::time::{Duration, UNIX_EPOCH};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Padding, Paragraph, Row, Sparkline, Table, Wrap};

use super::client::AdminClientError;
use super::stats::{SampleValues, TopHeal, TopStats};
use crate::observe::grouped;

/// Draws the whole screen: the last answer, or the error.
pub(super) fn draw(frame: &mut Frame<'_>, stats: &Result<TopStats, AdminClientError>, name: &str) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Line::from(vec![Span::from(" q ").reversed(), Span::from(" quit")]), foot);
    let stats = match stats {
        Ok(stats) => stats,
        Err(error) => {
            let text = Paragraph::new(error.to_string()).wrap(Wrap { trim: true });
            frame.render_widget(text.fg(Color::Red).block(Block::new().padding(Padding::uniform(1))), body);
            return;
        }
    };
    let title = format!("iiif-mender {}  {name}  up {}", stats.version, duration(stats.uptime_seconds));
    frame.render_widget(Line::from(title).bold(), head);
    // The tables need their lines; the rest is for charts and heals.
    let [charts, tables, heals] =
        Layout::vertical([Constraint::Percentage(18), Constraint::Length(10), Constraint::Fill(1)])
            .areas(body);
    let three = [Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1)];
    let [requests, healed, broken] = Layout::horizontal(three).spacing(1).areas(charts);
    frame.render_widget(chart(stats, "requests", requests, |point| point.requests).blue(), requests);
    frame.render_widget(chart(stats, "healed", healed, |point| point.healed).green(), healed);
    frame.render_widget(chart(stats, "broken", broken, |point| point.broken).red(), broken);
    let [outcomes, now, index] = Layout::horizontal(three).spacing(1).areas(tables);
    let mut rows: Vec<(String, String)> =
        stats.requests.iter().map(|(outcome, count)| (outcome.clone(), grouped(*count))).collect();
    rows.push(("canvas requests".to_owned(), grouped(stats.canvas_requests)));
    table(frame, outcomes, "since the start", &rows);
    let gauge = |name: &str, value: i64| (name.to_owned(), grouped(value.unsigned_abs()));
    let gauges = &stats.now;
    table(
        frame,
        now,
        "now",
        &[
            gauge("viewers waiting", gauges.waiting),
            gauge("heals under way", gauges.flights),
            gauge("canvas requests", gauges.canvas_in_flight),
            gauge("breakers open", gauges.breakers_open),
            gauge("to upstreams", gauges.upstream_in_flight),
            gauge("connections", gauges.connections),
            gauge("broken images", gauges.broken_images),
            gauge("in no manifest", gauges.unknown_images),
            gauge("in a cluster", gauges.cluster_connected),
        ],
    );
    table(
        frame,
        index,
        "index",
        &[
            gauge("manifests", gauges.index_manifests),
            gauge("canvases", gauges.index_canvases),
            gauge("images", gauges.index_images),
            gauge("to be learned", gauges.learn_queue),
        ],
    );
    last_heals(frame, heals, &stats.heals);
}

/// The last heals, each with its reason; long ones go on in the next line.
fn last_heals(frame: &mut Frame<'_>, area: Rect, heals: &[TopHeal]) {
    let lines = heals.iter().map(|heal| {
        let color = if heal.verdict == "healed" { Color::Green } else { Color::Red };
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(heal.at).unwrap_or(0));
        let time = humantime::format_rfc3339_seconds(at).to_string();
        let time = time.get(11..19).unwrap_or_default().to_owned();
        let by = heal.rung.as_ref().map(|rung| format!(" by {rung}")).unwrap_or_default();
        let page = heal.label.as_ref().unwrap_or(&heal.identifier);
        let book = heal.book.as_ref().map(|book| format!(" in {book}")).unwrap_or_default();
        let reason = heal.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let details = format!("{by} in {} ms  {page}{book}{reason}", heal.duration_ms);
        Line::from(vec![
            Span::from(time),
            Span::from(format!("  {}", heal.verdict)).fg(color),
            Span::from(details),
        ])
    });
    let text = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: true });
    frame.render_widget(text.block(framed("last heals (UTC)")), area);
}

/// Half an hour as bars, the last at the right, with the rate per second.
fn chart(stats: &TopStats, name: &str, area: Rect, of: impl Fn(&SampleValues) -> u64) -> Sparkline<'static> {
    let block = framed(&format!("{name} {:.1}/s", stats.rate(&of)));
    let inside = block.inner(area);
    let bars = &stats.points[stats.points.len().saturating_sub(usize::from(inside.width))..];
    let mut data = vec![0; usize::from(inside.width).saturating_sub(bars.len())];
    data.extend(bars.iter().map(of));
    Sparkline::default().data(data).block(block)
}

fn table(frame: &mut Frame<'_>, area: Rect, title: &str, rows: &[(String, String)]) {
    let widest = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let widest = u16::try_from(widest).unwrap_or(u16::MAX);
    let rows = rows.iter().map(|(name, value)| {
        Row::new([Line::from(name.clone()), Line::from(value.clone()).right_aligned().bold()])
    });
    let table = Table::new(rows, [Constraint::Fill(1), Constraint::Length(widest)]);
    frame.render_widget(table.block(framed(title)), area);
}

fn framed(title: &str) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(Style::new().fg(Color::DarkGray))
        .padding(Padding::right(1))
        .title(format!("{title} ").bold())
}

/// Writes a duration in its two largest units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(
            ["59 s", "1 min 1 s", "2 h 3 min", "1 d 4 h"].map(str::to_owned),
            [59, 61, 2 * 3600 + 180, 100_800].map(duration)
        );
    }
}
