//! The report as one page that needs no other file: style, charts and pictures are within it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::document::{Block, Content, Document, Figure, Row, Table};

const STYLE: &str = include_str!("style.css");

pub fn write(document: &Document) -> String {
    let title = escaped(&document.title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n",
        escaped(&document.lead)
    );
    if document.sections.len() > 1 {
        let link = |(index, title): (usize, &str)| format!("<li><a href=\"#s{index}\">{}</a></li>", escaped(title));
        let links: Vec<String> = document.sections.iter().map(|section| section.title.as_str()).enumerate().map(link).collect();
        out += &format!("<nav><ul>{}</ul></nav>\n", links.concat());
    }
    for (index, section) in document.sections.iter().enumerate() {
        out += &format!("<section id=\"s{index}\">\n<h2>{}</h2>\n", escaped(&section.title));
        for block in &section.blocks {
            out += &match block {
                Block::Text(text) => format!("<p>{}</p>\n", escaped(text)),
                Block::Table(table) => table_text(table),
                Block::Figure(figure) => figure_text(figure),
            };
        }
        out += "</section>\n";
    }
    out + "</main>\n</body>\n</html>\n"
}

fn figure_text(figure: &Figure) -> String {
    let (title, caption) = (escaped(&figure.title), escaped(&figure.caption));
    let content = match &figure.content {
        Content::Svg(svg) => svg.clone(),
        Content::Png(bytes, width) => {
            format!("<img src=\"data:image/png;base64,{}\" alt=\"{title}\" width=\"{width}\">", STANDARD.encode(bytes))
        }
    };
    format!("<figure>\n<h3>{title}</h3>\n<div class=\"scroll\">{content}</div>\n<figcaption>{caption}</figcaption>\n</figure>\n")
}

fn table_text(table: &Table) -> String {
    let width: usize = table.columns.iter().map(|(_, columns)| columns.len()).sum();
    let mut out = String::new();
    if !table.title.is_empty() {
        // Not a caption, which a narrow screen would cut with the table.
        out += &format!("<h3>{}</h3>\n", escaped(&table.title));
    }
    out += "<div class=\"scroll\"><table>\n<thead>\n";
    let grouped = table.columns.iter().any(|(heading, _)| !heading.is_empty());
    if grouped {
        out += "<tr>";
        for (heading, columns) in &table.columns {
            let class = if heading.is_empty() { "" } else { " class=\"over\"" };
            out += &format!("<th colspan=\"{}\"{class}>{}</th>", columns.len(), escaped(heading));
        }
        out += "</tr>\n";
    }
    // A line on the left of each group of columns makes their headings readable.
    let mut classes = Vec::new();
    for (heading, columns) in &table.columns {
        for index in 0..columns.len() {
            let kind = if classes.len() < table.text_columns { "text" } else { "number" };
            classes.push(if index == 0 && !heading.is_empty() { format!("{kind} first") } else { kind.to_owned() });
        }
    }
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &String>| {
        let cells = cells.zip(&classes).map(|(cell, class)| format!("<{tag} class=\"{class}\">{}</{tag}>", escaped(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    out += &cells("th", &mut table.columns.iter().flat_map(|(_, columns)| columns));
    out += "</thead>\n<tbody>\n";
    for row in &table.rows {
        out += &match row {
            Row::Heading(heading) => format!("<tr class=\"heading\"><th colspan=\"{width}\">{}</th></tr>\n", escaped(heading)),
            Row::Cells(row) => cells("td", &mut row.iter()),
        };
    }
    out += "</tbody>\n</table></div>\n";
    for note in &table.notes {
        out += &format!("<p class=\"note\">{}</p>\n", escaped(note));
    }
    out
}

/// Text for between tags and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}
