//! The results: a table of cases and servers, and below it the reasons.

use testkit::Table;

/// How a case ended against a number of servers.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    /// With the reason.
    Skipped(String),
}

/// A table of cases as rows; each column is a peer with a number of servers.
#[derive(Debug)]
pub(crate) struct Report {
    title: &'static str,
    columns: Vec<String>,
    rows: Vec<(&'static str, Vec<Option<Outcome>>)>,
}

impl Report {
    pub(crate) fn new(title: &'static str, cases: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            title,
            columns: Vec::new(),
            rows: cases.into_iter().map(|case| (case, Vec::new())).collect(),
        }
    }

    /// Adds a column, whose cells follow.
    pub(crate) fn column(&mut self, name: impl Into<String>) {
        self.columns.push(name.into());
        for (_, cells) in &mut self.rows {
            cells.push(None);
        }
    }

    /// Fills a cell of the last column.
    pub(crate) fn note(&mut self, case: &str, outcome: Outcome) {
        let row = self.rows.iter_mut().find(|(name, _)| *name == case);
        if let Some(cell) = row.and_then(|(_, cells)| cells.last_mut()) {
            *cell = Some(outcome);
        }
    }

    /// Adds a column of a peer that is not there.
    pub(crate) fn skip_column(&mut self, name: &str, reason: &str) {
        self.columns.push(name.to_owned());
        for (_, cells) in &mut self.rows {
            cells.push(Some(Outcome::Skipped(reason.to_owned())));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number of cells that passed, failed and were skipped.
    pub(crate) fn totals(&self) -> [usize; 3] {
        let mut totals = [0; 3];
        for outcome in self.rows.iter().flat_map(|(_, cells)| cells).flatten() {
            totals[match outcome {
                Outcome::Passed => 0,
                Outcome::Failed(_) => 1,
                Outcome::Skipped(_) => 2,
            }] += 1;
        }
        totals
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = [self.title.to_owned()].into_iter();
        let mut table = Table::new(header.chain(self.columns.iter().cloned()));
        // Each reason once, with all cells that it holds for.
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for (case, cells) in &self.rows {
            let mut row = vec![(*case).to_owned()];
            for (column, cell) in self.columns.iter().zip(cells) {
                let (text, reason) = match cell {
                    None => ("", None),
                    Some(Outcome::Passed) => ("pass", None),
                    Some(Outcome::Failed(reason)) => ("FAIL", Some(format!("FAIL: {reason}"))),
                    Some(Outcome::Skipped(reason)) => ("skip", Some(format!("SKIPPED: {reason}"))),
                };
                row.push(text.to_owned());
                let Some(reason) = reason else { continue };
                let place = format!("{case} ({column})");
                match reasons.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, places)) => places.push(place),
                    None => reasons.push((reason, vec![place])),
                }
            }
            table.row(row);
        }
        write!(f, "{table}")?;
        for (reason, places) in reasons {
            match &places[..] {
                [place] => writeln!(f, "{reason}: {place}")?,
                [first, .., last] => {
                    writeln!(f, "{reason}: {first} ... {last}, {} in all", places.len())?;
                }
                [] => {}
            }
        }
        Ok(())
    }
}
