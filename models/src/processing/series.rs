//! Tables of time series: CSV to numbers.

use super::time::{Step, Timestamp, common_step};

/// A table that cannot be read as series.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// There is nothing in it.
    #[error("has no rows below its header")]
    Empty,
    /// It is no CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A row is longer or shorter than the first.
    #[error("line {line} has {found} cells, the first line {expected}; give every row as many")]
    Ragged {
        /// The line, counted from 1.
        line: u64,
        /// How many cells it has.
        found: usize,
        /// How many the first line has.
        expected: usize,
    },
    /// A cell is not a number.
    #[error(
        "line {line}, column `{column}`: \"{text}\" is not a number; leave a missing value empty, or leave \
         the column out"
    )]
    NotANumber {
        /// The line, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What stands there.
        text: String,
    },
    /// There is no column of that name.
    #[error("has no column `{column}`; it has {}", known.join(", "))]
    NoColumn {
        /// What was asked for.
        column: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A timestamp cannot be read.
    #[error(
        "line {line}, column `{column}`: \"{text}\" is not a timestamp such as 2016-07-01 00:00:00 or a \
         whole number"
    )]
    Timestamp {
        /// The line, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What stands there.
        text: String,
    },
    /// The timestamps do not ascend.
    #[error("column `{column}`: its timestamps do not ascend; sort the rows by it")]
    NoStep {
        /// The column's name.
        column: String,
    },
}

/// Which columns of a table are what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// The columns to read, in this order; by default all that are not the timestamps.
    pub columns: Option<Vec<String>>,
    /// The column of timestamps; by default the first one that looks like dates, or is called so.
    pub timestamps: Option<String>,
    /// What stands between cells; by default the one of `,`, `;` and tab that the first line has most of.
    pub delimiter: Option<u8>,
}

/// A table of series: a column each, a row a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    names: Vec<String>,
    times: Option<Times>,
    /// Row by row; NaN where a value is missing.
    values: Vec<f32>,
}

#[derive(Debug, Clone, PartialEq)]
struct Times {
    name: String,
    stamps: Vec<Timestamp>,
    step: Step,
}

/// The texts that stand for a missing value, but for the empty one.
const MISSING: &[&str] = &["nan", "na", "n/a", "null", "none", "-", "?"];

/// What columns of timestamps are called.
const TIME_NAMES: &[&str] = &["date", "datetime", "ds", "time", "timestamp"];

impl Table {
    /// Reads a CSV. Its first line names the columns if there is a cell in it that is neither number nor
    /// timestamp; else they are called `0`, `1`, ….
    ///
    /// # Errors
    /// The rows differ in length, a cell is not a number, a timestamp cannot be read, or a column is
    /// not there.
    pub fn parse(bytes: &[u8], options: &TableOptions) -> Result<Self, SeriesError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let delimiter = options.delimiter.unwrap_or_else(|| guess_delimiter(bytes));
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_reader(bytes);
        let mut record = csv::StringRecord::new();
        if !reader.read_record(&mut record)? {
            return Err(SeriesError::Empty);
        }
        let width = record.len();
        let is_header = |cell: &str| number(cell).is_none() && Timestamp::parse(cell).is_none();
        let headed = record.iter().any(is_header);
        let names: Vec<String> = if headed {
            record.iter().map(str::to_owned).collect()
        } else {
            (0..width).map(|column| column.to_string()).collect()
        };
        if headed && !reader.read_record(&mut record)? {
            return Err(SeriesError::Empty);
        }
        let find = |column: &String| {
            names
                .iter()
                .position(|name| name == column)
                .ok_or_else(|| SeriesError::NoColumn {
                    column: column.clone(),
                    known: names.clone(),
                })
        };
        let time = match &options.timestamps {
            Some(name) => Some(find(name)?),
            None => record.iter().zip(&names).position(|(cell, name)| {
                let stamp = Timestamp::parse(cell).is_some();
                let called = TIME_NAMES.contains(&&name.to_lowercase()[..]);
                stamp && (called || number(cell).is_none())
            }),
        };
        let columns: Vec<usize> = match &options.columns {
            Some(columns) => columns.iter().map(find).collect::<Result<_, _>>()?,
            None => (0..width).filter(|column| Some(*column) != time).collect(),
        };
        let mut values = Vec::new();
        let mut stamps = Vec::new();
        loop {
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != width {
                return Err(SeriesError::Ragged {
                    line,
                    found: record.len(),
                    expected: width,
                });
            }
            for &column in &columns {
                let text = &record[column];
                let value = number(text).ok_or_else(|| SeriesError::NotANumber {
                    line,
                    column: names[column].clone(),
                    text: text.to_owned(),
                })?;
                values.push(value);
            }
            if let Some(column) = time {
                let text = &record[column];
                let stamp = Timestamp::parse(text).ok_or_else(|| SeriesError::Timestamp {
                    line,
                    column: names[column].clone(),
                    text: text.to_owned(),
                })?;
                stamps.push(stamp);
            }
            if !reader.read_record(&mut record)? {
                break;
            }
        }
        let times = match time {
            // A single row has no step, and is too few for any forecast.
            Some(column) if stamps.len() > 1 => {
                let name = names[column].clone();
                let step = common_step(&stamps).ok_or(SeriesError::NoStep {
                    column: name.clone(),
                })?;
                Some(Times { name, stamps, step })
            }
            _ => None,
        };
        let names = columns.iter().map(|&column| names[column].clone());
        Ok(Self {
            names: names.collect(),
            times,
            values,
        })
    }

    /// A table of values, row by row, NaN where one is missing. A last row that is not full is left out.
    pub fn new(names: Vec<String>, mut values: Vec<f32>) -> Self {
        let width = names.len().max(1);
        values.truncate(values.len() / width * width);
        Self {
            names,
            times: None,
            values,
        }
    }

    /// The names of the series.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.names.len().max(1)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// One row: a value of each series.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.names.len()..(index + 1) * self.names.len()]
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The name of the column of timestamps, if there is one.
    pub fn time_name(&self) -> Option<&str> {
        self.times.as_ref().map(|times| &times.name[..])
    }

    /// The timestamp of a row.
    pub fn time(&self, row: usize) -> Option<String> {
        let stamp = self.times.as_ref()?.stamps.get(row)?;
        Some(stamp.to_string())
    }

    /// The timestamp `steps` after the last row's.
    pub fn time_after(&self, steps: usize) -> Option<String> {
        let times = self.times.as_ref()?;
        let last = times.stamps.last()?;
        Some(last.after(times.step, steps).to_string())
    }

    /// The last `steps` steps, row by row, or as many as there are. Where the timestamps leave steps out,
    /// rows of missing values stand for them.
    pub fn last(&self, steps: usize) -> Vec<f32> {
        let width = self.names.len();
        // Backwards, since only the end counts.
        let mut rows: Vec<Option<usize>> = Vec::new();
        for row in (0..self.len()).rev() {
            if rows.len() >= steps {
                break;
            }
            rows.push(Some(row));
            if let Some(times) = &self.times
                && row > 0
                && let (earlier, stamp) = (&times.stamps[row - 1], &times.stamps[row])
                && let Some(gap) = stamp.steps_since(earlier, times.step)
            {
                let room = steps.saturating_sub(rows.len());
                rows.extend(vec![None; gap.saturating_sub(1).min(room)]);
            }
        }
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows.into_iter().take(steps).rev() {
            match row {
                Some(row) => values.extend_from_slice(self.row(row)),
                None => values.extend(vec![f32::NAN; width]),
            }
        }
        values
    }
}

/// A finite number, or NaN for the texts that stand for a missing value.
fn number(text: &str) -> Option<f32> {
    if text.is_empty() || MISSING.contains(&&text.to_lowercase()[..]) {
        return Some(f32::NAN);
    }
    text.parse().ok().filter(|value: &f32| value.is_finite())
}

fn guess_delimiter(bytes: &[u8]) -> u8 {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or(bytes);
    let count = |delimiter| line.iter().filter(|&&byte| byte == delimiter).count();
    let mut best = b',';
    for delimiter in [b';', b'\t'] {
        if count(delimiter) > count(best) {
            best = delimiter;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{SeriesError, Table, TableOptions};

    fn parse(text: &str) -> Result<Table, SeriesError> {
        Table::parse(text.as_bytes(), &TableOptions::default())
    }

    #[test]
    fn headers_dates_and_missing_values_are_found() {
        let table = parse("date,a,b\n2020-01-01,1,\n2020-01-02,NaN,4\n2020-01-05,5,6\n").unwrap();
        assert_eq!(table.names(), ["a", "b"]);
        assert_eq!((table.time_name(), table.len()), (Some("date"), 3));
        assert_eq!(table.time_after(2).unwrap(), "2020-01-07");
        assert!(table.row(0)[1].is_nan() && table.row(1)[0].is_nan());
        // Two days are left out.
        let last = table.last(4);
        assert_eq!(last.len(), 8);
        assert!(last[2..6].iter().all(|value| value.is_nan()));
        assert_eq!(last[6..], [5.0, 6.0]);
        assert_eq!(table.last(99).len(), 10);
        let bare = parse("\u{feff}1;2\r\n3;4\r\n").unwrap();
        assert_eq!(
            (bare.names(), bare.len()),
            (&["0".to_owned(), "1".to_owned()][..], 2)
        );
        assert_eq!(bare.time_after(1), None);
    }

    #[test]
    fn a_far_gap_takes_no_more_than_is_asked_for() {
        let mut text = "time,a\n0,1\n".to_owned();
        for second in 0..10 {
            text += &format!("{},2\n", 9_000_000_000_000_000_000_u64 + second);
        }
        let table = parse(&text).unwrap();
        let last = table.last(20);
        assert_eq!(last.len(), 20);
        assert_eq!(last.iter().filter(|value| value.is_nan()).count(), 10);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        for (text, says) in [
            ("", "no rows"),
            ("a,b\n", "no rows"),
            ("a,b\n1,2\n3\n", "line 3 has 1 cells, the first line 2"),
            ("a,b\n1,2,3\n", "line 2 has 3 cells"),
            (
                "a,b\n1,2\n3,four\n",
                "line 3, column `b`: \"four\" is not a number",
            ),
            ("a,b\n1,inf\n", "\"inf\" is not a number"),
            (
                "date,b\n2020-01-01,2\nyesterday,4\n",
                "line 3, column `date`: \"yesterday\"",
            ),
            ("date,b\n2020-01-02,2\n2020-01-01,4\n", "do not ascend"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error} does not say {says}");
        }
        let options = TableOptions {
            columns: Some(vec!["c".to_owned()]),
            ..TableOptions::default()
        };
        let error = Table::parse(b"a,b\n1,2\n", &options).unwrap_err();
        assert!(error.to_string().contains("has no column `c`; it has a, b"));
        assert!(Table::parse(b"a,b\n1,\xff\n", &TableOptions::default()).is_err());
    }
}
