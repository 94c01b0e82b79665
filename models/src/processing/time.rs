//! Timestamps as they stand in tables: read, and written in the same form.

use std::fmt::Write;

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// Nanoseconds of a second.
pub(super) const SECOND: i128 = 1_000_000_000;
/// Nanoseconds of a day.
pub(super) const DAY: i128 = 86_400 * SECOND;

/// Forms whose months have names, in which days and months cannot be confused.
const NAMED_MONTHS: &[&str] = &[
    "%d-%b-%Y",
    "%d %b %Y",
    "%d-%B-%Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %d %Y",
    "%B %d %Y",
    "%Y-%b-%d",
    "%Y %b %d",
    "%b %Y",
    "%B %Y",
    "%b-%Y",
    "%B-%Y",
    "%Y-%b",
    "%Y %b",
    "%Y %B",
];

/// Times of day that may follow a form of [`NAMED_MONTHS`].
const TIMES: &[&str] = &["", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p"];

/// A timestamp that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since 1970 by the clock that it was read from, or the whole number that it is.
    pub local: i128,
    /// The nanoseconds by which that clock is ahead of UTC, if the timestamp says.
    pub offset: Option<i128>,
}

/// How the timestamps of a column are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Whole numbers, of days, seconds or anything.
    Number,
    /// Whole or broken numbers of so many nanoseconds since 1970, in UTC.
    Unix(i128),
    /// Year, month and day, with or without separators, perhaps with a time.
    YearFirst,
    /// Day, month and year.
    DayFirst,
    /// Month, day and year.
    MonthFirst,
    /// A year and a month.
    Month,
    /// A year and a quarter.
    Quarter,
    /// A year and a week of ISO 8601, perhaps with a weekday.
    Week,
    /// By the directives of `strftime`.
    Pattern(String),
}

/// What the texts of a column are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guess {
    /// Timestamps in this form.
    Format(Format),
    /// Dates whose day and month cannot be told apart.
    Ambiguous,
    /// No timestamps.
    Unknown,
}

impl Format {
    /// A form by name: `seconds`, `milliseconds`, `microseconds` and `nanoseconds` since 1970, or the
    /// directives of `strftime`, such as `%d/%m/%Y %H:%M`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "seconds" | "s" | "%s" => Format::Unix(SECOND),
            "milliseconds" | "ms" => Format::Unix(SECOND / 1_000),
            "microseconds" | "us" => Format::Unix(SECOND / 1_000_000),
            "nanoseconds" | "ns" => Format::Unix(1),
            pattern if pattern.contains('%') => Format::Pattern(pattern.to_owned()),
            _ => return None,
        })
    }

    /// The form of a column's texts: all of them are read where only all of them tell, else the first.
    ///
    /// `named` says that the column is called as timestamps are: without, six digits are no month.
    pub fn guess(texts: &[&str], named: bool) -> Guess {
        let Some(first) = texts.first() else {
            return Guess::Unknown;
        };
        let all = |format: &Format| texts.iter().all(|text| format.read(text).is_some());
        if first.parse::<i64>().is_ok() {
            if all(&Format::YearFirst) {
                return Guess::Format(Format::YearFirst);
            }
            let months = named && texts.len() > 1 && texts.iter().all(|text| text.len() == 6);
            return Guess::Format(if months && all(&Format::Month) {
                Format::Month
            } else {
                Format::Number
            });
        }
        if first.parse::<f64>().is_ok() {
            return Guess::Unknown;
        }
        for format in [
            Format::YearFirst,
            Format::Month,
            Format::Quarter,
            Format::Week,
        ] {
            if format.read(first).is_some() {
                return Guess::Format(format);
            }
        }
        let (day, month) = (Format::DayFirst, Format::MonthFirst);
        if day.read(first).is_some() || month.read(first).is_some() {
            // With points the day is always first.
            if first.contains('.') && !first.contains('/') && all(&day) {
                return Guess::Format(day);
            }
            return match (all(&day), all(&month)) {
                (true, true) => Guess::Ambiguous,
                (_, false) => Guess::Format(day),
                (false, true) => Guess::Format(month),
            };
        }
        if !first.is_ascii() || !first.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return Guess::Unknown;
        }
        // May is short and long at once, so that one text is not enough.
        let patterns = || {
            NAMED_MONTHS
                .iter()
                .flat_map(|date| TIMES.iter().map(move |time| format!("{date}{time}")))
                .map(Format::Pattern)
                .filter(|pattern| pattern.read(first).is_some())
        };
        match patterns().find(all).or_else(|| patterns().next()) {
            Some(pattern) => Guess::Format(pattern),
            None => Guess::Unknown,
        }
    }

    /// Whether a text is a date by itself, and not a number.
    pub fn is_date(text: &str) -> bool {
        match Self::guess(&[text], false) {
            Guess::Format(Format::Number) | Guess::Unknown => false,
            Guess::Format(_) | Guess::Ambiguous => text.parse::<f64>().is_err(),
        }
    }

    /// Reads a timestamp.
    pub fn read(&self, text: &str) -> Option<Stamp> {
        self.read_styled(text).map(|(stamp, _)| stamp)
    }

    /// Reads a timestamp, and how it is written.
    pub fn read_styled(&self, text: &str) -> Option<(Stamp, Style)> {
        let text = text.trim();
        let plain = |local, style| {
            (
                Stamp {
                    local,
                    offset: None,
                },
                style,
            )
        };
        match self {
            Format::Number => Some(plain(text.parse::<i64>().ok()?.into(), Style::Number)),
            Format::Unix(unit) => {
                let digits = text
                    .split_once('.')
                    .map_or(0, |(_, fraction)| fraction.len());
                let local = unix(text, *unit)?;
                let stamp = Stamp {
                    local,
                    offset: Some(0),
                };
                Some((stamp, Style::Unix(*unit, digits)))
            }
            Format::Pattern(pattern) => read_pattern(pattern, text),
            Format::Month => {
                let (year, month, style) = read_month(text)?;
                Some(plain(days(year, month, 1) * DAY, style))
            }
            Format::Quarter => {
                let (year, quarter, style) = read_quarter(text)?;
                Some(plain(days(year, 3 * quarter - 2, 1) * DAY, style))
            }
            Format::Week => {
                let (day, style) = read_week(text)?;
                Some(plain(day * DAY, style))
            }
            Format::YearFirst | Format::DayFirst | Format::MonthFirst => {
                let (day, date, rest) = self.read_date(text)?;
                if rest.is_empty() {
                    return Some(plain(day * DAY, Style::Date(date, None)));
                }
                let (time, offset, clock) = Clock::read(rest)?;
                let stamp = Stamp {
                    local: day * DAY + time,
                    offset,
                };
                Some((stamp, Style::Date(date, Some(clock))))
            }
        }
    }

    /// The day since 1970 that stands first in a text, how it is written, and what follows it.
    fn read_date<'a>(&self, text: &'a str) -> Option<(i128, DateStyle, &'a str)> {
        let [first, rest] = split_digits(text);
        let order = match self {
            Format::YearFirst => [0, 1, 2],
            Format::DayFirst => [2, 1, 0],
            _ => [1, 2, 0],
        };
        let compact = *self == Format::YearFirst && matches!(first.len(), 8 | 12 | 14);
        if compact {
            let date = first.get(..8)?;
            let day = day_of([date.get(..4)?, date.get(4..6)?, date.get(6..)?])?;
            // Longer numbers that are no dates begin as one now and then.
            if !(1_600..3_000).contains(&civil(day).0)
                || (first.len() == 8 && rest.starts_with('.'))
            {
                return None;
            }
            let style = DateStyle {
                order,
                separator: None,
                padded: true,
            };
            return Some((day, style, text.get(8..)?));
        }
        let separator = rest.chars().next().filter(|c| "-/.".contains(*c))?;
        let [second, rest] = split_digits(rest.strip_prefix(separator)?);
        let [third, rest] = split_digits(rest.strip_prefix(separator)?);
        let parts = [first, second, third];
        let part = |role: usize| parts[order.iter().position(|at| *at == role).unwrap_or(0)];
        let day = day_of([part(0), part(1), part(2)])?;
        let style = DateStyle {
            order,
            separator: Some(separator),
            padded: part(1).len() == 2 && part(2).len() == 2,
        };
        Some((day, style, rest))
    }
}

/// The days since 1970 of a year of four digits, a month and a day of one or two.
fn day_of([year, month, day]: [&str; 3]) -> Option<i128> {
    let short = |text: &str| match text.len() {
        1 | 2 => text.parse::<i128>().ok(),
        _ => None,
    };
    let year = if year.len() == 4 {
        year.parse::<i128>().ok()?
    } else {
        return None;
    };
    let (month, day) = (short(month)?, short(day)?);
    let valid = (1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day);
    valid.then(|| days(year, month, day))
}

/// The digits that a text begins with, and the rest.
fn split_digits(text: &str) -> [&str; 2] {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    [digits, rest]
}

fn unix(text: &str, unit: i128) -> Option<i128> {
    let negative = text.starts_with('-');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut local = i128::from(whole.parse::<i64>().ok()?) * unit;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        let part = i128::from(digit - b'0') * place;
        local += if negative { -part } else { part };
    }
    Some(local)
}

/// Year and month: `2016-07`, `2016/7`, `201607`, `2016M07`, `07/2016`.
fn read_month(text: &str) -> Option<(i128, i128, Style)> {
    let [first, rest] = split_digits(text);
    let (year, month, style) = if rest.is_empty() && first.len() == 6 {
        let style = Style::Month {
            year_first: true,
            separator: String::new(),
            padded: true,
        };
        (&first[..4], &first[4..], style)
    } else {
        let separator = rest.chars().next().filter(|c| "-/.M".contains(*c))?;
        let [second, rest] = split_digits(rest.strip_prefix(separator)?);
        if !rest.is_empty() {
            return None;
        }
        let year_first = first.len() == 4;
        let (year, month) = if year_first {
            (first, second)
        } else {
            (second, first)
        };
        let style = Style::Month {
            year_first,
            separator: separator.to_string(),
            padded: month.len() == 2,
        };
        (year, month, style)
    };
    day_of([year, month, "1"])?;
    let year: i128 = year.parse().ok()?;
    // Six digits are more often something else.
    let plausible = (1_600..2_300).contains(&year) || !rest.is_empty();
    plausible.then_some((year, month.parse().ok()?, style))
}

/// Year and quarter: `2000Q1`, `2000-Q1`, `2000 q1`, `Q1 2000`, `1Q2000`.
fn read_quarter(text: &str) -> Option<(i128, i128, Style)> {
    let at = text.find(['Q', 'q'])?;
    let (before, letter) = (&text[..at], &text[at..=at]);
    let after = &text[at + 1..];
    let is_separator = |text: &str| matches!(text, "" | "-" | " " | "/" | "_");
    let (year, quarter, style) = if before.is_empty() {
        let (quarter, rest) = after.split_at_checked(1)?;
        let year = rest.trim_start_matches(['-', ' ', '/', '_']);
        let separator = &rest[..rest.len() - year.len()];
        let parts = ["".to_owned(), letter.to_owned(), separator.to_owned()];
        (
            year,
            quarter,
            Style::Quarter {
                year_first: false,
                parts,
            },
        )
    } else if before.len() == 1 {
        let year = after.trim_start_matches(['-', ' ', '/', '_']);
        let separator = format!("{letter}{}", &after[..after.len() - year.len()]);
        let parts = [String::new(), String::new(), separator];
        (
            year,
            before,
            Style::Quarter {
                year_first: false,
                parts,
            },
        )
    } else {
        let year = before.trim_end_matches(['-', ' ', '/', '_']);
        if !is_separator(&before[year.len()..]) {
            return None;
        }
        let parts = [
            String::new(),
            before[year.len()..].to_owned() + letter,
            String::new(),
        ];
        (
            year,
            after,
            Style::Quarter {
                year_first: true,
                parts,
            },
        )
    };
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(year, 4) || !digits(quarter, 1) {
        return None;
    }
    let quarter: i128 = quarter.parse().ok()?;
    (1..=4)
        .contains(&quarter)
        .then_some((year.parse().ok()?, quarter, style))
}

/// The day since 1970 of a week: `2016-W05`, `2016W05`, `2016-W05-1`.
fn read_week(text: &str) -> Option<(i128, Style)> {
    let [year, rest] = split_digits(text);
    let dashed = rest.starts_with('-');
    let rest = rest.strip_prefix('-').unwrap_or(rest).strip_prefix('W')?;
    let [week, rest] = split_digits(rest);
    let (week, weekday) = match (week.len(), rest) {
        (2, "") => (week, None),
        (3, "") if !dashed => (&week[..2], Some(&week[2..])),
        (2, rest) if dashed && rest.len() == 2 => (week, Some(rest.strip_prefix('-')?)),
        _ => return None,
    };
    if year.len() != 4 {
        return None;
    }
    let (year, week): (i128, i128) = (year.parse().ok()?, week.parse().ok()?);
    let day: i128 = match weekday {
        Some(day) => day.parse().ok().filter(|day| (1..=7).contains(day))?,
        None => 1,
    };
    let monday = first_monday(year) + 7 * (week - 1);
    // A year's last week is the 52nd or the 53rd.
    let valid = week >= 1 && monday < first_monday(year + 1);
    let style = Style::Week {
        dashed,
        weekday: weekday.is_some(),
    };
    valid.then_some((monday + day - 1, style))
}

/// The Monday of a year's first week: the one with January 4 in it.
fn first_monday(year: i128) -> i128 {
    let fourth = days(year, 1, 4);
    fourth - weekday(fourth)
}

fn read_pattern(pattern: &str, text: &str) -> Option<(Stamp, Style)> {
    let read = BrokenDownTime::parse(pattern, text).ok()?;
    let style = Style::Pattern(pattern.to_owned());
    if let Some(instant) = read.timestamp() {
        let local = instant.as_nanosecond();
        return Some((
            Stamp {
                local,
                offset: Some(0),
            },
            style,
        ));
    }
    let date = match read.to_date() {
        Ok(date) => date,
        // Periods are the days that they begin with.
        Err(_) => {
            let month = read.month().unwrap_or(1);
            let whole = read.day().is_none() && read.day_of_year().is_none();
            if let (Some(year), Some(week)) = (read.iso_week_year(), read.iso_week()) {
                jiff::civil::ISOWeekDate::new(year, week, jiff::civil::Weekday::Monday)
                    .ok()?
                    .date()
            } else if whole {
                jiff::civil::Date::new(read.year()?, month, 1).ok()?
            } else {
                return None;
            }
        }
    };
    // Spaces may be left out, and `Jan 2024` is no day of the year 24.
    if date.year() < 1_000 {
        return None;
    }
    let time = match read.hour() {
        Some(_) => read.to_time().ok()?,
        None => jiff::civil::Time::midnight(),
    };
    let offset = read
        .offset()
        .map(|offset| i128::from(offset.seconds()) * SECOND);
    let local = from_civil(date.to_datetime(time));
    Some((Stamp { local, offset }, style))
}

/// The form in which a timestamp is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Style {
    /// A whole number.
    Number,
    /// A number of so many nanoseconds, with so many digits after the point.
    Unix(i128, usize),
    /// A date, perhaps with a time.
    Date(DateStyle, Option<Clock>),
    /// A month.
    Month {
        /// Whether the year stands first.
        year_first: bool,
        /// What stands between year and month.
        separator: String,
        /// Whether months have two digits.
        padded: bool,
    },
    /// A quarter.
    Quarter {
        /// Whether the year stands first.
        year_first: bool,
        /// Nothing, what stands before the later of the two, or between them.
        parts: [String; 3],
    },
    /// A week.
    Week {
        /// Whether dashes stand between the parts.
        dashed: bool,
        /// Whether the weekday is given.
        weekday: bool,
    },
    /// By directives.
    Pattern(String),
}

/// The form of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateStyle {
    /// Which of year, month and day (0, 1 and 2) stands where.
    order: [usize; 3],
    separator: Option<char>,
    /// Whether days and months have two digits.
    padded: bool,
}

/// The form of a time of day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// What stands between date and time: a space, `T`, or nothing.
    separator: Option<char>,
    /// What stands between hours, minutes and seconds.
    colons: bool,
    /// Whether hours have two digits.
    padded: bool,
    minutes: bool,
    seconds: bool,
    /// How many digits of a second's fraction, at most nine.
    fraction: usize,
    /// What stands before noon and after it, where hours go to twelve.
    halves: Option<[String; 2]>,
    /// `Z`, an offset from UTC or nothing, kept as it is.
    zone: String,
    /// The offset of `zone`.
    offset: Option<i128>,
}

impl Clock {
    /// Reads what follows a date: the nanoseconds since midnight, and the offset from UTC.
    fn read(text: &str) -> Option<(i128, Option<i128>, Self)> {
        let separator = text.chars().next().filter(|c| " Tt".contains(*c));
        let text = text.strip_prefix([' ', 'T', 't']).unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && !":.,".contains(c));
        let (time, zone) = text.split_at(end.unwrap_or(text.len()));
        let (halves, afternoon, zone) = match read_half(zone) {
            Some((halves, afternoon)) => (Some(halves), afternoon, ""),
            None => (None, false, zone),
        };
        let offset = read_offset(zone.trim_start())?;
        let (time, fraction) = match time.split_once(['.', ',']) {
            Some((time, fraction)) => (time, Some(fraction)),
            None => (time, None),
        };
        let colons = time.contains(':');
        let mut parts: Vec<&str> = if colons {
            time.split(':').collect()
        } else {
            // Without a separator the date was compact, too.
            let pairs = time.as_bytes().chunks(2).count();
            (0..pairs)
                .filter_map(|at| time.get(2 * at..(2 * at + 2).min(time.len())))
                .collect()
        };
        let padded = parts.first()?.len() == 2;
        if separator.is_none() && (colons || parts.len() < 2) {
            return None;
        }
        if colons && parts[0].len() == 1 {
            parts[0] = text.get(..1)?;
        } else if !padded {
            return None;
        }
        if parts.len() > 3 || parts.iter().skip(1).any(|part| part.len() != 2) {
            return None;
        }
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(&parts) {
            *number = part.parse::<u8>().ok().map(i128::from)?;
        }
        let [mut hours, minutes, seconds] = numbers;
        if halves.is_some() {
            if !(1..=12).contains(&hours) {
                return None;
            }
            hours = hours % 12 + if afternoon { 12 } else { 0 };
        }
        if hours > 23 || minutes > 59 || seconds > 59 {
            return None;
        }
        let fraction = fraction.unwrap_or("");
        let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
        if fraction.len() > 9 || !digits || (!fraction.is_empty() && parts.len() < 3) {
            return None;
        }
        let nanoseconds: i128 = format!("{fraction:0<9}").parse().ok()?;
        let clock = Self {
            separator,
            colons,
            padded,
            minutes: parts.len() > 1,
            seconds: parts.len() > 2,
            fraction: fraction.len(),
            halves,
            zone: zone.to_owned(),
            offset,
        };
        let total = (hours * 3600 + minutes * 60 + seconds) * SECOND + nanoseconds;
        Some((total, offset, clock))
    }

    fn write(&self, out: &mut String, nanoseconds: i128, offset: Option<i128>) {
        let seconds = nanoseconds / SECOND;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let half = self
            .halves
            .as_ref()
            .map(|[before, after]| if hours < 12 { before } else { after });
        let hours = match half {
            Some(_) => (hours + 11) % 12 + 1,
            None => hours,
        };
        let colon = if self.colons { ":" } else { "" };
        out.extend(self.separator);
        let width = if self.padded { 2 } else { 1 };
        let _ = write!(out, "{hours:0width$}");
        if self.minutes {
            let _ = write!(out, "{colon}{minutes:02}");
        }
        if self.seconds {
            let _ = write!(out, "{colon}{:02}", seconds % 60);
        }
        if self.fraction > 0 {
            let digits = format!("{:09}", nanoseconds % SECOND);
            let _ = write!(out, ".{}", &digits[..self.fraction]);
        }
        out.extend(half.map(|half| &half[..]));
        match offset.filter(|_| offset != self.offset && self.offset.is_some()) {
            None => out.push_str(&self.zone),
            Some(offset) => {
                let minutes = offset.abs() / (60 * SECOND);
                let sign = if offset < 0 { '-' } else { '+' };
                let colon = if self.zone.contains(':') || !self.zone.contains(['+', '-']) {
                    ":"
                } else {
                    ""
                };
                let space = if self.zone.starts_with(' ') { " " } else { "" };
                let _ = write!(
                    out,
                    "{space}{sign}{:02}{colon}{:02}",
                    minutes / 60,
                    minutes % 60
                );
            }
        }
    }
}

/// The halves of the day as they are written, if a text is one, and whether it is the second.
fn read_half(text: &str) -> Option<([String; 2], bool)> {
    let trimmed = text.trim_start();
    let space = &text[..text.len() - trimmed.len()];
    let (before, after) = match trimmed {
        "AM" | "PM" => ("AM", "PM"),
        "am" | "pm" => ("am", "pm"),
        _ => return None,
    };
    Some((
        [format!("{space}{before}"), format!("{space}{after}")],
        trimmed == after,
    ))
}

/// The nanoseconds of `Z`, `+02:00`, `-0330`, `+02`; of nothing, nothing.
fn read_offset(text: &str) -> Option<Option<i128>> {
    if text.is_empty() {
        return Some(None);
    }
    if matches!(text, "Z" | "z" | "UTC" | "GMT") {
        return Some(Some(0));
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let rest = &text[1..];
    let rest = match rest.len() {
        5 if rest.as_bytes()[2] == b':' => rest.replacen(':', "", 1),
        2 | 4 => rest.to_owned(),
        _ => return None,
    };
    if !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = (
        rest[..2].parse::<i128>().ok()?,
        rest[2..].parse::<i128>().unwrap_or(0),
    );
    let valid = hours < 24 && minutes < 60;
    valid.then(|| Some(sign * (hours * 60 + minutes) * 60 * SECOND))
}

impl Style {
    /// Writes a timestamp; nothing where the calendar ends.
    pub fn write(&self, stamp: Stamp) -> Option<String> {
        let day = stamp.local.div_euclid(DAY);
        let time = stamp.local.rem_euclid(DAY);
        let (year, month, date) = civil(day);
        let mut out = String::new();
        match self {
            Style::Number => return Some(stamp.local.to_string()),
            Style::Unix(unit, digits) => {
                let instant = stamp.local - stamp.offset.unwrap_or(0);
                let sign = if instant < 0 { "-" } else { "" };
                let (whole, rest) = (instant.abs() / unit, instant.abs() % unit);
                let _ = write!(out, "{sign}{whole}");
                if *digits > 0 {
                    let scale = 10_i128.checked_pow(u32::try_from(*digits).ok()?)?;
                    let fraction = rest.checked_mul(scale)? / unit;
                    let _ = write!(out, ".{fraction:0digits$}");
                }
            }
            Style::Date(style, clock) => {
                let width = if style.padded { 2 } else { 1 };
                for (at, role) in style.order.into_iter().enumerate() {
                    if at > 0 {
                        out.extend(style.separator);
                    }
                    let _ = match role {
                        0 => write!(out, "{year:04}"),
                        1 => write!(out, "{month:0width$}"),
                        _ => write!(out, "{date:0width$}"),
                    };
                }
                if let Some(clock) = clock {
                    clock.write(&mut out, time, stamp.offset);
                }
            }
            Style::Month {
                year_first,
                separator,
                padded,
            } => {
                let width = if *padded { 2 } else { 1 };
                let _ = if *year_first {
                    write!(out, "{year:04}{separator}{month:0width$}")
                } else {
                    write!(out, "{month:0width$}{separator}{year:04}")
                };
            }
            Style::Quarter { year_first, parts } => {
                let quarter = (month + 2) / 3;
                let [start, first, second] = parts;
                let _ = if *year_first {
                    write!(out, "{year:04}{first}{quarter}{second}")
                } else {
                    write!(out, "{start}{first}{quarter}{second}{year:04}")
                };
            }
            Style::Week {
                dashed,
                weekday: with_day,
            } => {
                let dash = if *dashed { "-" } else { "" };
                let thursday = day - weekday(day) + 3;
                let (year, _, _) = civil(thursday);
                let week = (day - first_monday(year)).div_euclid(7) + 1;
                let _ = write!(out, "{year:04}{dash}W{week:02}");
                if *with_day {
                    let _ = write!(out, "{dash}{}", weekday(day) + 1);
                }
            }
            Style::Pattern(pattern) => {
                let datetime = to_civil(stamp.local)?;
                let offset = i32::try_from(stamp.offset.unwrap_or(0) / SECOND).ok()?;
                let zone = TimeZone::fixed(Offset::from_seconds(offset).ok()?);
                let zoned = zone.to_zoned_datetime(datetime).ok()?;
                return jiff::fmt::strtime::format(pattern, &zoned).ok();
            }
        }
        Some(out)
    }
}

/// The nanoseconds by which a zone's clock is ahead of UTC at an instant.
pub(super) fn offset_at(zone: &TimeZone, utc: i128) -> Option<i128> {
    let instant = jiff::Timestamp::from_nanosecond(utc).ok()?;
    Some(i128::from(zone.to_offset(instant).seconds()) * SECOND)
}

/// The offsets that a zone's clock may have when it shows a time: none where it leaves it out, two, the
/// earlier instant's first, where it shows it twice.
pub(super) fn offsets_of(zone: &TimeZone, local: i128) -> Vec<i128> {
    let Some(datetime) = to_civil(local) else {
        return Vec::new();
    };
    let seconds = |offset: Offset| i128::from(offset.seconds()) * SECOND;
    match zone.to_ambiguous_timestamp(datetime).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![seconds(offset)],
        AmbiguousOffset::Gap { .. } => Vec::new(),
        AmbiguousOffset::Fold { before, after } => vec![seconds(before), seconds(after)],
    }
}

fn to_civil(local: i128) -> Option<DateTime> {
    let instant = jiff::Timestamp::from_nanosecond(local).ok()?;
    Some(TimeZone::UTC.to_datetime(instant))
}

fn from_civil(datetime: DateTime) -> i128 {
    let day = days(
        datetime.year().into(),
        datetime.month().into(),
        datetime.day().into(),
    );
    let seconds = (i128::from(datetime.hour()) * 60 + i128::from(datetime.minute())) * 60
        + i128::from(datetime.second());
    day * DAY + seconds * SECOND + i128::from(datetime.subsec_nanosecond())
}

/// The weekday of a day since 1970, from Monday, 0, on.
pub(super) fn weekday(day: i128) -> i128 {
    // 1970 began on a Thursday.
    (day + 3).rem_euclid(7)
}

pub(super) fn month_length(year: i128, month: i128) -> i128 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days since 1970-01-01 in the Gregorian calendar.
///
/// Years begin in March here, so that a leap day is a year's last; 400 of them have 146,097 days.
pub(super) fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// Year, month and day of the days since 1970-01-01: [`days`] backwards.
pub(super) fn civil(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

#[cfg(test)]
mod tests {
    use super::{DAY, Format, Guess, SECOND, Stamp, civil, days};

    /// A column's form, and what its last text is a step later.
    fn next(texts: &[&str], later: i128) -> String {
        let Guess::Format(format) = Format::guess(texts, true) else {
            return format!("{:?}", Format::guess(texts, true));
        };
        let (stamp, style) = format.read_styled(texts[texts.len() - 1]).unwrap();
        assert_eq!(style.write(stamp).unwrap(), texts[texts.len() - 1]);
        let local = stamp.local + later;
        style.write(Stamp { local, ..stamp }).unwrap()
    }

    #[test]
    fn what_is_read_is_written_alike() {
        for (text, later, expected) in [
            ("2024-02-28", DAY, "2024-02-29"),
            ("2024/2/9", DAY, "2024/2/10"),
            ("2024.12.31", DAY, "2025.01.01"),
            ("20241231", DAY, "20250101"),
            ("20241231T2300", 3_600 * SECOND, "20250101T0000"),
            ("20241231 23:00:05", 3_600 * SECOND, "20250101 00:00:05"),
            ("20241231235959", SECOND, "20250101000000"),
            ("2024-01-01 9:30", 3_600 * SECOND, "2024-01-01 10:30"),
            ("2024-01-01T09", 3_600 * SECOND, "2024-01-01T10"),
            (
                "2024-01-01T00:00:00.250Z",
                SECOND / 4,
                "2024-01-01T00:00:00.500Z",
            ),
            ("2024-01-01 00:00:00 UTC", SECOND, "2024-01-01 00:00:01 UTC"),
            (
                "2024-01-01 00:00:00-0330",
                SECOND,
                "2024-01-01 00:00:01-0330",
            ),
            ("31.01.2024 12:00", DAY, "01.02.2024 12:00"),
            ("31/12/2024", DAY, "01/01/2025"),
            ("12/31/2024 1:05", DAY, "01/01/2025 1:05"),
            ("12/31/2024 11:30 AM", DAY / 24, "12/31/2024 12:30 PM"),
            ("12/31/2024 11:30:00pm", DAY / 24, "01/01/2025 12:30:00am"),
            ("2016-07", 31 * DAY, "2016-08"),
            ("12/2016", 31 * DAY, "01/2017"),
            ("2016M07", 31 * DAY, "2016M08"),
            ("2000Q4", 92 * DAY, "2001Q1"),
            ("2000-Q1", 91 * DAY, "2000-Q2"),
            ("Q2 2000", 91 * DAY, "Q3 2000"),
            ("3Q2000", 92 * DAY, "4Q2000"),
            ("2020-W53", 7 * DAY, "2021-W01"),
            ("2021W527", DAY, "2022W011"),
            ("2009-W53-7", DAY, "2010-W01-1"),
            ("31-Jan-2024", DAY, "01-Feb-2024"),
            ("Jan 2024", 31 * DAY, "Feb 2024"),
            ("March 31, 2024", DAY, "April 01, 2024"),
            ("1949", 1, "1950"),
            ("-3", 1, "-2"),
        ] {
            assert_eq!(next(&[text], later), expected, "{text}");
        }
        assert_eq!(next(&["202312", "202401"], 31 * DAY), "202402");
        assert_eq!(next(&["202312", "202413"], 1), "202414");
        assert_eq!(next(&["May 2024", "June 2024"], 30 * DAY), "July 2024");
        assert_eq!(next(&["20240131", "20240132"], 1), "20240133");
    }

    #[test]
    fn days_and_months_are_not_confused() {
        assert_eq!(
            Format::guess(&["01/02/2024", "02/02/2024"], true),
            Guess::Ambiguous
        );
        let day = Guess::Format(Format::DayFirst);
        assert_eq!(Format::guess(&["01/02/2024", "13/02/2024"], true), day);
        assert_eq!(Format::guess(&["01.02.2024", "02.02.2024"], true), day);
        let month = Guess::Format(Format::MonthFirst);
        assert_eq!(Format::guess(&["01-02-2024", "01-13-2024"], true), month);
        let given = Format::parse("%m/%d/%y").unwrap();
        let stamp = given.read("01/02/24").unwrap();
        assert_eq!(stamp.local, days(2024, 1, 2) * DAY);
        assert!(given.read("13/02/24").is_none());
        assert!(Format::parse("dd/mm/yyyy").is_none());
    }

    #[test]
    fn numbers_since_1970_are_told() {
        let format = Format::parse("milliseconds").unwrap();
        let (stamp, style) = format.read_styled("1704067200000").unwrap();
        assert_eq!(stamp.local, days(2024, 1, 1) * DAY);
        assert_eq!(style.write(stamp).unwrap(), "1704067200000");
        let (stamp, style) = Format::parse("seconds")
            .unwrap()
            .read_styled("1704067200.50")
            .unwrap();
        assert_eq!(style.write(stamp).unwrap(), "1704067200.50");
    }

    #[test]
    fn what_is_no_timestamp_is_none() {
        for text in [
            "",
            "x",
            "2016-13-01",
            "2016-02-30",
            "2016-07-01 24:00",
            "2016-07-01x",
            "2016-07/01",
            "16-07-01",
            "1.5",
            "ä016-07-01",
            "2016-07-01 €",
            "2016-07-01 1:0",
            "2016-07-01 00:00:60",
            "2000Q5",
            "2016-W54",
            "2021-W53",
            "2016-13",
            "13/13/2024",
            "Jan",
            "Foo 2024",
            "2016-07-01 00:00+25:00",
            "12:00",
            "€Q1",
            "Q€",
            "2016-00",
            "2016-07-01 1",
            "2016-07-01T",
            "1e5",
            "nan",
            "2016-07-01 00:00:00.1234567890",
        ] {
            assert!(
                !Format::is_date(text),
                "{text}: {:?}",
                Format::guess(&[text], true)
            );
        }
    }

    #[test]
    fn the_calendar_goes_both_ways() {
        for day in (-1_000_000..1_000_000).step_by(97) {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
    }
}
