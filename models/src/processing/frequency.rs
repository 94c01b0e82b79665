//! The frequency of timestamps: found as pandas does, and in more cases, and gone on in.
//!
//! Reference: `pandas.infer_freq` and `pandas.date_range` of pandas 3.1.

use std::collections::{BTreeSet, HashMap};

use super::time::{DAY, SECOND, civil, days, month_length, weekday};

const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const WEEK: i128 = 7 * DAY;

const WEEKDAYS: [&str; 7] = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];
const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
/// Monday to Friday.
const BUSINESS: [bool; 7] = [true, true, true, true, true, false, false];

/// Where in a month a timestamp stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The first day.
    Start,
    /// The first day from Monday to Friday.
    BusinessStart,
    /// The last day.
    End,
    /// The last day from Monday to Friday.
    BusinessEnd,
    /// This day, or the last of months that are shorter.
    Day(i128),
    /// So many weeks after the month's first such weekday; Monday is 0.
    Weekday {
        /// The weeks.
        week: i128,
        /// The weekday.
        weekday: i128,
    },
    /// The last such weekday; Monday is 0.
    LastWeekday(i128),
}

impl Anchor {
    /// The day since 1970 in a month, counted from year 0.
    fn day(self, month: i128) -> i128 {
        let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
        let (first, length) = (days(year, month, 1), month_length(year, month));
        let last = first + length - 1;
        match self {
            Anchor::Start => first,
            Anchor::End => last,
            Anchor::BusinessStart => first + [0, 0, 0, 0, 0, 2, 1][place(weekday(first))],
            Anchor::BusinessEnd => last - [0, 0, 0, 0, 0, 1, 2][place(weekday(last))],
            Anchor::Day(day) => first + day.min(length) - 1,
            Anchor::Weekday {
                week,
                weekday: wanted,
            } => first + (wanted - weekday(first)).rem_euclid(7) + 7 * week,
            Anchor::LastWeekday(wanted) => last - (weekday(last) - wanted).rem_euclid(7),
        }
    }
}

/// A remainder by seven, as an index.
fn place(weekday: i128) -> usize {
    usize::try_from(weekday.rem_euclid(7)).unwrap_or_default()
}

/// The steps that timestamps are taken at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frequency {
    /// Always as long after the last.
    Fixed {
        /// The timestamp of step 0.
        origin: i128,
        /// Nanoseconds, or units of whole numbers.
        step: i128,
        /// Whether the timestamps are whole numbers.
        number: bool,
    },
    /// Every so many months.
    Months {
        /// The month of step 0, counted from year 0.
        origin: i128,
        /// How many months.
        count: i128,
        /// The day in the month.
        anchor: Anchor,
        /// The time of day, in nanoseconds.
        time: i128,
    },
    /// On some weekdays, at some times of the day.
    Calendar {
        /// Whether there are steps on Monday, …, Sunday.
        weekdays: [bool; 7],
        /// The times of day, in nanoseconds, ascending.
        times: Vec<i128>,
    },
}

impl Frequency {
    /// The step that a timestamp is, if it is one.
    pub fn step_of(&self, instant: i128) -> Option<i128> {
        match self {
            Frequency::Fixed { origin, step, .. } => {
                let distance = instant - origin;
                (distance % step == 0).then(|| distance / step)
            }
            Frequency::Months {
                origin,
                count,
                anchor,
                time,
            } => {
                let (day, rest) = (instant.div_euclid(DAY), instant.rem_euclid(DAY));
                let month = month_of(day);
                let fits =
                    (month - origin) % count == 0 && rest == *time && anchor.day(month) == day;
                fits.then(|| (month - origin) / count)
            }
            Frequency::Calendar { weekdays, times } => {
                let (day, rest) = (instant.div_euclid(DAY), instant.rem_euclid(DAY));
                let time = times.binary_search(&rest).ok()?;
                if !weekdays[place(weekday(day))] {
                    return None;
                }
                let count = i128::try_from(times.len()).ok()?;
                Some(days_before(weekdays, day) * count + i128::try_from(time).ok()?)
            }
        }
    }

    /// The timestamp of a step.
    pub fn at(&self, step: i128) -> i128 {
        match self {
            Frequency::Fixed {
                origin,
                step: length,
                ..
            } => origin.saturating_add(length.saturating_mul(step)),
            Frequency::Months {
                origin,
                count,
                anchor,
                time,
            } => {
                // Beyond any calendar there is no sense in it.
                let step = step.clamp(-1_000_000_000, 1_000_000_000);
                anchor.day(origin + count * step) * DAY + time
            }
            Frequency::Calendar { weekdays, times } => {
                let step = step.clamp(-1_000_000_000_000, 1_000_000_000_000);
                let count = i128::try_from(times.len()).unwrap_or(1).max(1);
                let (day, time) = (step.div_euclid(count), step.rem_euclid(count));
                let time = usize::try_from(time).unwrap_or_default();
                let time = times.get(time).copied().unwrap_or_default();
                nth_day(weekdays, day) * DAY + time
            }
        }
    }

    /// What pandas calls it, or a description of one that pandas does not have.
    pub fn name(&self) -> String {
        let counted = |count: i128, unit: &str| match count {
            1 => unit.to_owned(),
            count => format!("{count}{unit}"),
        };
        match self {
            Frequency::Fixed {
                step, number: true, ..
            } => step.to_string(),
            Frequency::Fixed { origin, step, .. } => {
                if step % WEEK == 0 {
                    let day = WEEKDAYS[place(weekday(origin.div_euclid(DAY)))];
                    return counted(step / WEEK, &format!("W-{day}"));
                }
                let units = [
                    (DAY, "D"),
                    (HOUR, "h"),
                    (MINUTE, "min"),
                    (SECOND, "s"),
                    (SECOND / 1_000, "ms"),
                    (SECOND / 1_000_000, "us"),
                    (1, "ns"),
                ];
                let unit = units.into_iter().find(|(length, _)| step % length == 0);
                let (length, unit) = unit.unwrap_or((1, "ns"));
                counted(step / length, unit)
            }
            Frequency::Months {
                origin,
                count,
                anchor,
                ..
            } => {
                let (prefix, suffix) = match anchor {
                    Anchor::Start => ("", "S"),
                    Anchor::End => ("", "E"),
                    Anchor::BusinessStart => ("B", "S"),
                    Anchor::BusinessEnd => ("B", "E"),
                    Anchor::Day(day) => {
                        return format!("{} on day {day}", counted(*count, "M"));
                    }
                    Anchor::Weekday { week, weekday } => {
                        let day = WEEKDAYS[place(*weekday)];
                        return counted(*count, &format!("WOM-{}{day}", week + 1));
                    }
                    Anchor::LastWeekday(weekday) => {
                        return format!(
                            "{} on the last {}",
                            counted(*count, "M"),
                            WEEKDAYS[place(*weekday)]
                        );
                    }
                };
                let month = |at: i128| {
                    let at = usize::try_from(at.rem_euclid(12)).unwrap_or_default();
                    MONTHS[at]
                };
                if count % 12 == 0 {
                    let unit = format!("{prefix}Y{suffix}-{}", month(*origin));
                    return counted(count / 12, &unit);
                }
                if count % 3 == 0 {
                    // Starts are named for the first of the four, ends for the last.
                    let first = if suffix == "S" { 0 } else { 9 };
                    let named = first + origin.rem_euclid(12) % 3;
                    let unit = format!("{prefix}Q{suffix}-{}", month(named));
                    return counted(count / 3, &unit);
                }
                counted(*count, &format!("{prefix}M{suffix}"))
            }
            Frequency::Calendar { weekdays, times } => {
                let days: Vec<&str> = WEEKDAYS
                    .into_iter()
                    .zip(weekdays)
                    .filter_map(|(name, is)| is.then_some(name))
                    .collect();
                let days = match &days[..] {
                    _ if *weekdays == BUSINESS => "B".to_owned(),
                    days => days.join(", "),
                };
                match &times[..] {
                    [] | [_] => days,
                    [first, .., last] => format!(
                        "{} times a day from {} to {}, {days}",
                        times.len(),
                        clock(*first),
                        clock(*last)
                    ),
                }
            }
        }
    }

    /// The frequency that pandas calls `name`, from a first timestamp on.
    pub fn parse(name: &str, first: i128) -> Option<Self> {
        let digits = name.find(|c: char| !c.is_ascii_digit())?;
        let (count, unit) = name.split_at(digits);
        let count: i128 = if count.is_empty() {
            1
        } else {
            count.parse().ok()?
        };
        if !(1..=1_000_000_000).contains(&count) {
            return None;
        }
        let fixed = |length: i128| {
            Some(Frequency::Fixed {
                origin: first,
                step: count * length,
                number: false,
            })
        };
        let day = first.div_euclid(DAY);
        let (base, anchor) = match unit.split_once('-') {
            Some((base, anchor)) => (base, Some(anchor)),
            None => (unit, None),
        };
        let month = |name: &str| MONTHS.iter().position(|month| *month == name);
        let months = |length: i128, anchored: Anchor| {
            let origin = month_of(day);
            if let Some(name) = anchor {
                let named = i128::try_from(month(name)?).ok()?;
                if length == 1 || (origin - named) % length != 0 {
                    return None;
                }
            }
            Some(Frequency::Months {
                origin,
                count: count * length,
                anchor: anchored,
                time: first.rem_euclid(DAY),
            })
        };
        if anchor.is_some() && !matches!(base, "W" | "WOM") && !base.contains(['Q', 'Y', 'A']) {
            return None;
        }
        match base {
            "D" | "d" => fixed(DAY),
            "h" | "H" => fixed(HOUR),
            "min" | "T" => fixed(MINUTE),
            "s" | "S" => fixed(SECOND),
            "ms" | "L" => fixed(SECOND / 1_000),
            "us" | "U" => fixed(SECOND / 1_000_000),
            "ns" | "N" => fixed(1),
            "W" => match anchor {
                None => fixed(WEEK),
                Some(name) => (WEEKDAYS[place(weekday(day))] == name).then(|| fixed(WEEK))?,
            },
            "B" if count == 1 => Some(Frequency::Calendar {
                weekdays: BUSINESS,
                times: vec![first.rem_euclid(DAY)],
            }),
            "MS" => months(1, Anchor::Start),
            "ME" | "M" => months(1, Anchor::End),
            "BMS" => months(1, Anchor::BusinessStart),
            "BME" | "BM" => months(1, Anchor::BusinessEnd),
            "QS" => months(3, Anchor::Start),
            "QE" | "Q" => months(3, Anchor::End),
            "BQS" => months(3, Anchor::BusinessStart),
            "BQE" | "BQ" => months(3, Anchor::BusinessEnd),
            "YS" | "AS" => months(12, Anchor::Start),
            "YE" | "Y" | "A" => months(12, Anchor::End),
            "BYS" | "BAS" => months(12, Anchor::BusinessStart),
            "BYE" | "BY" | "BA" => months(12, Anchor::BusinessEnd),
            _ => None,
        }
    }

    /// The frequency of ascending timestamps, and the step that each is; at least half of the neighbours
    /// are one step apart.
    ///
    /// What is not exact is taken for the nearest step, if it is nearer than a quarter of one; so is what
    /// a calendar moves by a few days, if most is not moved.
    pub fn find(instants: &[i128], number: bool) -> Option<(Self, Vec<i128>)> {
        let steps_of = |frequency: &Frequency, instants: &[i128]| -> Option<Vec<i128>> {
            instants
                .iter()
                .map(|instant| frequency.step_of(*instant))
                .collect()
        };
        if let Some(frequency) = exact(instants, number) {
            let steps = steps_of(&frequency, instants)?;
            return Some((frequency, steps));
        }
        if number {
            return None;
        }
        const UNITS: [i128; 13] = [
            SECOND / 10,
            SECOND,
            5 * SECOND,
            10 * SECOND,
            MINUTE,
            5 * MINUTE,
            10 * MINUTE,
            15 * MINUTE,
            30 * MINUTE,
            HOUR,
            6 * HOUR,
            DAY,
            WEEK,
        ];
        for unit in UNITS {
            if let Some(snapped) = snap(instants, unit)
                && let Some(frequency) = exact(&snapped, false)
            {
                let steps = steps_of(&frequency, &snapped)?;
                return Some((frequency, steps));
            }
        }
        mostly_monthly(instants)
    }
}

/// Hours and minutes of a time of day.
fn clock(time: i128) -> String {
    format!("{:02}:{:02}", time / HOUR, time / MINUTE % 60)
}

/// The month of a day since 1970, counted from year 0.
fn month_of(day: i128) -> i128 {
    let (year, month, _) = civil(day);
    year * 12 + month - 1
}

/// How many of the days on some weekdays lie between Monday, 1969-12-29, and a day.
fn days_before(weekdays: &[bool; 7], day: i128) -> i128 {
    let (week, rest) = ((day + 3).div_euclid(7), place(day + 3));
    let count = |days: &[bool]| days.iter().map(|is| i128::from(*is)).sum::<i128>();
    week * count(weekdays) + count(&weekdays[..rest])
}

/// The day before which so many lie: [`days_before`] backwards.
fn nth_day(weekdays: &[bool; 7], count: i128) -> i128 {
    let known: Vec<i128> = (0..7)
        .zip(weekdays)
        .filter_map(|(day, is)| is.then_some(day))
        .collect();
    let week = i128::try_from(known.len()).unwrap_or(1).max(1);
    let rest = usize::try_from(count.rem_euclid(week)).unwrap_or_default();
    count.div_euclid(week) * 7 + known.get(rest).copied().unwrap_or_default() - 3
}

/// The frequency whose steps the timestamps are exactly, the one of the fewest steps.
fn exact(instants: &[i128], number: bool) -> Option<Frequency> {
    if instants.len() < 2 || instants.windows(2).any(|pair| pair[1] <= pair[0]) {
        return None;
    }
    let fixed = |step: i128| Frequency::Fixed {
        origin: instants[0],
        step,
        number,
    };
    let distances = || instants.windows(2).map(|pair| pair[1] - pair[0]);
    let mut candidates = Vec::new();
    if !number {
        candidates.extend(monthly(instants));
    }
    candidates.extend(unit(distances()).map(fixed));
    if !number {
        candidates.extend(calendar(instants));
    }
    let mut best: Option<(i128, Frequency)> = None;
    for candidate in candidates {
        let steps = instants.iter().map(|instant| candidate.step_of(*instant));
        let Some(steps) = steps.collect::<Option<Vec<i128>>>() else {
            continue;
        };
        let near = steps
            .windows(2)
            .filter(|pair| pair[1] - pair[0] == 1)
            .count();
        if 2 * near < instants.len() - 1 {
            continue;
        }
        let length = steps[steps.len() - 1] - steps[0];
        if best.as_ref().is_none_or(|(shortest, _)| length < *shortest) {
            best = Some((length, candidate));
        }
    }
    best.map(|(_, frequency)| frequency)
}

/// The commonest distance if all are multiples of it, else their greatest common divisor.
fn unit(distances: impl Iterator<Item = i128> + Clone) -> Option<i128> {
    let common = most_common(distances.clone()).filter(|common| *common > 0)?;
    if distances.clone().all(|distance| distance % common == 0) {
        return Some(common);
    }
    let divisor = |a: i128, b: i128| {
        let (mut a, mut b) = (a, b);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    distances.reduce(divisor).filter(|divisor| *divisor > 0)
}

/// The value that is there most often, the smallest among equals.
fn most_common(values: impl Iterator<Item = i128>) -> Option<i128> {
    let mut counts: HashMap<i128, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(value, count)| (*count, std::cmp::Reverse(*value)));
    most.map(|(value, _)| value)
}

fn monthly(instants: &[i128]) -> Option<Frequency> {
    let time = instants[0].rem_euclid(DAY);
    let same_time = instants
        .iter()
        .all(|instant| instant.rem_euclid(DAY) == time);
    if !same_time || instants.windows(2).any(|pair| pair[1] - pair[0] < 26 * DAY) {
        return None;
    }
    let day = |instant: &i128| instant.div_euclid(DAY);
    let months: Vec<i128> = instants
        .iter()
        .map(|instant| month_of(day(instant)))
        .collect();
    let count = unit(months.windows(2).map(|pair| pair[1] - pair[0]))?;
    let all = |anchor: Anchor| {
        let mut pairs = instants.iter().zip(&months);
        pairs.all(|(instant, month)| anchor.day(*month) == day(instant))
    };
    let anchor = anchors(instants).into_iter().find(|anchor| all(*anchor))?;
    // Every fourth week may look like a month's day for a while.
    let weekly = instants
        .windows(2)
        .all(|pair| (pair[1] - pair[0]) % WEEK == 0);
    let edge = matches!(
        anchor,
        Anchor::Start | Anchor::End | Anchor::BusinessStart | Anchor::BusinessEnd
    );
    let same = unit(instants.windows(2).map(|pair| pair[1] - pair[0]))
        .is_some_and(|step| weekly && instants.windows(2).all(|pair| pair[1] - pair[0] == step));
    if same && !edge {
        return None;
    }
    Some(Frequency::Months {
        origin: months[0],
        count,
        anchor,
        time,
    })
}

/// The anchors that timestamps may have, the likelier first.
fn anchors(instants: &[i128]) -> Vec<Anchor> {
    let dates = || instants.iter().map(|instant| instant.div_euclid(DAY));
    let day = |day: i128| civil(day).2;
    let mut anchors = vec![
        Anchor::Start,
        Anchor::BusinessStart,
        Anchor::End,
        Anchor::BusinessEnd,
    ];
    let latest = dates().map(day).max();
    anchors.extend(latest.map(Anchor::Day));
    anchors.extend(most_common(dates().map(day)).map(Anchor::Day));
    if let Some(weekday) = most_common(dates().map(weekday)) {
        if let Some(week) =
            most_common(dates().map(|date| (day(date) - 1) / 7)).filter(|week| *week < 4)
        {
            anchors.push(Anchor::Weekday { week, weekday });
        }
        anchors.push(Anchor::LastWeekday(weekday));
    }
    anchors
}

/// One timestamp a period of months, of which three in four stand where they should.
fn mostly_monthly(instants: &[i128]) -> Option<(Frequency, Vec<i128>)> {
    let day = |instant: &i128| instant.div_euclid(DAY);
    let months: Vec<i128> = instants
        .iter()
        .map(|instant| month_of(day(instant)))
        .collect();
    if instants.len() < 4 || months.windows(2).any(|pair| pair[1] <= pair[0]) {
        return None;
    }
    let count = unit(months.windows(2).map(|pair| pair[1] - pair[0]))?;
    let near = months
        .windows(2)
        .filter(|pair| pair[1] - pair[0] == count)
        .count();
    let fitting = |anchor: &Anchor| {
        let pairs = instants.iter().zip(&months);
        pairs
            .filter(|(instant, month)| anchor.day(**month) == day(instant))
            .count()
    };
    let anchors = anchors(instants);
    // The first of the best.
    let anchor = *anchors.iter().rev().max_by_key(|anchor| fitting(anchor))?;
    if 4 * fitting(&anchor) < 3 * instants.len() || 2 * near < instants.len() - 1 {
        return None;
    }
    let time = most_common(instants.iter().map(|instant| instant.rem_euclid(DAY)))?;
    let frequency = Frequency::Months {
        origin: months[0],
        count,
        anchor,
        time,
    };
    let steps = months.iter().map(|month| (month - months[0]) / count);
    Some((frequency, steps.collect()))
}

/// Steps on some weekdays and at some times of the day, where the others are left out always.
fn calendar(instants: &[i128]) -> Option<Frequency> {
    let times: BTreeSet<i128> = instants
        .iter()
        .map(|instant| instant.rem_euclid(DAY))
        .collect();
    let mut dates: Vec<i128> = instants
        .iter()
        .map(|instant| instant.div_euclid(DAY))
        .collect();
    dates.dedup();
    let (first, last) = (*dates.first()?, *dates.last()?);
    let mut observed = [false; 7];
    for date in &dates {
        observed[place(weekday(*date))] = true;
    }
    let adjacent = dates.windows(2).any(|pair| pair[1] - pair[0] == 1);
    let business = (0..7).all(|day| BUSINESS[day] || !observed[day]);
    let weekend = dates
        .windows(2)
        .any(|pair| weekday(pair[1]) < weekday(pair[0]));
    let mut weeks = Vec::new();
    if last - first >= 21 {
        weeks.push(observed);
    }
    if business && adjacent && weekend {
        weeks.push(BUSINESS);
    }
    weeks.push([true; 7]);
    let (times, count) = (Vec::from_iter(times), i128::try_from(instants.len()).ok()?);
    weeks.into_iter().find_map(|weekdays| {
        let days = weekdays.iter().filter(|is| **is).count();
        // Every second day, or every week, is no matter of weekdays; what is left out each of three days is
        // left out for good.
        if days < 2 || (days == 7 && times.len() < 2) || (times.len() > 1 && dates.len() < 3) {
            return None;
        }
        let frequency = Frequency::Calendar {
            weekdays,
            times: times.clone(),
        };
        let steps = frequency.step_of(*instants.last()?)? - frequency.step_of(instants[0])? + 1;
        // Business days may have gaps, a timetable that nobody has heard of is kept.
        let kept = 10 * count >= 8 * steps || (weekdays == BUSINESS && times.len() == 1);
        kept.then_some(frequency)
    })
}

/// The timestamps moved to the nearest multiples of a unit, if none is moved by more than a quarter of it.
fn snap(instants: &[i128], unit: i128) -> Option<Vec<i128>> {
    let first = *instants.first()?;
    // Weeks begin where most of the timestamps are.
    let near =
        |instant: i128, origin: i128| (instant - origin + unit / 2).rem_euclid(unit) - unit / 2;
    let mut phases: Vec<i128> = instants
        .iter()
        .map(|instant| near(*instant, first))
        .collect();
    phases.sort_unstable();
    let middle = first + phases[phases.len() / 2];
    let fits = |origin: i128| {
        instants
            .iter()
            .all(|instant| 4 * near(*instant, origin).abs() <= unit)
    };
    let to_second = (middle + SECOND / 2).div_euclid(SECOND) * SECOND;
    // Full minutes, hours and days are likelier than others.
    let full = if unit == WEEK {
        middle
    } else {
        middle - near(middle, 0)
    };
    let origin = [full, to_second, middle]
        .into_iter()
        .find(|origin| fits(*origin))?;
    let snapped = instants
        .iter()
        .map(|instant| instant - near(*instant, origin));
    Some(snapped.collect())
}

#[cfg(test)]
mod tests {
    use super::Frequency;
    use crate::processing::time::{DAY, Format, SECOND};

    fn instants(texts: &[&str]) -> Vec<i128> {
        let read = |text: &&str| Format::YearFirst.read(text).unwrap().local;
        texts.iter().map(read).collect()
    }

    fn name(texts: &[&str]) -> Option<String> {
        Frequency::find(&instants(texts), false).map(|(frequency, _)| frequency.name())
    }

    #[test]
    fn steps_and_timestamps_go_both_ways() {
        let first = instants(&["2024-02-29 12:00"])[0];
        for unit in [
            "D", "3D", "h", "15min", "W-THU", "2W", "B", "ME", "2BME", "QE-NOV", "YE-FEB",
        ] {
            let frequency = Frequency::parse(unit, first).unwrap();
            let start = frequency.step_of(first).unwrap();
            let mut last = first - 1;
            for step in start..start + 500 {
                let instant = frequency.at(step);
                assert!(instant > last, "{unit}");
                assert_eq!(frequency.step_of(instant), Some(step), "{unit}");
                last = instant;
            }
        }
        for unit in [
            "",
            "0D",
            "X",
            "2B",
            "W-XXX",
            "W-MON",
            "MS-JAN",
            "QE-DEC",
            "QS-JAN-FEB",
            "99999999999D",
            "-1D",
        ] {
            assert_eq!(Frequency::parse(unit, first), None, "{unit}");
        }
    }

    #[test]
    fn calendars_leave_out_what_they_leave_out() {
        // A shop that is closed on Sundays, for four weeks.
        let open = (0..28)
            .filter(|day| day % 7 != 6)
            .map(|day| (19_723 + day) * DAY);
        let open: Vec<i128> = open.collect();
        let (frequency, steps) = Frequency::find(&open, false).unwrap();
        assert_eq!(frequency.name(), "MON, TUE, WED, THU, FRI, SAT");
        assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1));
        // An exchange, from 9:30 to 15:30 on weekdays.
        let mut session = Vec::new();
        for day in (0..12).filter(|day| day % 7 < 5) {
            session
                .extend((0..7).map(|hour| (19_723 + day) * DAY + (570 + 60 * hour) * 60 * SECOND));
        }
        let (frequency, steps) = Frequency::find(&session, false).unwrap();
        assert_eq!(frequency.name(), "7 times a day from 09:30 to 15:30, B");
        let friday = steps[steps.len() - 1];
        assert_eq!(
            frequency.at(friday + 1),
            (19_723 + 14) * DAY + 570 * 60 * SECOND
        );
    }

    #[test]
    fn what_is_moved_a_little_stays_in_its_step() {
        let jittered = name(&[
            "2024-01-01 00:00:03",
            "2024-01-01 01:00:01",
            "2024-01-01 01:59:58",
            "2024-01-01 03:00:00",
            "2024-01-01 05:00:09",
        ]);
        assert_eq!(jittered.unwrap(), "h");
        // Good Friday is not a last business day.
        let good_friday = name(&[
            "2018-01-31",
            "2018-02-28",
            "2018-03-29",
            "2018-04-30",
            "2018-05-31",
            "2018-06-29",
        ]);
        assert_eq!(good_friday.unwrap(), "BME");
        let weeks = name(&[
            "2024-03-15",
            "2024-03-22",
            "2024-03-28",
            "2024-04-05",
            "2024-04-12",
        ]);
        assert_eq!(weeks.unwrap(), "W-FRI");
        for irregular in [
            &[
                "2024-01-01 00:00",
                "2024-01-01 03:17",
                "2024-01-02 11:09",
                "2024-01-09 02:00",
            ][..],
            &[
                "2024-01-01",
                "2024-01-05",
                "2024-01-06",
                "2024-02-19",
                "2024-04-02",
            ],
        ] {
            assert_eq!(name(irregular), None, "{irregular:?}");
        }
    }
}
