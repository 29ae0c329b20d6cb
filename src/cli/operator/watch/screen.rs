//! The screen of `watch`.
//!
//! The parent draws it after each sample, key and change of the size. Invariant: it fits any terminal, and shows an error in
//! place of figures that would be old.

use std::time::SystemTime;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, Wrap};

use super::super::output::shown;
use super::super::rows::{brief, owner, rfc3339};
use super::super::table::cut;
use super::Sample;
use crate::SessionInfo;
use crate::store::redis::{RecordedKind, Vitals};

/// The number of samples that the curve remembers, one for each column of a wide terminal.
const HISTORY: usize = 400;

/// The width of a figure with its title.
const FIGURE_COLUMNS: u16 = 26;

/// The number of lines of the curve.
const CURVE_LINES: u16 = 4;

/// The lines that a screen with a curve has besides curve and figures: title, gaps, and some sessions.
const OTHER_LINES: u16 = 8;

/// The width from which the list shows whole times.
const WIDE_SCREEN: u16 = 120;

/// The digits of a handle in the list. They are enough for `end --yes`.
const LISTED_DIGITS: u16 = 12;

/// The columns between two cells.
const COLUMN_GAP: u16 = 2;

/// The least height of the curve, in sessions, so that one session more does not look like a flood.
const LEAST_CURVE: u64 = 8;

pub(super) struct View {
    kind: String,
    place: String,
    sample: Option<Sample>,
    history: Vec<u64>,
}

impl View {
    pub(super) fn new(kind: Option<RecordedKind>, place: String) -> Self {
        Self { kind: kind.map_or_else(String::new, |kind| kind.to_string()), place, sample: None, history: Vec::new() }
    }

    pub(super) fn take(&mut self, sample: Sample) {
        if let Some(sessions) = sample.vitals.as_ref().ok().and_then(|vitals| vitals.sessions) {
            self.history.push(sessions);
            let surplus = self.history.len().saturating_sub(HISTORY);
            self.history.drain(..surplus);
        }
        self.sample = Some(sample);
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let vitals = self.sample.as_ref().map(|sample| sample.vitals.as_ref());
        let figures = match (&self.sample, vitals) {
            (Some(sample), Some(Ok(vitals))) => figures(vitals, sample.change),
            _ => Vec::new(),
        };
        let per_line = usize::from((frame.area().width / FIGURE_COLUMNS).max(1));
        let figure_lines = figures.len().div_ceil(per_line).max(1) as u16;
        let has_room = frame.area().height >= figure_lines + CURVE_LINES + OTHER_LINES;
        let (gap, curve) = if has_room { (1, CURVE_LINES) } else { (0, 0) };
        let constraints = [1, figure_lines, gap, curve, gap].map(Constraint::Length);
        let areas: [Rect; 6] =
            Layout::vertical(constraints.into_iter().chain([Constraint::Fill(1)])).areas(frame.area());
        frame.render_widget(Paragraph::new(self.title()), areas[0]);
        match vitals {
            Some(Ok(vitals)) => {
                frame.render_widget(Paragraph::new(figure_rows(figures, per_line)), areas[1]);
                self.draw_curve(frame, areas[3]);
                draw_recent(frame, areas[5], vitals, self.recent());
            }
            Some(Err(error)) => {
                let text = Line::styled(format!("error: {error:#}"), Style::new().fg(Color::Red));
                let below = Rect { y: areas[1].y, height: frame.area().height, ..areas[1] };
                frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), below.intersection(frame.area()));
            }
            None => frame.render_widget(Paragraph::new("waiting for Redis"), areas[1]),
        }
    }

    fn recent(&self) -> &[SessionInfo] {
        self.sample.as_ref().map_or(&[], |sample| &sample.recent)
    }

    fn title(&self) -> Line<'_> {
        let time = self.sample.as_ref().map_or_else(String::new, |sample| rfc3339(sample.time));
        Line::from(vec![
            Span::styled("sessions", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!("  quit: q  {time}  {}  {}", self.kind, self.place)),
        ])
    }

    /// Draws the number of sessions over time. The curve begins at the smallest number, so that changes show.
    fn draw_curve(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = usize::from(area.width).min(self.history.len());
        let shown = &self.history[self.history.len() - columns..];
        let least = shown.iter().min().copied().unwrap_or_default();
        let above: Vec<u64> = shown.iter().map(|sessions| sessions - least + 1).collect();
        let most = above.iter().max().copied().unwrap_or_default().max(LEAST_CURVE);
        frame.render_widget(Sparkline::default().max(most).data(above).style(Style::new().fg(Color::Cyan)), area);
    }
}

/// Returns the figures with their titles.
fn figures(vitals: &Vitals, change: Option<f64>) -> Vec<(&'static str, String)> {
    let figure = |figure: Option<u64>| figure.map_or_else(|| "–".to_owned(), |figure| figure.to_string());
    vec![
        ("sessions", figure(vitals.sessions)),
        ("change/s", change.map_or_else(|| "–".to_owned(), |change| format!("{change:+.1}"))),
        ("round trip", format!("{:.2} ms", vitals.round_trip.as_secs_f64() * 1000.0)),
        ("memory", vitals.memory.map_or_else(|| "–".to_owned(), bytes)),
        ("clients", figure(vitals.clients)),
        ("commands/s", figure(vitals.commands_per_second)),
        ("backlog", figure(vitals.backlog)),
    ]
}

/// Puts so many figures on each line.
fn figure_rows(figures: Vec<(&'static str, String)>, per_line: usize) -> Vec<Line<'static>> {
    let span = |(title, figure): &(&'static str, String)| {
        [
            Span::styled(format!("{title:<11}"), Style::new().add_modifier(Modifier::DIM)),
            Span::raw(format!("{figure:<15}")),
        ]
    };
    figures.chunks(per_line).map(|figures| Line::from(figures.iter().flat_map(span).collect::<Vec<_>>())).collect()
}

/// Draws the sessions that expire last.
fn draw_recent(frame: &mut Frame<'_>, area: Rect, vitals: &Vitals, recent: &[SessionInfo]) {
    if vitals.sessions.is_none() {
        let why = "a plain store has no index, so it cannot show how many sessions there are, and which expire last";
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
        return;
    }
    let now = SystemTime::now();
    let columns = Columns::of(area.width);
    let rows =
        recent.iter().take(usize::from(area.height.saturating_sub(1))).map(|session| columns.cells(session, now));
    let header = Row::new(columns.titles());
    let header = header.style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, columns.widths()).header(header).column_spacing(COLUMN_GAP), area);
}

/// The columns of the list of sessions.
#[derive(Clone, Copy)]
struct Columns {
    is_wide: bool,
    /// The width of owner and label, which share what the other columns leave.
    elastic: u16,
}

impl Columns {
    fn of(width: u16) -> Self {
        let is_wide = width >= WIDE_SCREEN;
        let (fixed, gaps) = if is_wide {
            (LISTED_DIGITS + 2 * 20 + 10, 5 * COLUMN_GAP)
        } else {
            (LISTED_DIGITS + 11 + 10, 4 * COLUMN_GAP)
        };
        Self { is_wide, elastic: width.saturating_sub(fixed + gaps) / 2 }
    }

    fn titles(self) -> Vec<&'static str> {
        let mut titles = vec!["HANDLE", "OWNER", "LABEL", "CREATED", "LAST USED", "EXPIRES IN"];
        titles.retain(|title| self.is_wide || *title != "CREATED");
        titles
    }

    fn widths(self) -> Vec<Constraint> {
        let times: &[u16] = if self.is_wide { &[20, 20] } else { &[11] };
        let first = [LISTED_DIGITS, self.elastic, self.elastic];
        first.iter().chain(times).chain(&[10]).copied().map(Constraint::Length).collect()
    }

    fn cells(self, session: &SessionInfo, now: SystemTime) -> Row<'static> {
        let time = |time: Option<SystemTime>| match time {
            None => "–".to_owned(),
            Some(time) if self.is_wide => rfc3339(time),
            Some(time) => format!("{} ago", brief(now.duration_since(time).unwrap_or_default())),
        };
        let elastic = |text: String| cut(&text, self.elastic.into());
        let label = session.label.as_deref().map_or_else(|| "–".to_owned(), shown);
        let handle = session.handle.to_string().chars().take(LISTED_DIGITS.into()).collect();
        let mut cells = vec![handle, elastic(owner(session)), elastic(label)];
        cells.extend(self.is_wide.then(|| time(session.created)));
        cells.extend([time(session.last_used), session.expires_in.map_or_else(|| "never".to_owned(), brief)]);
        Row::new(cells.into_iter().map(Cell::from))
    }
}

/// Returns a number of bytes with its unit, such as `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_largest_unit() {
        for (number, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(bytes(number), text);
        }
    }
}
