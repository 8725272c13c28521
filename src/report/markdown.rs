//! The report as Markdown, whose figures and tables are files beside it.

use super::document::{Block, Content, Document, Figure, Row, Table};

/// Folders of the figures' and the tables' files, beside the report.
pub const FIGURES: &str = "figures";
pub const TABLES: &str = "tables";

pub fn write(document: &Document) -> String {
    let mut out = format!("# {}\n\n{}\n", escaped(&document.title), escaped(&document.lead));
    for section in &document.sections {
        out += &format!("\n## {}\n", escaped(&section.title));
        for block in &section.blocks {
            out += &match block {
                Block::Text(text) => format!("\n{}\n", escaped(text)),
                Block::Table(table) => format!("\n{}", table_text(table)),
                Block::Figure(figure) => figure_text(figure),
                // What a page shows when it is asked to, a text would show always.
                Block::Facts(_) => String::new(),
            };
        }
    }
    out
}

fn figure_text(figure: &Figure) -> String {
    let (title, caption, name) = (escaped(&figure.title), escaped(&figure.caption), &figure.name);
    let (ending, others) = match figure.content {
        Content::Chart(_) => ("svg", format!(" [PDF]({FIGURES}/{name}.pdf), [CSV]({FIGURES}/{name}.csv)")),
        Content::Png(..) => ("png", String::new()),
    };
    format!("\n![{title}]({FIGURES}/{name}.{ending})\n\n{caption}{others}\n")
}

/// The files beside it that a report in Markdown names, from its folder.
pub fn files_of(report: &str) -> impl Iterator<Item = &str> {
    let links = report.split("](").skip(1).filter_map(|text| text.split(')').next());
    links.filter(|link| {
        [FIGURES, TABLES].iter().any(|folder| {
            link.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')).is_some_and(|name| !name.contains('/') && name != "..")
        })
    })
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
    out + &format!("\n[CSV]({TABLES}/{0}.csv), [LaTeX]({TABLES}/{0}.tex)\n", table.name)
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
