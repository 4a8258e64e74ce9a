//! Tables of text: aligned columns that fit the width of the terminal.

use super::{Screen, Style, one_line};

/// A text column is not made narrower than this.
const NARROWEST: usize = 16;
/// A cell is at most this long, also where the width has no limit.
const LONGEST: usize = 500;
/// The blanks between two columns.
const GAP: usize = 2;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub head: &'static str,
    /// Whether its text may be shortened.
    shrinks: bool,
    /// Of the columns that do not fit, the one with the highest rank is left out first; 0 is never left out.
    rank: u8,
}

impl Column {
    /// A column that is always shown completely, such as ids.
    pub(crate) const fn fixed(head: &'static str) -> Self {
        Self { head, shrinks: false, rank: 0 }
    }

    /// A column of free text, which is shortened to fit.
    pub(crate) const fn text(head: &'static str) -> Self {
        Self { head, shrinks: true, rank: 0 }
    }

    /// A column that is left out where it does not fit, highest rank first.
    pub(crate) const fn optional(head: &'static str, rank: u8) -> Self {
        Self { head, shrinks: false, rank }
    }
}

/// A cell. Its text is safe to print: one line without control characters.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn new(text: &str, style: Style) -> Self {
        Self { text: one_line(text, LONGEST), style }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text, Style::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Style::Plain)
    }
}

/// Formats a table whose columns are all shown completely.
pub(crate) fn plain<const N: usize>(head: [&'static str; N], rows: &[[String; N]]) -> String {
    let rows = rows.iter().map(|row| row.iter().map(|cell| Cell::from(cell.as_str())).collect());
    render(&head.map(Column::fixed), rows, Screen::PLAIN)
}

/// Formats a table with two blanks between the columns; numbers are right-aligned. If columns are left out to fit the
/// terminal, the last line names them.
pub(crate) fn render(columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>, screen: Screen) -> String {
    let rows: Vec<Vec<Cell>> = rows.into_iter().collect();
    let natural: Vec<usize> = (0..columns.len()).map(|column| natural_width(columns, &rows, column)).collect();
    let (shown, widths) = fit(columns, &natural, screen.width());
    let numeric = |column: usize| {
        let texts = || rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.as_str());
        texts().any(is_number) && texts().all(|text| is_number(text) || text == "-")
    };
    let layout: Vec<(usize, usize, bool)> =
        shown.iter().zip(&widths).map(|(column, width)| (*column, *width, numeric(*column))).collect();
    let head: Vec<Cell> = columns.iter().map(|column| Cell::new(column.head, Style::Faint)).collect();
    let mut text = line(&head, &layout, screen);
    for row in &rows {
        text.push_str(&line(row, &layout, screen));
    }
    let left_out: Vec<&str> =
        (0..columns.len()).filter(|column| !shown.contains(column)).map(|column| columns[column].head).collect();
    if !left_out.is_empty() {
        let note = format!("no room for: {}", left_out.join(", "));
        text.push_str(&Style::Faint.paint(&note, screen));
        text.push('\n');
    }
    text
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '+')
}

fn natural_width(columns: &[Column], rows: &[Vec<Cell>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
    cells.chain([columns[column].head.chars().count()]).max().unwrap_or(0)
}

/// Chooses the columns that fit, and their widths.
fn fit(columns: &[Column], natural: &[usize], limit: Option<usize>) -> (Vec<usize>, Vec<usize>) {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(limit) = limit else { return (shown, natural.to_vec()) };
    let least = |column: usize| if columns[column].shrinks { natural[column].min(NARROWEST) } else { natural[column] };
    let total = |shown: &[usize]| shown.iter().map(|column| least(*column) + GAP).sum::<usize>().saturating_sub(GAP);
    let mut left_out = Vec::new();
    while total(&shown) > limit {
        let ranked = shown.iter().copied().filter(|column| columns[*column].rank > 0);
        let Some(last) = ranked.max_by_key(|column| columns[*column].rank) else { break };
        shown.retain(|column| *column != last);
        left_out.push(last);
    }
    // Where a wide column did not fit, a narrow one may.
    for column in left_out.into_iter().rev() {
        if total(&shown) + GAP + least(column) <= limit {
            shown.push(column);
        }
    }
    shown.sort_unstable();
    let mut widths: Vec<usize> = shown.iter().map(|column| least(*column)).collect();
    let mut spare = limit.saturating_sub(total(&shown));
    for (width, column) in widths.iter_mut().zip(&shown) {
        let more = (natural[*column] - *width).min(spare);
        *width += more;
        spare -= more;
    }
    (shown, widths)
}

fn line(cells: &[Cell], layout: &[(usize, usize, bool)], screen: Screen) -> String {
    let mut text = String::new();
    // Blanks are written before the next text, so that no line ends with blanks.
    let mut blanks = 0;
    for (column, width, is_numeric) in layout {
        let Some(cell) = cells.get(*column) else { continue };
        let shown = one_line(&cell.text, *width);
        let padding = width.saturating_sub(shown.chars().count());
        let (before, after) = if *is_numeric { (padding, 0) } else { (0, padding) };
        blanks += before;
        if !shown.is_empty() {
            text.push_str(&" ".repeat(blanks));
            text.push_str(&cell.style.paint(&shown, screen));
            blanks = 0;
        }
        blanks += after + GAP;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [Column::fixed("ID"), Column::optional("RUNS", 2), Column::optional("DUE", 1), Column::text("ERROR")];

    fn rendered(width: Option<usize>) -> Vec<String> {
        let rows = [vec![
            "01KAJ3V1J4SJ9T7YQ0M2C6Z8XB".into(),
            "12".into(),
            "in 5 min".into(),
            "error sending request: connection refused".into(),
        ]];
        let screen = Screen { size: width.map(|width| (width, 24)), ..Screen::PLAIN };
        render(&COLUMNS, rows, screen).lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let rows = [["one", "7", "x"], ["three", "10000+", ""]].map(|row| row.map(str::to_owned));
        let expected = "NAME        N  WHY\none         7  x\nthree  10000+\n";
        assert_eq!(plain(["NAME", "N", "WHY"], &rows), expected);
    }

    #[test]
    fn a_table_fits_the_terminal_by_shorter_text_and_fewer_columns() {
        assert!(rendered(None)[1].ends_with("connection refused"));
        let narrow = rendered(Some(80));
        assert!(narrow.iter().all(|line| line.chars().count() <= 80) && narrow[1].ends_with('…'), "{narrow:?}");
        let narrower = rendered(Some(56));
        assert_eq!(narrower[0], "ID                          DUE       ERROR");
        assert_eq!(narrower[2], "no room for: RUNS");
        let narrowest = rendered(Some(20));
        assert!(narrowest[1].starts_with("01KAJ3V1J4SJ9T7YQ0M2C6Z8XB"), "an id stays complete: {narrowest:?}");
    }

    #[test]
    fn cells_are_safe_to_print() {
        let rows = [vec![Cell::from("a\u{1b}[2Jb\nc")]];
        assert_eq!(render(&[Column::fixed("X")], rows, Screen::PLAIN), "X\na [2Jb c\n");
    }
}
