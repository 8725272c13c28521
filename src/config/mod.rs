//! From a TOML file as typed to a configuration in which everything is present and checked.

mod schema;

pub use schema::*;
