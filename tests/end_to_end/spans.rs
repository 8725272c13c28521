//! The spans of a trace, as a program reads them.

use std::collections::BTreeMap;

use serde_json::Value;

/// A span of one rank, in microseconds.
pub struct Event {
    pub rank: u64,
    pub row: String,
    pub name: String,
    pub step: u64,
    pub begin: f64,
    pub end: f64,
}

impl Event {
    /// Whether both were under way at some time.
    pub fn overlaps(&self, other: &Event) -> bool {
        self.rank == other.rank && self.begin < other.end && other.begin < self.end
    }
}

pub fn events(trace: &Value) -> Vec<Event> {
    let all = trace["traceEvents"].as_array().unwrap();
    let rows: BTreeMap<(u64, u64), &str> = all
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| ((event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap()), event["args"]["name"].as_str().unwrap()))
        .collect();
    let spans = all.iter().filter(|event| event["ph"] == "X").map(|event| {
        let (rank, row) = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let begin = event["ts"].as_f64().unwrap();
        Event {
            rank,
            row: rows[&(rank, row)].to_owned(),
            name: event["name"].as_str().unwrap().to_owned(),
            step: event["args"]["step"].as_u64().unwrap(),
            begin,
            end: begin + event["dur"].as_f64().unwrap(),
        }
    });
    spans.collect()
}
