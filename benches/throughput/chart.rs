//! The chart of `benches/README.md`: how much of the floor's throughput is left, at each level.

use std::fmt::Write;

use super::report::Row;

const LEFT: f64 = 250.0;
const SCALE: f64 = 420.0;
const WIDTH: f64 = LEFT + SCALE * 1.1 + 90.0;
const LINE: f64 = 20.0;

/// Draws the rows that were measured with one thread or connection over TCP; the others differ by little but noise.
pub(crate) fn draw(rows: &[Row]) -> String {
    let shown = |row: &&Row| {
        let of_one = row.section.ends_with("TCP, 1 thread") || row.section.ends_with("1 keep-alive connection");
        of_one && !row.section.starts_with("growth") && !row.name.starts_with(' ')
    };
    let (mut bars, mut section, mut y) = (String::new(), "", 40.0);
    for row in rows.iter().filter(shown) {
        if section != row.section {
            section = &row.section;
            y += LINE * 1.6;
            text(&mut bars, 12.0, y - 6.0, "font-weight='bold'", section);
        }
        let (width, middle) = (row.ratio.min(1.1) * SCALE, y + LINE / 2.0 + 2.0);
        text(&mut bars, LEFT - 8.0, middle, "text-anchor='end'", &row.name);
        let _ = writeln!(bars, "<rect x='{LEFT}' y='{:.0}' width='{width:.1}' height='14' fill='#2f6f9f'/>", y + 1.0);
        text(&mut bars, LEFT + 6.0, middle, "style='fill:white'", &format!("{:.2}", row.ratio));
        y += LINE;
    }
    let (one, bottom) = (LEFT + SCALE, y + 6.0);
    let mut chart = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>
<rect width='{WIDTH}' height='{height}' fill='white'/>\n",
        height = y + 20.0
    );
    text(&mut chart, 12.0, 24.0, "font-size='14'", "Throughput, as a share of the same commands sent by hand (1.0)");
    chart.push_str(&bars);
    let _ = writeln!(chart, "<path d='M{one} 36V{bottom}' stroke='#c0392b' stroke-dasharray='4 3'/>\n</svg>");
    chart
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let _ = writeln!(svg, "<text x='{x:.1}' y='{y:.1}' fill='#222' {attributes}>{}</text>", text.trim());
}
