//! The report as Markdown, whose figures are files beside it.

use super::document::{Block, Content, Document, Figure, Row, Table};

/// Folder of the figures' files, beside the report.
pub const FIGURES: &str = "figures";

pub fn write(document: &Document) -> String {
    let mut out = format!("# {}\n\n{}\n", escaped(&document.title), escaped(&document.lead));
    for section in &document.sections {
        out += &format!("\n## {}\n", escaped(&section.title));
        for block in &section.blocks {
            out += &match block {
                Block::Text(text) => format!("\n{}\n", escaped(text)),
                Block::Table(table) => format!("\n{}", table_text(table)),
                Block::Figure(figure) => {
                    format!("\n![{}]({FIGURES}/{})\n\n{}\n", escaped(&figure.title), file_name(figure), escaped(&figure.caption))
                }
            };
        }
    }
    out
}

pub fn file_name(figure: &Figure) -> String {
    let ending = match figure.content {
        Content::Svg(_) => "svg",
        Content::Png(..) => "png",
    };
    format!("{}.{ending}", figure.name)
}

/// The names of the figures that a report in Markdown shows.
pub fn figures_of(report: &str) -> impl Iterator<Item = &str> {
    let after = report.split(&format!("]({FIGURES}/")).skip(1).collect::<Vec<_>>();
    after.into_iter().filter_map(|text| text.split(')').next()).filter(|name| !name.contains('/'))
}

fn table_text(table: &Table) -> String {
    let titles = table.columns.iter().flat_map(|(heading, columns)| {
        columns.iter().map(move |column| if heading.is_empty() { column.clone() } else { format!("{heading}: {column}") })
    });
    let titles: Vec<String> = titles.collect();
    let mut out = if table.title.is_empty() { String::new() } else { format!("**{}**\n\n", escaped(&table.title)) };
    let line = |cells: &[String]| format!("| {} |\n", cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | "));
    out += &line(&titles);
    let rule = |column: usize| if column < table.text_columns { "---" } else { "---:" };
    out += &format!("| {} |\n", (0..titles.len()).map(rule).collect::<Vec<_>>().join(" | "));
    for row in &table.rows {
        out += &match row {
            // Markdown has no cell that spans others.
            Row::Heading(heading) => format!("| **{}** |{}\n", escaped(heading), " |".repeat(titles.len() - 1)),
            Row::Cells(cells) => line(cells),
        };
    }
    for note in &table.notes {
        out += &format!("\n{}\n", escaped(note));
    }
    out
}

/// Text whose characters mean themselves.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '|' | '#' | '~' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
