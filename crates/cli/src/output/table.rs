//! Columns for people.

/// Rows under a header, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. An empty cell is shown as `-`, so that columns can be told apart by programs
    /// that split at spaces.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.header.len());
        self.rows
            .push(cells.into_iter().map(|cell| shown(&cell)).collect());
    }

    /// Drops the rows that do not contain a text.
    pub(crate) fn retain(&mut self, text: &str) {
        self.rows
            .retain(|row| row.iter().any(|cell| cell.contains(text)));
    }

    /// The text, or `otherwise` if there are no rows.
    pub(crate) fn render(&self, otherwise: &str) -> String {
        if self.rows.is_empty() {
            return format!("{otherwise}\n");
        }
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line += &format!("{cell:width$}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// One line that cannot move the cursor: much of what is shown was written by others.
fn shown(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_cannot_break_the_line() {
        let mut table = Table::new(&["NAME", "STATE"]);
        assert_eq!(table.render("Nothing."), "Nothing.\n");
        table.row(["a-long-name".to_owned(), String::new()]);
        table.row(["b".to_owned(), "x\n\u{1b}[2J".to_owned()]);
        assert_eq!(
            table.render(""),
            "NAME         STATE\na-long-name  -\nb            x  [2J\n"
        );
    }
}
