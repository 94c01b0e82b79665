//! Tables of time series: CSV to numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use csv::StringRecord;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::axis::{Axis, Fault};
use super::missing::{Earlier, Missing, fill};
use super::time::{Format, Guess, Stamp};

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
    /// It is no text.
    #[error("is {found}; save it as CSV in UTF-8")]
    NotText {
        /// What it is.
        found: &'static str,
    },
    /// A byte is none of UTF-8.
    #[error(
        "line {line}: is not UTF-8; convert the file, for instance by `iconv -f WINDOWS-1252 -t UTF-8`"
    )]
    Encoding {
        /// The line, counted from 1.
        line: usize,
    },
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
    #[error("line {line}, column `{column}`: \"{text}\" {reason}")]
    NotANumber {
        /// The line, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What stands there.
        text: String,
        /// What is wrong with it, and what helps.
        reason: &'static str,
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
    #[error("line {line}, column `{column}`: \"{text}\" {reason}")]
    Timestamp {
        /// The line, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What stands there.
        text: String,
        /// What is wrong with it, and what helps.
        reason: String,
    },
    /// Two rows are in the wrong order, or at the same time.
    #[error("lines {earlier} and {line}, column `{column}`: {reason}")]
    Order {
        /// The first of the two lines, counted from 1.
        earlier: u64,
        /// The second of the two lines, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What is wrong with them, and what helps.
        reason: String,
    },
    /// An option has a value that cannot be followed.
    #[error("`{name}`: {reason}")]
    Option {
        /// The option.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The table is laid out in a way that is no series.
    #[error("{0}")]
    Layout(String),
}

/// How a table is to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// The columns to read, in this order, or the series of a long table; by default all that are not the
    /// timestamps.
    pub columns: Option<Vec<String>>,
    /// The column of timestamps; by default the first one that looks like dates, or is called so.
    pub timestamps: Option<String>,
    /// What stands between cells; by default the one of `,`, `;`, tab and `|` that the lines agree on.
    pub delimiter: Option<u8>,
    /// How timestamps are written, by the directives of `strftime`, such as `%d/%m/%Y %H:%M`, or one of
    /// `seconds`, `milliseconds`, `microseconds` and `nanoseconds` since 1970; by default it is found.
    pub date_format: Option<String>,
    /// The zone of timestamps without an offset, by its name in the IANA database.
    pub time_zone: Option<String>,
    /// The frequency of the timestamps, as pandas calls it, such as `D`, `B`, `15min`, `W-SUN` or `ME`, or
    /// `rows` if each row is a step whatever its timestamp; by default it is found.
    pub frequency: Option<String>,
    /// The columns that name the series of a long table, which has a row for each series and timestamp; by
    /// default those that are text, if timestamps repeat.
    pub series: Vec<String>,
    /// What stands before a number's fraction, `.` or `,`; by default it is found.
    pub decimal: Option<char>,
    /// Whether rows that do not ascend are sorted, rather than refused.
    pub sort: bool,
}

/// A table of series: a column each, a row a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    names: Vec<String>,
    times: Option<Times>,
    /// Row by row; NaN where a value is missing.
    values: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Times {
    name: String,
    /// As they were written.
    texts: Vec<String>,
    /// Nothing where rows are steps.
    axis: Option<Axis>,
}

/// The last steps of a table, filled.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Step by step, `[steps, series]`; NaN where a value is missing and was not filled.
    pub values: Vec<f64>,
    /// How many values each series lacked.
    pub missing: Vec<usize>,
}

/// The texts that stand for a missing value, in lower case: pandas's, and what other programs write.
const MISSING: &[&str] = &[
    "", "nan", "-nan", "na", "n/a", "n.a.", "#n/a", "#na", "#n/a n/a", "<na>", "nat", "null",
    "nil", "none", "missing", "-", "--", "\u{2013}", "\u{2014}", "?", ".", "1.#ind", "-1.#ind",
    "1.#qnan", "-1.#qnan",
];

/// What columns of timestamps are called.
const TIME_NAMES: &[&str] = &["date", "datetime", "ds", "time", "timestamp"];

/// What columns are called that are timestamps if they are dates, or whole numbers that ascend.
const INDEX_NAMES: &[&str] = &[
    "",
    "unnamed: 0",
    "index",
    "day",
    "month",
    "quarter",
    "week",
    "year",
    "period",
    "datum",
    "t",
    "step",
];

/// What the columns are called that name the series of a long table.
const SERIES_NAMES: &[&str] = &[
    "unique_id",
    "item_id",
    "series_id",
    "series",
    "ts_id",
    "group_id",
];

/// The most values of a long table: there is one for each series and timestamp, also where it is missing.
const MOST_VALUES: usize = 1 << 27;

/// The rows of a CSV below its header.
struct Sheet {
    names: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    line: u64,
    cells: StringRecord,
}

impl Sheet {
    fn read(text: &str, options: &TableOptions) -> Result<(Self, u8), SeriesError> {
        // What Excel is told the delimiter by.
        let told = text
            .strip_prefix("sep=")
            .and_then(|rest| rest.bytes().next());
        let skipped = match told {
            Some(_) => text.find('\n').map_or(text.len(), |end| end + 1),
            None => 0,
        };
        let text = &text[skipped..];
        let delimiter = options
            .delimiter
            .or(told)
            .unwrap_or_else(|| guess_delimiter(text));
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut rows = Vec::new();
        let mut next = 1;
        for cells in reader.records() {
            let cells = cells?;
            // A record's position is that of the empty lines before it.
            let position = cells.position().map_or((0, 0), |at| (at.byte(), at.line()));
            let start = usize::try_from(position.0)
                .unwrap_or(text.len())
                .min(text.len());
            let blank = text.as_bytes()[start..]
                .iter()
                .take_while(|byte| b"\r\n".contains(byte))
                .filter(|byte| **byte == b'\n')
                .count();
            let line = position.1 + blank as u64 + u64::from(told.is_some());
            // A line without a cell is a missing value where there is one column only.
            if let Some(Row { cells: last, .. }) = rows.last()
                && last.len() == 1
                && cells.len() == 1
            {
                let blank = |line| Row {
                    line,
                    cells: StringRecord::from(vec![""]),
                };
                rows.extend((next..line).map(blank));
            }
            next = line + 1;
            rows.push(Row { line, cells });
        }
        let Some(first) = rows.first() else {
            return Err(SeriesError::Empty);
        };
        let width = first.cells.len();
        if let Some(row) = rows.iter().find(|row| row.cells.len() != width) {
            return Err(SeriesError::Ragged {
                line: row.line,
                found: row.cells.len(),
                expected: width,
            });
        }
        let given = options.date_format.as_deref().and_then(Format::parse);
        let is_date = |cell: &str| {
            Format::is_date(cell)
                || given
                    .as_ref()
                    .is_some_and(|given| given.read(cell).is_some())
        };
        let is_name = |cell: &str| !is_missing(cell) && !is_numeric(cell) && !is_date(cell);
        let dates = |row: &Row| row.cells.iter().filter(|cell| is_date(cell)).count();
        let headed = first.cells.iter().any(is_name);
        // The first row of a long table has its series' name in it.
        let bare = headed
            && dates(first) == 1
            && rows.get(1).is_some_and(|row| {
                row.cells
                    .iter()
                    .zip(&first.cells)
                    .any(|(a, b)| is_date(a) && is_date(b))
            });
        let across = rows.get(1).is_some_and(|row| dates(row) == 0);
        if across && dates(first) > 1 && dates(first) * 2 > width {
            let reason = "has its timestamps in the first line, from left to right; give each series a column \
                          and each step a row";
            return Err(SeriesError::Layout(reason.to_owned()));
        }
        let headed = headed && !bare;
        let names: Vec<String> = if headed {
            rows.remove(0).cells.iter().map(str::to_owned).collect()
        } else {
            (0..width).map(|column| column.to_string()).collect()
        };
        if rows.is_empty() {
            return Err(SeriesError::Empty);
        }
        Ok((Self { names, rows }, delimiter))
    }

    fn find(&self, column: &String) -> Result<usize, SeriesError> {
        let at = self.names.iter().position(|name| name == column);
        at.ok_or_else(|| SeriesError::NoColumn {
            column: column.clone(),
            known: self.names.clone(),
        })
    }

    fn column(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| &row.cells[column])
    }

    /// The first cell of a column that is not missing.
    fn first(&self, column: usize) -> &str {
        self.column(column)
            .find(|cell| !is_missing(cell))
            .unwrap_or("")
    }

    /// The column of timestamps and how they are written.
    fn timestamps(&self, options: &TableOptions) -> Result<Option<(usize, Format)>, SeriesError> {
        let given = match options.date_format.as_deref() {
            None => None,
            Some(text) => Some(Format::parse(text).ok_or_else(|| SeriesError::Option {
                name: "date_format",
                reason: format!(
                    "\"{text}\" is not directives such as %d/%m/%Y %H:%M, nor one of seconds, milliseconds, \
                     microseconds, nanoseconds"
                ),
            })?),
        };
        let called =
            |column: usize, names: &[&str]| names.contains(&&self.names[column].to_lowercase()[..]);
        let width = self.names.len();
        let column = match &options.timestamps {
            Some(name) => Some(self.find(name)?),
            None => match &given {
                Some(format) => {
                    let reads = |column: &usize| format.read(self.first(*column)).is_some();
                    let named = (0..width)
                        .filter(|column| called(*column, TIME_NAMES))
                        .find(reads);
                    let found = named.or_else(|| (0..width).find(reads));
                    Some(found.ok_or_else(|| SeriesError::Option {
                        name: "date_format",
                        reason: "no column begins with such a timestamp".to_owned(),
                    })?)
                }
                // Numbers that only ascend are timestamps where there are no others.
                None => (0..width)
                    .find(|column| {
                        let named = called(*column, TIME_NAMES);
                        (named || Format::is_date(self.first(*column))) && self.is_time(*column)
                    })
                    .or_else(|| (0..width).find(|column| self.is_time(*column))),
            },
        };
        let Some(column) = column else {
            return Ok(None);
        };
        if let Some(format) = given {
            return Ok(Some((column, format)));
        }
        let texts: Vec<&str> = self
            .column(column)
            .filter(|cell| !is_missing(cell))
            .collect();
        match Format::guess(&texts, true) {
            Guess::Format(format) => Ok(Some((column, format))),
            Guess::Ambiguous => Err(self.wrong_time(
                column,
                0,
                "may have its day or its month first; say which by `date_format` (--date-format), %d/%m/%Y or \
                 %m/%d/%Y",
            )),
            Guess::Unknown => Err(self.wrong_time(column, 0, NO_TIMESTAMP)),
        }
    }

    fn is_time(&self, column: usize) -> bool {
        let first = self.first(column);
        let name = self.names[column].to_lowercase();
        let named = TIME_NAMES.contains(&&name[..]);
        if Format::is_date(first) {
            return true;
        }
        let index = INDEX_NAMES.contains(&&name[..]);
        if first.parse::<i64>().is_err() || !(named || index || column == 0) {
            return false;
        }
        let texts: Vec<&str> = self
            .column(column)
            .filter(|cell| !is_missing(cell))
            .collect();
        match Format::guess(&texts, named || index) {
            Guess::Format(Format::Number) if named => true,
            Guess::Format(Format::Number) if index => {
                let numbers: Vec<i64> = texts.iter().filter_map(|text| text.parse().ok()).collect();
                numbers.len() == self.rows.len() && numbers.windows(2).all(|pair| pair[0] < pair[1])
            }
            Guess::Format(Format::YearFirst) => texts.len() > 2 || named || index,
            Guess::Format(Format::Month) => true,
            _ => false,
        }
    }

    /// Whether a column has no name and counts the rows, as pandas writes it.
    fn is_index(&self, column: usize) -> bool {
        let unnamed = ["", "unnamed: 0"].contains(&&self.names[column].to_lowercase()[..]);
        let numbers = || self.column(column).map(|cell| cell.parse::<i64>().ok());
        let first = numbers().next().flatten();
        unnamed
            && first.is_some_and(|first| numbers().eq((first..).map(Some).take(self.rows.len())))
    }

    fn wrong_time(&self, column: usize, row: usize, reason: &str) -> SeriesError {
        SeriesError::Timestamp {
            line: self.rows[row].line,
            column: self.names[column].clone(),
            text: self.rows[row].cells[column].to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// The columns that name series.
    fn series(&self, time: usize, options: &TableOptions) -> Result<Vec<usize>, SeriesError> {
        if !options.series.is_empty() {
            return options.series.iter().map(|name| self.find(name)).collect();
        }
        let chosen = |column: &usize| {
            let columns = options.columns.as_ref();
            columns.is_some_and(|columns| columns.contains(&self.names[*column]))
        };
        let others = || (0..self.names.len()).filter(|column| *column != time && !chosen(column));
        let named =
            |column: &usize| SERIES_NAMES.contains(&&self.names[*column].to_lowercase()[..]);
        let called: Vec<usize> = others().filter(named).collect();
        if !called.is_empty() {
            return Ok(called);
        }
        let mut seen = std::collections::HashSet::new();
        if self.column(time).all(|text| seen.insert(text)) {
            return Ok(Vec::new());
        }
        let is_text = |column: &usize| {
            let mut cells = self.column(*column).filter(|cell| !is_missing(cell));
            let first = cells.next().unwrap_or("0");
            is_word(first) && cells.all(is_word)
        };
        Ok(others().filter(is_text).collect())
    }

    /// A time of day that stands in the column after the dates, joined to them.
    fn join_clock(&mut self, time: usize, format: &Format) {
        let clock = time + 1;
        if clock >= self.names.len()
            || !matches!(
                format,
                Format::YearFirst | Format::DayFirst | Format::MonthFirst
            )
        {
            return;
        }
        let joined = |row: &Row| {
            let (date, clock) = (&row.cells[time], &row.cells[clock]);
            let text = format!("{date} {clock}");
            (clock.contains(':') && format.read(date).is_some() && format.read(&text).is_some())
                .then_some(text)
        };
        let Some(texts) = self
            .rows
            .iter()
            .map(joined)
            .collect::<Option<Vec<String>>>()
        else {
            return;
        };
        for (row, text) in self.rows.iter_mut().zip(texts) {
            let cells = row
                .cells
                .iter()
                .enumerate()
                .filter(|(column, _)| *column != clock);
            row.cells = cells
                .map(|(column, cell)| if column == time { &text[..] } else { cell })
                .collect();
        }
        self.names.remove(clock);
    }

    /// The values of the columns, row by row.
    fn values(
        &self,
        columns: &[usize],
        delimiter: u8,
        options: &TableOptions,
    ) -> Result<Vec<f64>, SeriesError> {
        let decimal = match options.decimal {
            Some(decimal @ ('.' | ',')) => decimal,
            Some(other) => {
                return Err(SeriesError::Option {
                    name: "decimal",
                    reason: format!("\"{other}\" is not . or ,"),
                });
            }
            None => self.decimal(columns, delimiter),
        };
        let mut values = Vec::with_capacity(self.rows.len() * columns.len());
        for row in &self.rows {
            for &column in columns {
                let text = &row.cells[column];
                let value = number(text, decimal).map_err(|reason| SeriesError::NotANumber {
                    line: row.line,
                    column: self.names[column].clone(),
                    text: text.to_owned(),
                    reason: match text.bytes().filter(u8::is_ascii_digit).count() {
                        4.. if reason == NOT_A_NUMBER => NO_NUMBER,
                        _ => reason,
                    },
                })?;
                values.push(value);
            }
        }
        Ok(values)
    }

    /// What the numbers have before their fraction.
    fn decimal(&self, columns: &[usize], delimiter: u8) -> char {
        if delimiter == b',' {
            return '.';
        }
        let mut commas = self
            .rows
            .iter()
            .flat_map(|row| columns.iter().map(|column| &row.cells[*column]))
            .filter(|cell| cell.contains(',') && number(cell, ',').is_ok())
            .peekable();
        // A semicolon is there because the comma is taken; with others, three digits may be thousands.
        let sure = delimiter == b';' || commas.clone().any(|cell| !may_group(cell));
        if commas.peek().is_some() && sure {
            ','
        } else {
            '.'
        }
    }
}

const NOT_A_NUMBER: &str = "is not a number; leave a missing value empty, or leave the column out";

const NO_NUMBER: &str = "is not a number; if it is a timestamp, say how it is written by `date_format` (--date-format), \
                         for instance %d/%m/%y";

const NO_TIMESTAMP: &str = "is not a timestamp such as 2016-07-01 00:00, 20160701, 2016-07, 2016Q3 or a whole number; \
                            say how it is written by `date_format` (--date-format), for instance %d.%m.%y";

impl Table {
    /// Reads a CSV in UTF-8, or in UTF-16 with a byte order mark. Its first line names the columns if there
    /// is a cell in it that is neither number nor timestamp; else they are called `0`, `1`, ….
    ///
    /// A long table, which has a row for each series and timestamp, becomes one with a column for each
    /// series, which has the name that stands there; where there are several columns of values, theirs
    /// follow it after a `/`. Timestamps that one series has and another lacks are missing values there.
    ///
    /// The steps are those of the timestamps' frequency. A step without a row is a row of missing values;
    /// what a frequency leaves out is no step: business days have no weekends, nor are there steps in the
    /// hour that a change of the clock leaves out. Holidays are steps, as they are in pandas's `B`.
    ///
    /// # Errors
    /// The rows differ in length, a cell is not a number, a timestamp cannot be read or may be read in two
    /// ways, the timestamps do not ascend or have no frequency, or a column is not there.
    pub fn parse(bytes: &[u8], options: &TableOptions) -> Result<Self, SeriesError> {
        let text = decode(bytes)?;
        let (mut sheet, delimiter) = Sheet::read(&text, options)?;
        let zone =
            match options.time_zone.as_deref() {
                None => None,
                Some(name) => Some(TimeZoneDatabase::bundled().get(name).map_err(|_| {
                    SeriesError::Option {
                        name: "time_zone",
                        reason: format!("\"{name}\" is not a zone such as Europe/Berlin"),
                    }
                })?),
            };
        let time = sheet.timestamps(options)?;
        if let Some((time, format)) = &time {
            // Spreadsheets end in rows without anything.
            while sheet
                .rows
                .last()
                .is_some_and(|row| row.cells.iter().all(str::is_empty))
            {
                sheet.rows.pop();
            }
            sheet.join_clock(*time, format);
        }
        let ids = match &time {
            Some((time, _)) => sheet.series(*time, options)?,
            None if options.series.is_empty() => Vec::new(),
            None => {
                return Err(SeriesError::Option {
                    name: "series",
                    reason: "a long table needs a column of timestamps; name it by `timestamps` (--timestamps)"
                        .to_owned(),
                });
            }
        };
        let at = time.as_ref().map(|(column, _)| *column);
        // Of a long table, series may be chosen as well as columns.
        let known = |name: &&String| ids.is_empty() || sheet.names.contains(*name);
        let (chosen, series): (Vec<&String>, Vec<&String>) = match &options.columns {
            Some(columns) => columns.iter().partition(known),
            None => (Vec::new(), Vec::new()),
        };
        let columns: Vec<usize> = match options
            .columns
            .as_ref()
            .filter(|_| !chosen.is_empty() || series.is_empty())
        {
            Some(_) => chosen
                .into_iter()
                .map(|name| sheet.find(name))
                .collect::<Result<_, _>>()?,
            // Lines that end in a delimiter have a last column without a name.
            None => (0..sheet.names.len())
                .filter(|column| Some(*column) != at && !ids.contains(column))
                .filter(|column| at.is_none() || !sheet.is_index(*column))
                .filter(|column| {
                    !sheet.names[*column].is_empty()
                        || sheet.column(*column).any(|cell| !cell.is_empty())
                })
                .collect(),
        };
        let values = sheet.values(&columns, delimiter, options)?;
        let names: Vec<String> = columns
            .iter()
            .map(|column| sheet.names[*column].clone())
            .collect();
        let Some((column, format)) = time else {
            return Ok(Self {
                names,
                times: None,
                values,
            });
        };
        let rows = sheet.rows.iter().enumerate();
        let stamps = rows.map(|(row, cells)| {
            let read = format.read(&cells.cells[column]);
            read.ok_or_else(|| sheet.wrong_time(column, row, &unreadable(&format)))
        });
        let stamps: Vec<Stamp> = stamps.collect::<Result<_, _>>()?;
        let reader = Reader {
            sheet: &sheet,
            column,
            format,
            stamps,
            values,
            names,
            options,
            zone,
        };
        if ids.is_empty() {
            return reader.wide();
        }
        let table = reader.long(&ids)?;
        if series.is_empty() {
            Ok(table)
        } else {
            table.select(&series)
        }
    }

    /// The table of some of its series, in this order.
    ///
    /// # Errors
    /// A series is not there.
    fn select(&self, names: &[&String]) -> Result<Self, SeriesError> {
        let find = |name: &&String| {
            let at = self.names.iter().position(|other| other == *name);
            at.ok_or_else(|| SeriesError::NoColumn {
                column: (*name).clone(),
                known: self.names.clone(),
            })
        };
        let columns: Vec<usize> = names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(self.of_columns(&columns))
    }

    fn of_columns(&self, columns: &[usize]) -> Self {
        let rows = self.values.chunks(self.names.len().max(1));
        let values = rows.flat_map(|row| columns.iter().map(|column| row[*column]));
        Self {
            names: columns
                .iter()
                .map(|column| self.names[*column].clone())
                .collect(),
            times: self.times.clone(),
            values: values.collect(),
        }
    }

    /// A table for each series.
    pub fn split(&self) -> Vec<Self> {
        (0..self.names.len())
            .map(|column| self.of_columns(&[column]))
            .collect()
    }

    /// A table of values, row by row, NaN where one is missing. A last row that is not full is left out.
    pub fn new(names: Vec<String>, values: Vec<impl Into<f64>>) -> Self {
        let width = names.len().max(1);
        let rows = values.len() / width * width;
        Self {
            names,
            times: None,
            values: values.into_iter().take(rows).map(Into::into).collect(),
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
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.names.len()..(index + 1) * self.names.len()]
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The name of the column of timestamps, if there is one.
    pub fn time_name(&self) -> Option<&str> {
        self.times.as_ref().map(|times| &times.name[..])
    }

    /// The timestamp of a row.
    pub fn time(&self, row: usize) -> Option<String> {
        self.times.as_ref()?.texts.get(row).cloned()
    }

    /// The frequency of the timestamps, as pandas calls it, or a description where it has no name for it.
    pub fn frequency(&self) -> Option<String> {
        Some(self.times.as_ref()?.axis.as_ref()?.name())
    }

    /// The timestamp `steps` after the last row's, in the form of that.
    pub fn time_after(&self, steps: usize) -> Option<String> {
        self.times.as_ref()?.axis.as_ref()?.after(steps)
    }

    /// The last `steps` steps, row by row, or as many as there are. Where the timestamps leave steps out,
    /// rows of missing values stand for them.
    pub fn last(&self, steps: usize) -> Vec<f64> {
        let width = self.names.len();
        let rows = self.last_rows(steps);
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            match row {
                Some(row) => values.extend_from_slice(self.row(row)),
                None => values.extend(vec![f64::NAN; width]),
            }
        }
        values
    }

    /// As [`Table::last`], with what is missing filled.
    pub fn window(&self, steps: usize, missing: Missing) -> Window {
        let width = self.names.len();
        let rows = self.last_rows(steps);
        let mut values = self.last(steps);
        let step = |row: usize| match self.axis() {
            Some(axis) => axis.step(row).unwrap_or(0),
            None => row as i128,
        };
        let first = rows
            .iter()
            .enumerate()
            .find_map(|(at, row)| row.map(|row| (at, row)));
        let missing = (0..width).map(|column| {
            let earlier = first.and_then(|(at, first)| {
                let start = step(first) - at as i128;
                let row = (0..first)
                    .rev()
                    .find(|row| !self.row(*row)[column].is_nan())?;
                Some(Earlier {
                    steps: (start - step(row)) as f64,
                    value: self.row(row)[column],
                })
            });
            fill(&mut values, width, column, earlier, missing)
        });
        let missing = missing.collect();
        Window { values, missing }
    }

    fn axis(&self) -> Option<&Axis> {
        self.times.as_ref()?.axis.as_ref()
    }

    /// The rows of the last `steps` steps; nothing where there is no row.
    fn last_rows(&self, steps: usize) -> Vec<Option<usize>> {
        // Backwards, since only the end counts.
        let mut rows: Vec<Option<usize>> = Vec::new();
        for row in (0..self.len()).rev() {
            if rows.len() >= steps {
                break;
            }
            rows.push(Some(row));
            if row > 0
                && let Some(axis) = self.axis()
                && let (Some(earlier), Some(step)) = (axis.step(row - 1), axis.step(row))
            {
                let gap = usize::try_from(step - earlier - 1).unwrap_or(0);
                let room = steps.saturating_sub(rows.len());
                rows.extend(vec![None; gap.min(room)]);
            }
        }
        rows.reverse();
        rows
    }
}

fn unreadable(format: &Format) -> String {
    match format {
        Format::Pattern(pattern) => {
            format!("is not a timestamp of the form {pattern}, as the others are")
        }
        Format::DayFirst => "is not a timestamp with the day first, as others are".to_owned(),
        Format::MonthFirst => "is not a timestamp with the month first, as others are".to_owned(),
        _ => NO_TIMESTAMP.to_owned(),
    }
}

/// A sheet whose parts are known.
struct Reader<'a> {
    sheet: &'a Sheet,
    /// The column of timestamps.
    column: usize,
    format: Format,
    /// Of each row.
    stamps: Vec<Stamp>,
    /// Row by row.
    values: Vec<f64>,
    /// Of the columns of values.
    names: Vec<String>,
    options: &'a TableOptions,
    zone: Option<TimeZone>,
}

impl Reader<'_> {
    fn wide(self) -> Result<Table, SeriesError> {
        let mut order: Vec<usize> = (0..self.stamps.len()).collect();
        if self.options.sort {
            order.sort_by_key(|row| instant(self.stamps[*row]));
        }
        let times = self.times(&order)?;
        let width = self.names.len();
        let values = order
            .iter()
            .flat_map(|row| self.values[row * width..(row + 1) * width].iter());
        Ok(Table {
            values: values.copied().collect(),
            names: self.names,
            times: Some(times),
        })
    }

    fn long(self, ids: &[usize]) -> Result<Table, SeriesError> {
        let mut order: Vec<usize> = (0..self.stamps.len()).collect();
        if self.options.sort {
            order.sort_by_key(|row| instant(self.stamps[*row]));
        }
        let id = |row: usize| -> Vec<&str> {
            ids.iter()
                .map(|column| &self.sheet.rows[row].cells[*column])
                .collect()
        };
        // The series in the order of their first rows.
        let mut series: HashMap<Vec<&str>, usize> = HashMap::new();
        let mut labels = Vec::new();
        for row in 0..self.stamps.len() {
            if let Entry::Vacant(entry) = series.entry(id(row)) {
                entry.insert(labels.len());
                labels.push(id(row).join("/"));
            }
        }
        // The rows of each series must ascend.
        let mut last: Vec<Option<usize>> = vec![None; labels.len()];
        for &row in &order {
            let series = series[&id(row)];
            if let Some(earlier) = last[series] {
                let (before, after) = (instant(self.stamps[earlier]), instant(self.stamps[row]));
                if after <= before {
                    let (faults, whose) = (
                        after == before,
                        format!(" in the series {}", labels[series]),
                    );
                    return Err(self.order(earlier, row, faults, &whose));
                }
            }
            last[series] = Some(row);
        }
        // One row for each time, the first that has it.
        order.sort_by_key(|row| instant(self.stamps[*row]));
        let mut steps: Vec<usize> = Vec::new();
        let mut step_of = vec![0; order.len()];
        for row in order {
            let same = steps
                .last()
                .is_some_and(|last| instant(self.stamps[*last]) == instant(self.stamps[row]));
            if !same {
                steps.push(row);
            }
            step_of[row] = steps.len() - 1;
        }
        let (inner, width) = (self.names.len(), self.names.len() * labels.len());
        if steps.len().saturating_mul(width) > MOST_VALUES {
            return Err(SeriesError::Layout(format!(
                "is a long table of {} series at {} times, which are too many together; forecast them in parts",
                labels.len(),
                steps.len()
            )));
        }
        let times = self.times(&steps)?;
        let mut values = vec![f64::NAN; steps.len() * width];
        for (row, step) in step_of.iter().enumerate() {
            let start = step * width + series[&id(row)] * inner;
            values[start..start + inner]
                .copy_from_slice(&self.values[row * inner..(row + 1) * inner]);
        }
        let names = labels.iter().flat_map(|label| {
            self.names.iter().map(move |name| match inner {
                1 => label.clone(),
                _ => format!("{label}/{name}"),
            })
        });
        Ok(Table {
            names: names.collect(),
            times: Some(times),
            values,
        })
    }

    /// The timestamps of rows in this order.
    fn times(&self, order: &[usize]) -> Result<Times, SeriesError> {
        let name = self.sheet.names[self.column].clone();
        let cell = |row: &usize| self.sheet.rows[*row].cells[self.column].to_owned();
        let texts: Vec<String> = order.iter().map(cell).collect();
        let stamps: Vec<Stamp> = order.iter().map(|row| self.stamps[*row]).collect();
        let frequency = self.options.frequency.as_deref();
        let style = texts.last().and_then(|text| self.format.read_styled(text));
        let Some((_, style)) = style.filter(|_| frequency != Some("rows") && order.len() > 1)
        else {
            // A single row has no step, and is too few for any forecast.
            return Ok(Times {
                name,
                texts,
                axis: None,
            });
        };
        let axis = Axis::new(&stamps, style, frequency, self.zone.as_ref());
        let axis = axis.map_err(|fault| self.fault(fault, order))?;
        Ok(Times {
            name,
            texts,
            axis: Some(axis),
        })
    }

    fn fault(&self, fault: Fault, order: &[usize]) -> SeriesError {
        let given = self.options.frequency.as_deref().unwrap_or("");
        let wrong =
            |row: usize, reason: &str| self.sheet.wrong_time(self.column, order[row], reason);
        match fault {
            Fault::Descends(row) => self.order(order[row - 1], order[row], false, ""),
            Fault::Repeated(row) => self.order(order[row - 1], order[row], true, ""),
            Fault::Mixed(row) => wrong(
                row,
                "has an offset from UTC and others have none, or the other way; give all or none one",
            ),
            Fault::Skipped(row) => wrong(
                row,
                "is never shown by the clocks of that zone, which are changed then",
            ),
            Fault::Off(row) => wrong(
                row,
                &format!(
                    "is no step of the frequency {given}; `rows` (--frequency rows) takes each row for a step"
                ),
            ),
            Fault::Frequency => SeriesError::Option {
                name: "frequency",
                reason: format!(
                    "{given} is not rows nor a frequency of pandas such as D, B, h, 15min, W-SUN, MS, ME, QS-JAN \
                     or YE-DEC, or not that of the first timestamp, {}",
                    self.sheet.rows[order[0]].cells[self.column].to_owned()
                ),
            },
            Fault::Irregular(row) => {
                let help = match self.format {
                    Format::Number => {
                        "; seconds or milliseconds since 1970 are told by `date_format` (--date-format \
                                       seconds)"
                    }
                    _ => "",
                };
                let reason = format!(
                    "the time between them is no whole number of steps, so that there is no frequency; resample them, \
                     give the frequency (--frequency D), or take each row for a step (--frequency rows){help}"
                );
                self.two(order[row - 1], order[row], reason)
            }
        }
    }

    fn order(&self, earlier: usize, row: usize, same: bool, whose: &str) -> SeriesError {
        let help = if whose.is_empty() {
            "; if a column names the series, say which by `series` (--series)"
        } else {
            ""
        };
        let reason = if same {
            format!(
                "both are at {}{whose}; a time has one row{help}",
                self.sheet.rows[row].cells[self.column].to_owned()
            )
        } else {
            format!(
                "{} comes before {}{whose}, so that the rows do not ascend; sort them, or have them sorted by \
                 `sort` (--sort){help}",
                self.sheet.rows[earlier].cells[self.column].to_owned(),
                self.sheet.rows[row].cells[self.column].to_owned()
            )
        };
        self.two(earlier, row, reason)
    }

    fn two(&self, earlier: usize, row: usize, reason: String) -> SeriesError {
        SeriesError::Order {
            earlier: self.sheet.rows[earlier].line,
            line: self.sheet.rows[row].line,
            column: self.sheet.names[self.column].clone(),
            reason,
        }
    }
}

/// Nanoseconds that order timestamps.
fn instant(stamp: Stamp) -> i128 {
    stamp.local - stamp.offset.unwrap_or(0)
}

fn is_missing(text: &str) -> bool {
    MISSING.contains(&&text.to_lowercase()[..])
}

/// Whether a cell is neither a number nor an attempt at one.
fn is_word(text: &str) -> bool {
    !is_missing(text) && !is_numeric(text) && text.chars().any(char::is_alphabetic)
}

/// The marks that stand before a fraction or between thousands.
const MARKS: [char; 8] = [',', '.', ' ', '\'', '\u{2019}', '_', '\u{a0}', '\u{202f}'];

/// Whether a text is a number, however its digits are grouped.
fn is_numeric(text: &str) -> bool {
    let bare: String = text
        .replace('\u{2212}', "-")
        .chars()
        .filter(|c| !MARKS.contains(c))
        .collect();
    bare.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Whether the comma of a number may stand between thousands.
fn may_group(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let Some((whole, fraction)) = digits.split_once(',') else {
        return false;
    };
    (1..=3).contains(&whole.len()) && whole != "0" && fraction.len() == 3
}

/// A finite number, or NaN for the texts that stand for a missing value.
fn number(text: &str, decimal: char) -> Result<f64, &'static str> {
    if is_missing(text) {
        return Ok(f64::NAN);
    }
    let digits = text.replace('\u{2212}', "-");
    let pointed = match decimal {
        ',' if !digits.contains('.') => digits.replacen(',', ".", 1),
        ',' if digits.contains(',') => return Err(GROUPED),
        ',' => return Err("has a point where others have a comma; give every number the same"),
        _ => digits.clone(),
    };
    if let Some(value) = pointed.parse().ok().filter(|value: &f64| value.is_finite()) {
        return Ok(value);
    }
    let marks = digits.chars().filter(|c| MARKS.contains(c)).count();
    if marks == 0 || !is_numeric(text) {
        return Err(NOT_A_NUMBER);
    }
    let commas = digits.matches(',').count();
    if commas == 1 && marks == 1 {
        return Err(
            "has a comma; if it stands before the fraction, say so by `decimal` (--decimal ,), and if it \
                    stands between thousands, leave it out",
        );
    }
    // Between marks are three digits, and after the last a fraction.
    let groups: Vec<&str> = digits.split(MARKS).collect();
    let between = &groups[1..groups.len() - 1];
    let grouped = match between {
        [] => groups[1].len() == 3,
        between => between.iter().all(|group| group.len() == 3),
    };
    Err(if grouped { GROUPED } else { NOT_A_NUMBER })
}

const GROUPED: &str = "has separators between thousands; leave them out";

/// The delimiter that the first lines have as many of, or else the one that the first has most of.
fn guess_delimiter(text: &str) -> u8 {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(20)
        .collect();
    let count = |line: &str, delimiter| {
        let mut quoted = false;
        let bytes = line.bytes().filter(|byte| {
            quoted ^= *byte == b'"';
            *byte == delimiter && !quoted
        });
        bytes.count()
    };
    let first = lines.first().copied().unwrap_or("");
    // A comma may be within numbers, the others not.
    let known = [b';', b'\t', b'|', b','];
    let agreed = known.into_iter().find(|delimiter| {
        let expected = count(first, *delimiter);
        expected > 0 && lines.iter().all(|line| count(line, *delimiter) == expected)
    });
    let most = || {
        known
            .into_iter()
            .rev()
            .max_by_key(|delimiter| count(first, *delimiter))
    };
    agreed
        .or_else(most)
        .filter(|delimiter| count(first, *delimiter) > 0)
        .unwrap_or(b',')
}

/// The text of a file.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, SeriesError> {
    for (start, found) in [
        (
            &b"PK\x03\x04"[..],
            "a ZIP archive, or a workbook of a spreadsheet program",
        ),
        (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel"),
        (b"\x1f\x8b", "compressed by gzip"),
        (b"PAR1", "a Parquet file"),
    ] {
        if bytes.starts_with(start) {
            return Err(SeriesError::NotText { found });
        }
    }
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let text = String::from_utf16(&units.iter().map(|pair| unit(*pair)).collect::<Vec<u16>>());
        text.ok()
            .filter(|_| rest.is_empty())
            .map(Cow::Owned)
            .ok_or(SeriesError::NotText {
                found: "damaged UTF-16",
            })
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => return wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return wide(rest, u16::from_be_bytes),
        // Without a mark, the first character is of ASCII.
        [first, 0, ..] if *first != 0 => return wide(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => return wide(bytes, u16::from_be_bytes),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes)
        .map(Cow::Borrowed)
        .map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            SeriesError::Encoding {
                line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::{Missing, SeriesError, Table, TableOptions};

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
        // A line without a value is one that is missing.
        let one = parse("a\n1\n\n3\n\n").unwrap();
        assert_eq!((one.len(), one.row(2)), (3, &[3.0][..]));
        assert!(one.row(1)[0].is_nan());
    }

    #[test]
    fn windows_are_filled_from_before_them_too() {
        let table =
            parse("date,a,b\n2020-01-01,1,2\n2020-01-05,5,\n2020-01-06,6,7\n2020-01-07,7,8\n")
                .unwrap();
        let window = table.window(5, Missing::Interpolate);
        assert_eq!(window.missing, [2, 3]);
        let expected = [3.0, 4.0, 4.0, 5.0, 5.0, 6.0, 6.0, 7.0, 7.0, 8.0];
        assert_eq!(window.values, expected);
        let last = table.window(5, Missing::Last).values;
        assert_eq!(last[..6], [1.0, 2.0, 1.0, 2.0, 5.0, 2.0]);
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
    fn calendars_are_gone_on_in() {
        for (rows, frequency, next) in [
            (
                "2024-01-04 2024-01-05 2024-01-08 2024-01-09 2024-01-12",
                "B",
                "2024-01-15",
            ),
            ("2023-11-30 2023-12-31 2024-01-31", "ME", "2024-02-29"),
            ("1949-11 1949-12 1950-01", "MS", "1950-02"),
            ("20231229 20231230 20231231", "D", "20240101"),
            ("202311 202312 202401", "MS", "202402"),
            ("2000Q3 2000Q4 2001Q1", "QS-JAN", "2001Q2"),
            ("2000-Q3 2000-Q4 2001-Q1", "QS-JAN", "2001-Q2"),
            ("30.12.2023 31.12.2023 01.01.2024", "D", "02.01.2024"),
            ("12/30/2023 12/31/2023 01/01/2024", "D", "01/02/2024"),
            ("2020-W52 2020-W53 2021-W01", "W-MON", "2021-W02"),
            ("1949 1950 1951", "1", "1952"),
            ("1704067200 1704070800 1704074400", "3600", "1704078000"),
        ] {
            let rows: Vec<String> = rows
                .split(' ')
                .map(|stamp| format!("{stamp},1\n"))
                .collect();
            let table = parse(&format!("Date,a\n{}", rows.concat())).unwrap();
            assert_eq!(table.frequency().as_deref(), Some(frequency), "{rows:?}");
            assert_eq!(table.time_after(1).as_deref(), Some(next), "{rows:?}");
        }
        let table = parse("Date;Time;a\n31/12/2023;22:00;1,5\n31/12/2023;23:00;2\n").unwrap();
        assert_eq!(
            (table.names(), table.row(0)),
            (&["a".to_owned()][..], &[1.5][..])
        );
        assert_eq!(table.time_after(1).unwrap(), "01/01/2024 00:00");
    }

    #[test]
    fn options_say_what_the_table_does_not() {
        let options = TableOptions {
            date_format: Some("%d/%m/%y".to_owned()),
            sort: true,
            ..TableOptions::default()
        };
        let table =
            Table::parse(b"when,a\n03/02/24,3\n01/02/24,1\n02/02/24,2\n", &options).unwrap();
        assert_eq!(
            (table.values(), table.time(2).unwrap()),
            (&[1.0, 2.0, 3.0][..], "03/02/24".to_owned())
        );
        assert_eq!(table.time_after(27).unwrap(), "01/03/24");
        let with = |text: &str, change: fn(&mut TableOptions)| {
            let mut options = TableOptions::default();
            change(&mut options);
            Table::parse(text.as_bytes(), &options)
        };
        let months = "t,a\n1704067200,1\n1706745600,2\n1709251200,3\n";
        assert!(parse(months).is_err());
        let table = with(months, |options| {
            options.date_format = Some("seconds".to_owned())
        })
        .unwrap();
        assert_eq!(
            (table.frequency().unwrap(), table.time_after(1).unwrap()),
            ("MS".into(), "1711929600".into())
        );
        let odd = "date,a\n2024-01-01,1\n2024-01-05,2\n2024-01-19,3\n2024-03-19,3\n";
        let table = with(odd, |options| options.frequency = Some("rows".to_owned())).unwrap();
        assert_eq!((table.last(9).len(), table.time_after(1)), (4, None));
        let table = with(odd, |options| options.frequency = Some("D".to_owned())).unwrap();
        assert_eq!(table.last(999).len(), 79);
        let error = with(odd, |options| options.frequency = Some("B".to_owned())).map(drop);
        assert!(error.is_ok(), "{error:?}");
        let berlin = "t,a\n2024-03-31 00:00,1\n2024-03-31 01:00,2\n";
        let table = with(berlin, |options| {
            options.time_zone = Some("Europe/Berlin".to_owned())
        })
        .unwrap();
        assert_eq!(table.time_after(1).unwrap(), "2024-03-31 03:00");
        let table = with("a\tb\n1,234\t2\n", |options| options.decimal = Some(',')).unwrap();
        assert_eq!(table.row(0), [1.234, 2.0]);
        for (change, says) in [
            (
                (|o| o.frequency = Some("X".to_owned())) as fn(&mut TableOptions),
                "`frequency`: X is not rows",
            ),
            (|o| o.frequency = Some("h".to_owned()), "`frequency`"),
            (
                |o| o.date_format = Some("dd".to_owned()),
                "`date_format`: \"dd\"",
            ),
            (
                |o| o.date_format = Some("%H".to_owned()),
                "no column begins with",
            ),
            (
                |o| o.time_zone = Some("Mars".to_owned()),
                "`time_zone`: \"Mars\"",
            ),
            (|o| o.decimal = Some(';'), "`decimal`: \";\""),
            (|o| o.series = vec!["z".to_owned()], "has no column `z`"),
        ] {
            let text = "date,a\n2024-01-01,1\n2024-01-02,2\n";
            match with(text, change) {
                Ok(table) => assert_eq!((says, table.last(99).len()), ("`frequency`", 25)),
                Err(error) => assert!(
                    error.to_string().contains(says),
                    "{error} does not say {says}"
                ),
            }
        }
    }

    #[test]
    fn long_tables_become_wide() {
        let text =
            "unique_id,ds,y\nb,2024-01-02,3\nb,2024-01-03,4\na,2024-01-01,1\na,2024-01-02,2\n";
        let table = parse(text).unwrap();
        assert_eq!(table.names(), ["b", "a"]);
        assert!(table.row(0)[0].is_nan() && table.row(2)[1].is_nan());
        assert_eq!(
            (table.row(1), table.time_after(1).unwrap()),
            (&[3.0, 2.0][..], "2024-01-04".to_owned())
        );
        let options = TableOptions {
            columns: Some(vec!["a".to_owned()]),
            ..TableOptions::default()
        };
        let chosen = Table::parse(text.as_bytes(), &options).unwrap();
        assert_eq!(
            (chosen.names(), chosen.row(1)),
            (&["a".to_owned()][..], &[2.0][..])
        );
        assert_eq!(table.split()[1].row(1), chosen.row(1));
        let text = "2024-01-01,x,1\n2024-01-01,y,2\n2024-01-02,x,3\n2024-01-02,y,4\n";
        let table = parse(text).unwrap();
        assert_eq!(
            (table.names(), table.values()),
            (
                &["x".to_owned(), "y".to_owned()][..],
                &[1.0, 2.0, 3.0, 4.0][..]
            )
        );
        let text = "day,shop,item,sold,price\n2024-01-01,1,7,5,2\n2024-01-02,1,7,6,2\n2024-01-01,2,7,8,3\n";
        let options = TableOptions {
            series: vec!["shop".to_owned(), "item".to_owned()],
            ..TableOptions::default()
        };
        let table = Table::parse(text.as_bytes(), &options).unwrap();
        assert_eq!(
            table.names(),
            ["1/7/sold", "1/7/price", "2/7/sold", "2/7/price"]
        );
        assert!(table.row(1)[3].is_nan());
        let error = parse(text).unwrap_err().to_string();
        assert!(
            error.contains("lines 3 and 4") && error.contains("--sort"),
            "{error}"
        );
        let error = parse("id,ds,y\na,2024-01-01,1\na,2024-01-01,2\nb,2024-01-01,2\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("lines 2 and 3") && error.contains("series a"),
            "{error}"
        );
    }

    #[test]
    fn numbers_and_encodings_of_other_places_are_read() {
        // pandas writes its index.
        let index = parse(",ds,a\n0,2024-01-01,1\n1,2024-01-02,2\n").unwrap();
        assert_eq!(
            (index.names(), index.time_name()),
            (&["a".to_owned()][..], Some("ds"))
        );
        let table = parse("Datum;a;b\n01.02.2024;1,5;-0,25\n02.02.2024;1;\n").unwrap();
        assert_eq!(table.row(0), [1.5, -0.25]);
        assert!(table.row(1)[1].is_nan());
        assert_eq!(
            parse("a;b\n100,173;104,314\n").unwrap().row(0),
            [100.173, 104.314]
        );
        assert_eq!(
            parse("a\tb\n1,5\t2\n1,234\t2\n").unwrap().row(1),
            [1.234, 2.0]
        );
        assert_eq!(parse("sep=;\na;b\n1;2\n").unwrap().names(), ["a", "b"]);
        assert_eq!(parse("a;b;\n1;2;\n").unwrap().names(), ["a", "b"]);
        assert_eq!(
            parse("a\n1700000000.25\n").unwrap().row(0),
            [1_700_000_000.25]
        );
        let text = "d;\u{e4}\n1;2\n";
        for bytes in [
            text.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
            [0xfeff]
                .into_iter()
                .chain(text.encode_utf16())
                .flat_map(u16::to_be_bytes)
                .collect(),
            [0xfeff]
                .into_iter()
                .chain(text.encode_utf16())
                .flat_map(u16::to_le_bytes)
                .collect(),
        ] {
            let table = Table::parse(&bytes, &TableOptions::default()).unwrap();
            assert_eq!(
                (table.names(), table.row(0)),
                (&["d".to_owned(), "\u{e4}".to_owned()][..], &[1.0, 2.0][..])
            );
        }
        let spellings = "NaN,NA,null,-,,#N/A,n/a,None,?,.,<NA>,-nan";
        let names = "a,b,c,d,e,f,g,h,i,j,k,l";
        let table = parse(&format!("{names}\n{spellings}\n")).unwrap();
        assert!(table.row(0).iter().all(|value| value.is_nan()));
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
            (
                "date,b\n2020-01-02,2\n2020-01-01,4\n",
                "lines 2 and 3, column `date`: 2020-01-02 comes before",
            ),
            (
                "date,b\n2020-01-01,2\n2020-01-02,2\n2020-01-02,4\n",
                "lines 3 and 4, column `date`: both are at",
            ),
            (
                "date,b\n01/02/2024,2\n02/02/2024,2\n",
                "line 2, column `date`: \"01/02/2024\" may have its day",
            ),
            ("date,b\n2024-01-01,2\n,2\n", "line 3, column `date`: \"\""),
            (
                "date,b\n2024-01-01 00:00Z,2\n2024-01-01 01:00,2\n",
                "line 3, column `date`",
            ),
            (
                "date,b\n2024-01-01,2\n2024-01-05,2\n2024-01-06 02:00,2\n2024-03-09 07:11,2\n",
                "--frequency",
            ),
            (
                "a,b\n\"1,234\",2\n",
                "has a comma; if it stands before the fraction",
            ),
            ("a,b\n\"1,234.5\",2\n", "has separators between thousands"),
            ("a;b\n1.234,5;2\n", "has separators between thousands"),
            (
                "a;b\n1,5;2\n1.234;3\n",
                "has a point where others have a comma",
            ),
            ("a;b\n1 234;2\n", "has separators between thousands"),
            (
                ",2024-01-01,2024-01-02,2024-01-03\nx,1,2,3\n",
                "from left to right",
            ),
            (
                "time,a\n0,1\n86400,1\n2678400,1\n5097600,1\n",
                "--date-format",
            ),
            (
                "name,2024-01-01,2024-01-02,2024-01-03\nx,1,2,3\n",
                "from left to right",
            ),
            ("PK\u{3}\u{4}x", "a workbook of a spreadsheet program"),
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
        let error = Table::parse(b"a,b\n1,\xff\n", &TableOptions::default()).unwrap_err();
        assert!(
            error.to_string().contains("line 2: is not UTF-8"),
            "{error}"
        );
    }
}
