//! Tables for people: aligned columns that fit the terminal.
//!
//! Lists and counts use it. Invariant: cells of a fixed column are whole, and on a terminal no line is wider than the terminal, as
//! long as the fixed columns of the first rows and of this line fit.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The columns between two cells.
const GAP: usize = 2;

/// The narrowest width that a column shrinks to.
const NARROWEST: usize = 5;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    is_elastic: bool,
}

impl Column {
    /// A column whose cells are always shown as a whole.
    pub(super) const fn fixed(title: &'static str) -> Self {
        Self { title, is_elastic: false }
    }

    /// A column whose cells are cut if the terminal is too narrow.
    pub(super) const fn elastic(title: &'static str) -> Self {
        Self { title, is_elastic: true }
    }
}

/// The widths of the columns, chosen by the first rows.
#[derive(Debug)]
pub(super) struct Table {
    widths: Vec<usize>,
    /// For each column, `true` if cells that are wider than the column are cut.
    cuts: Vec<bool>,
}

impl Table {
    /// Chooses the widths for a terminal with so many columns, or for a file.
    pub(super) fn new(columns: &[Column], rows: &[Vec<String>], terminal: Option<usize>) -> Self {
        let widest = |position: usize| rows.iter().filter_map(|row| row.get(position)).map(|cell| cell.width()).max();
        let mut widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(position, column)| widest(position).unwrap_or_default().max(column.title.width()))
            .collect();
        let gaps = GAP * columns.len().saturating_sub(1);
        while let Some(terminal) = terminal
            && widths.iter().sum::<usize>() + gaps > terminal
        {
            let elastic =
                columns.iter().enumerate().filter(|(_, column)| column.is_elastic).map(|(position, _)| position);
            let Some(widest) = elastic.max_by_key(|position| widths[*position]).filter(|it| widths[*it] > NARROWEST)
            else {
                break;
            };
            widths[widest] -= 1;
        }
        let cuts = columns.iter().map(|column| column.is_elastic && terminal.is_some()).collect();
        Self { widths, cuts }
    }

    /// Returns the line with the titles.
    pub(super) fn header(&self, columns: &[Column]) -> String {
        self.line(&columns.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>())
    }

    /// Returns the line of a row.
    pub(super) fn line(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for ((cell, width), cuts) in cells.iter().zip(&self.widths).zip(&self.cuts) {
            let cell = if *cuts { cut(cell, *width) } else { cell.clone() };
            let padding = width.saturating_sub(cell.width()) + GAP;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Cuts a text to so many columns, with an ellipsis at its end.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut used, mut short) = (1, String::new());
    for character in text.chars() {
        used += character.width().unwrap_or_default();
        if used > width {
            break;
        }
        short.push(character);
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::fixed("ID"), Column::elastic("OWNER"), Column::elastic("LABEL")];

    fn row(owner: &str, label: &str) -> Vec<String> {
        ["12345678", owner, label].map(str::to_owned).to_vec()
    }

    #[test]
    fn lines_fit_the_terminal() {
        let rows = [row("ada", &"ü".repeat(300)), row("東京都庁", "phone"), row("", "")];
        for terminal in [24, 80, 200] {
            let table = Table::new(&COLUMNS, &rows, Some(terminal));
            for row in &rows {
                assert!(table.line(row).width() <= terminal, "{terminal}: {}", table.line(row));
            }
        }
        let file = Table::new(&COLUMNS, &rows, None);
        assert!(file.line(&rows[0]).ends_with(&"ü".repeat(300)));
        assert_eq!(Table::new(&COLUMNS, &rows[1..], None).header(&COLUMNS), "ID        OWNER     LABEL");
    }

    #[test]
    fn fixed_cell_of_later_row_is_whole() {
        let table = Table::new(&COLUMNS, &[["–", "ada", "phone"].map(str::to_owned).to_vec()], Some(200));
        let line = table.line(&["2026-11-28T16:00:00Z", "grace", "tablet"].map(str::to_owned));
        assert_eq!(line, "2026-11-28T16:00:00Z  grace  tabl…");
    }

    #[test]
    fn cut_text_counts_wide_characters() {
        assert_eq!(cut("東京都庁", 5), "東京…");
        assert_eq!(cut("東京都庁", 4), "東…");
        assert_eq!(cut("tea", 3), "tea");
    }
}
