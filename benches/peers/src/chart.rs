//! The chart of the README: each library's speed relative to this crate, operation by operation.

use std::fmt::Write as _;

use super::report::{Report, Section, thousands};

const LEFT: f64 = 196.0;
const WIDTH: f64 = 802.0;
/// Where the shares of increments end.
const RIGHT: f64 = WIDTH - 16.0;
/// The longest bar.
const LONGEST: f64 = 370.0;
const LINE: f64 = 20.0;

const STYLE: &str = "<style>
.sheet { fill: #fbfcfe; stroke: #d5dce6; }
.own { fill: #2f6f9f; }
.peer { fill: #a9bccb; }
.one { fill: none; stroke: #c0392b; stroke-dasharray: 4 3; }
text { fill: #1f2937; stroke: #fbfcfe; stroke-width: 3; paint-order: stroke; }
.cut { fill: none; stroke: #fbfcfe; stroke-width: 4; }
@media (prefers-color-scheme: dark) {
.sheet { fill: #161b22; stroke: #30363d; }
.own { fill: #4a94c9; }
.peer { fill: #4b5b6d; }
.one { stroke: #e5735f; }
text { fill: #e6edf3; stroke: #161b22; }
.cut { stroke: #161b22; }
}
</style>";

/// Draws the operations with many clients. Those with one client are in the guide.
pub(crate) fn draw(report: &Report) -> String {
    let sections: Vec<&Section> = report.sections.iter().filter(|section| section.clients > 1).collect();
    // Where increments are lost, speed means little, and its bars are cut.
    let rows = sections.iter().filter(|section| !section.contended).flat_map(|section| &section.rows);
    let highest = rows.map(|(_, summary)| summary.ratio.median).fold(1.0, f64::max);
    let (mut bars, mut y) = (String::new(), 46.0);
    for section in sections {
        y = group(&mut bars, section, y, LONGEST / highest);
    }
    let height = y + 14.0;
    let mut chart = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img' aria-labelledby='title' \
         font-family='sans-serif' font-size='12'>
<title id='title'>Speed of session libraries relative to this crate</title>\n{STYLE}
<rect class='sheet' x='0.5' y='0.5' width='{}' height='{}' rx='10'/>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    let title = "Operations a second, relative to this crate (1.00)";
    text(&mut chart, (16.0, 28.0), "font-size='14' font-weight='bold'", title);
    chart + &bars + "</svg>\n"
}

/// Draws one operation below `y`, and returns where it ends.
fn group(bars: &mut String, section: &Section, y: f64, scale: f64) -> f64 {
    let mut y = y + LINE * 1.5;
    text(bars, (16.0, y - 7.0), "font-weight='bold'", &section.title());
    if section.contended {
        text(bars, (RIGHT, y - 7.0), "text-anchor='end' font-weight='bold'", "increments kept");
    }
    let (one, bottom) = (LEFT + scale, y + LINE * section.rows.len() as f64);
    let mut labels = format!("<path class='one' d='M{one:.1} {}V{}'/>\n", y - 2.0, bottom - 2.0);
    for (number, (library, summary)) in section.rows.iter().enumerate() {
        // This crate is the measure, even if its turns are noisy.
        let ratio = if number == 0 { 1.0 } else { summary.ratio.median };
        let (width, middle) = ((ratio * scale).clamp(1.0, LONGEST), y + LINE / 2.0 + 2.0);
        let class = if library.starts_with("this crate") { "own" } else { "peer" };
        text(bars, (LEFT - 8.0, middle), "text-anchor='end'", library);
        let top = y + 1.0;
        let _ = writeln!(bars, "<rect class='{class}' x='{LEFT}' y='{top}' width='{width:.1}' height='14' rx='2'/>");
        if ratio * scale > LONGEST {
            let x = LEFT + LONGEST - 16.0;
            let _ = writeln!(bars, "<path class='cut' d='M{x:.1} {:.1}l6 -18'/>", top + 16.0);
        }
        let speed = format!("<tspan font-weight='bold'>{ratio:.2}</tspan>   {}/s", thousands(summary.per_second));
        text(&mut labels, (LEFT + width + 8.0, middle), "xml:space='preserve'", &speed);
        if section.contended {
            let weight = if summary.kept == 1.0 { "font-weight='bold'" } else { "" };
            let kept = format!("{:.0} %", 100.0 * summary.kept);
            text(bars, (RIGHT, middle), &format!("text-anchor='end' {weight}"), &kept);
        }
        y += LINE;
    }
    // Above the bars, so that the line is seen, and with an edge that interrupts the line.
    bars.push_str(&labels);
    y
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let _ = writeln!(svg, "<text x='{x:.1}' y='{y:.1}' {attributes}>{text}</text>");
}
