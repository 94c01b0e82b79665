//! Timestamps as they stand in tables: read, stepped through and written in the same form.

use std::collections::HashMap;

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// The form of a timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// A whole number, of days, seconds or anything.
    Number,
    /// A date, perhaps with a time.
    Date {
        /// Between year, month and day.
        separator: char,
        time: Option<Clock>,
    },
}

/// The form of a time of day.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clock {
    /// Between date and time: a space or `T`.
    separator: char,
    seconds: bool,
    /// How many digits of a second's fraction, at most nine.
    fraction: usize,
    /// `Z` or an offset from UTC, kept as it is.
    zone: String,
}

/// A timestamp: nanoseconds since 1970, or the whole number that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    instant: i128,
    form: Form,
}

/// What lies between two neighbouring timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many nanoseconds, or units of a whole number.
    Fixed(i128),
    /// So many months, on the given day or the month's last.
    Months {
        /// How many.
        count: i128,
        /// The day of the month.
        day: i128,
    },
}

impl Timestamp {
    /// Reads `2016-07-01`, `2016-07-01 00:00`, `2016/07/01T00:00:00.5Z`, `2016-07` or a whole number.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(instant) = text.parse::<i64>() {
            return Some(Self {
                instant: instant.into(),
                form: Form::Number,
            });
        }
        let date = text.get(..10)?;
        let separator = date.chars().nth(4).filter(|c| "-/".contains(*c))?;
        let mut parts = date.split(separator);
        let year = digits(parts.next()?, 4)?;
        let month = digits(parts.next()?, 2)?;
        let day = digits(parts.next()?, 2)?;
        if parts.next().is_some()
            || !(1..=12).contains(&month)
            || !(1..=month_length(year, month)).contains(&day)
        {
            return None;
        }
        let instant = days(year, month, day) * DAY;
        let rest = &text[10..];
        if rest.is_empty() {
            let form = Form::Date {
                separator,
                time: None,
            };
            return Some(Self { instant, form });
        }
        let (clock, nanoseconds) = Clock::parse(rest)?;
        let form = Form::Date {
            separator,
            time: Some(clock),
        };
        Some(Self {
            instant: instant + nanoseconds,
            form,
        })
    }

    /// The timestamp `count` steps later.
    pub fn after(&self, step: Step, count: usize) -> Self {
        let count = i128::try_from(count).unwrap_or(i128::MAX);
        let instant = match step {
            Step::Fixed(length) => self.instant.saturating_add(length.saturating_mul(count)),
            Step::Months { count: months, day } => {
                let (year, month, _) = civil(self.instant.div_euclid(DAY));
                let months = year * 12 + month - 1 + months.saturating_mul(count);
                let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
                let day = day.min(month_length(year, month));
                days(year, month, day) * DAY + self.instant.rem_euclid(DAY)
            }
        };
        Self {
            instant,
            form: self.form.clone(),
        }
    }

    /// How many steps it is after `earlier`, if it is a whole number of them.
    pub fn steps_since(&self, earlier: &Self, step: Step) -> Option<usize> {
        let count = match step {
            Step::Fixed(length) => {
                let distance = self.instant - earlier.instant;
                (distance % length == 0).then(|| distance / length)?
            }
            Step::Months { count, .. } => {
                let months = self.months() - earlier.months();
                (months % count == 0).then(|| months / count)?
            }
        };
        usize::try_from(count).ok()
    }

    /// The day of the month.
    fn day(&self) -> i128 {
        civil(self.instant.div_euclid(DAY)).2
    }

    /// The months since year 0.
    fn months(&self) -> i128 {
        let (year, month, _) = civil(self.instant.div_euclid(DAY));
        year * 12 + month
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Form::Date { separator, time } = &self.form else {
            return write!(f, "{}", self.instant);
        };
        let (year, month, day) = civil(self.instant.div_euclid(DAY));
        write!(f, "{year:04}{separator}{month:02}{separator}{day:02}")?;
        let Some(clock) = time else {
            return Ok(());
        };
        let nanoseconds = self.instant.rem_euclid(DAY);
        let seconds = nanoseconds / SECOND;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{}{hours:02}:{minutes:02}", clock.separator)?;
        if clock.seconds {
            write!(f, ":{:02}", seconds % 60)?;
        }
        if clock.fraction > 0 {
            let digits = format!("{:09}", nanoseconds % SECOND);
            write!(f, ".{}", &digits[..clock.fraction])?;
        }
        f.write_str(&clock.zone)
    }
}

impl Clock {
    /// Reads what follows a date; gives the nanoseconds since midnight too.
    fn parse(text: &str) -> Option<(Self, i128)> {
        let separator = text.chars().next().filter(|c| " T".contains(*c))?;
        let text = &text[1..];
        let end = text.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
        let (time, zone) = text.split_at(end.unwrap_or(text.len()));
        let known = zone.is_empty()
            || zone == "Z"
            || (zone.starts_with(['+', '-'])
                && zone[1..].chars().all(|c| c.is_ascii_digit() || c == ':'));
        if !known {
            return None;
        }
        let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
        let mut parts = time.split(':');
        let hours = digits(parts.next()?, 2)?;
        let minutes = digits(parts.next()?, 2)?;
        let seconds = match parts.next() {
            Some(seconds) => Some(digits(seconds, 2)?),
            None => None,
        };
        if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > Some(59) {
            return None;
        }
        if fraction.len() > 9 || (!fraction.is_empty() && seconds.is_none()) {
            return None;
        }
        let nanoseconds = digits(&format!("{fraction:0<9}"), 9)?;
        let total = (hours * 3600 + minutes * 60 + seconds.unwrap_or(0)) * SECOND + nanoseconds;
        let clock = Self {
            separator,
            seconds: seconds.is_some(),
            fraction: fraction.len(),
            zone: zone.to_owned(),
        };
        Some((clock, total))
    }
}

/// The step that most neighbours have: so many months if the calendar says so, else a fixed one.
pub fn common_step(timestamps: &[Timestamp]) -> Option<Step> {
    let pairs = || timestamps.iter().zip(timestamps.iter().skip(1));
    let count = timestamps.len().checked_sub(1)?;
    let (fixed, fixed_count) = most_common(pairs().map(|(a, b)| b.instant - a.instant))?;
    if timestamps.iter().all(|stamp| stamp.form != Form::Number) {
        let (months, month_count) = most_common(pairs().map(|(a, b)| b.months() - a.months()))?;
        let days = || timestamps.iter().map(Timestamp::day);
        let day = days().max()?;
        // Two rows a month apart may as well be four weeks apart.
        let always = month_count == count && count > 1;
        let same_day = days().all(|other| other == day);
        let calendar = always && (same_day || fixed_count < count);
        if months > 0 && (calendar || fixed_count * 2 <= count && month_count * 2 > count) {
            return Some(Step::Months { count: months, day });
        }
    }
    (fixed > 0).then_some(Step::Fixed(fixed))
}

/// The value that is there most often, the smallest among equals, and how often.
fn most_common(values: impl Iterator<Item = i128>) -> Option<(i128, usize)> {
    let mut counts: HashMap<i128, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value)))
}

fn digits(text: &str, count: usize) -> Option<i128> {
    let all = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

fn month_length(year: i128, month: i128) -> i128 {
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
fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// Year, month and day of the days since 1970-01-01: [`days`] backwards.
fn civil(days: i128) -> (i128, i128, i128) {
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
    use super::{Timestamp, civil, common_step, days};

    fn continued(texts: &[&str], count: usize) -> String {
        let stamps: Vec<Timestamp> = texts.iter().map(|t| Timestamp::parse(t).unwrap()).collect();
        let step = common_step(&stamps).unwrap();
        stamps[stamps.len() - 1].after(step, count).to_string()
    }

    #[test]
    fn steps_go_on_in_the_same_form() {
        for (texts, count, expected) in [
            (
                &["2016-07-01 00:00:00", "2016-07-01 01:00:00"][..],
                24,
                "2016-07-02 01:00:00",
            ),
            (&["2024-02-27", "2024-02-28"], 2, "2024-03-01"),
            (
                &["2023/12/31T23:45Z", "2024/01/01T00:00Z"],
                1,
                "2024/01/01T00:15Z",
            ),
            (
                &[
                    "2024-01-01 00:00:00.25+02:00",
                    "2024-01-01 00:00:00.50+02:00",
                ],
                3,
                "2024-01-01 00:00:01.25+02:00",
            ),
            (
                &["2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31"],
                1,
                "2024-02-29",
            ),
            (
                &["2021-01-01", "2022-01-01", "2023-01-01", "2024-01-01"],
                1,
                "2025-01-01",
            ),
            (
                &["2023-01-01", "2023-02-01", "2023-03-01", "2023-04-01"],
                2,
                "2023-06-01",
            ),
            (&["100", "110", "120", "140"], 1, "150"),
        ] {
            assert_eq!(continued(texts, count), expected, "{texts:?}");
        }
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
            "2016-07-01 00:00:00.",
            "1.5",
            "ä016-07-01",
            "2016-07-01 1:00",
            "2016-07-01 €",
        ] {
            let found = Timestamp::parse(text).map(|stamp| stamp.to_string());
            assert!(found.is_none() || text.ends_with('.'), "{text}: {found:?}");
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
