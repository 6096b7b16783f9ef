//! One look, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Padding, Paragraph, Row, Sparkline, Table, Wrap};

use super::client::AdminClientError;
use super::stats::{SampleValues, TopStats};

/// Draws the whole screen: the last look, or why there is none.
pub(super) fn draw(frame: &mut Frame<'_>, told: &Result<TopStats, AdminClientError>, name: &str) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Line::from(vec![Span::from(" q ").reversed(), Span::from(" quit")]), foot);
    let stats = match told {
        Ok(stats) => stats,
        Err(error) => {
            let text = Paragraph::new(error.to_string()).wrap(Wrap { trim: true });
            frame.render_widget(text.fg(Color::Red).block(Block::new().padding(Padding::uniform(1))), body);
            return;
        }
    };
    let title = format!("iiif-mender {}  {name}  up {}", stats.version, duration(stats.uptime_seconds));
    frame.render_widget(Line::from(title).bold(), head);
    let [charts, tables] =
        Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(body);
    let three = [Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1)];
    let [requests, healed, broken] = Layout::horizontal(three).areas(charts);
    chart(frame, requests, "requests", stats, Color::Blue, |point| point.requests);
    chart(frame, healed, "healed", stats, Color::Green, |point| point.healed);
    chart(frame, broken, "broken", stats, Color::Red, |point| point.broken);
    let [outcomes, now, index] = Layout::horizontal(three).areas(tables);
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
            gauge("requests upstream", gauges.upstream_in_flight),
            gauge("connections", gauges.connections),
            gauge("joined with other nodes", gauges.cluster_connected),
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
            gauge("waiting to be learned", gauges.learn_queue),
        ],
    );
}

/// Half an hour as bars, the last at the right, and what it comes to in a second.
fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    stats: &TopStats,
    color: Color,
    of: impl Fn(&SampleValues) -> u64,
) {
    let block = framed(&format!("{name} {:.1}/s", stats.rate(&of)));
    let inside = block.inner(area);
    let bars = &stats.points[stats.points.len().saturating_sub(usize::from(inside.width))..];
    let mut data = vec![0; usize::from(inside.width).saturating_sub(bars.len())];
    data.extend(bars.iter().map(of));
    frame.render_widget(Sparkline::default().data(data).style(Style::new().fg(color)).block(block), area);
}

fn table(frame: &mut Frame<'_>, area: Rect, title: &str, rows: &[(String, String)]) {
    let rows = rows.iter().map(|(name, value)| {
        Row::new([Line::from(name.clone()), Line::from(value.clone()).right_aligned().bold()])
    });
    let table = Table::new(rows, [Constraint::Fill(1), Constraint::Length(12)]);
    frame.render_widget(table.block(framed(title)), area);
}

fn framed(title: &str) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(Style::new().fg(Color::DarkGray))
        .padding(Padding::right(1))
        .title(format!("{title} ").bold())
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// In the two largest units.
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
    fn numbers_are_grouped_and_durations_short() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"].map(str::to_owned),
            [0, 999, 1000, 12_345_678].map(grouped)
        );
        assert_eq!(
            ["59 s", "1 min 1 s", "2 h 3 min", "1 d 4 h"].map(str::to_owned),
            [59, 61, 2 * 3600 + 180, 100_800].map(duration)
        );
    }
}
