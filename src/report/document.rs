//! A report before it has a format: sections of text, tables, figures and pictures, for [`super::markdown`] and [`super::html`] to write.

use super::chart::Chart;

/// A report.
#[derive(Default)]
pub struct Document {
    pub title: String,
    pub lead: String,
    pub sections: Vec<Section>,
}

pub struct Section {
    pub title: String,
    pub blocks: Vec<Block>,
}

pub enum Block {
    Text(String),
    Table(Table),
    Figure(Figure),
    Facts(Facts),
}

/// What a page shows when it is asked to: where something comes from.
pub struct Facts {
    pub title: String,
    pub facts: Vec<(&'static str, String)>,
    /// Such as a configuration.
    pub text: String,
}

/// A chart or a picture, with its caption.
pub struct Figure {
    /// Name of its file, where it becomes one, without the ending.
    pub name: String,
    pub title: String,
    pub caption: String,
    pub content: Content,
}

pub enum Content {
    Chart(Chart),
    /// The bytes of a PNG, and the width to show it at, in pixels of a screen.
    Png(Vec<u8>, usize),
}

#[derive(Debug, Default)]
pub struct Table {
    /// Name of its files, without the ending.
    pub name: String,
    pub title: String,
    /// Columns under a common heading, which may be empty.
    pub columns: Vec<(String, Vec<String>)>,
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
    /// Columns from the left that hold text; numbers, in the others, end at the right.
    pub text_columns: usize,
}

#[derive(Debug)]
pub enum Row {
    /// A heading across all columns.
    Heading(String),
    Cells(Vec<String>),
}

impl Section {
    /// None where there is nothing to say.
    pub fn new(title: &str, blocks: Vec<Block>) -> Option<Section> {
        (!blocks.is_empty()).then(|| Section { title: title.to_owned(), blocks })
    }
}

/// What a table shows where there is no value.
pub const ABSENT: &str = "–";
