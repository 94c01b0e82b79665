//! The timestamps of a table as steps of their frequency, over changes of the clock too.

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::frequency::Frequency;
use super::time::{DAY, SECOND, Stamp, Style, offset_at, offsets_of};

const HOUR: i128 = 3_600 * SECOND;

/// What is wrong with timestamps, by the rows that it is seen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// A row is earlier than the one before.
    Descends(usize),
    /// A row is at the same time as the one before.
    Repeated(usize),
    /// A row has an offset from UTC and the first has none, or the other way.
    Mixed(usize),
    /// The zone's clock never shows this time.
    Skipped(usize),
    /// They have no frequency; here it is seen.
    Irregular(usize),
    /// A row is no step of the frequency that was given.
    Off(usize),
    /// There is no such frequency, or the first row is no step of it.
    Frequency,
}

/// Rows as steps, and what comes after them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    frequency: Frequency,
    /// The step of each row, ascending.
    steps: Vec<i128>,
    clock: Clock,
    style: Style,
}

/// How the times that a frequency gives become the local ones.
#[derive(Debug, Clone, PartialEq)]
struct Clock {
    /// Whether the frequency is one of local times, not of instants.
    local: bool,
    /// What local times are ahead of instants in the last row.
    shift: i128,
    /// The zone, and what UTC is ahead of the frequency's instants.
    zone: Option<(TimeZone, i128)>,
    /// Whether timestamps have their offset with them.
    written: bool,
}

impl Axis {
    /// The steps of timestamps that ascend.
    pub(super) fn new(
        stamps: &[Stamp],
        style: Style,
        given: Option<&str>,
        zone: Option<&TimeZone>,
    ) -> Result<Self, Fault> {
        let number = style == Style::Number;
        let written = stamps.first().is_some_and(|stamp| stamp.offset.is_some());
        if let Some(row) = stamps
            .iter()
            .position(|stamp| stamp.offset.is_some() != written)
        {
            return Err(Fault::Mixed(row));
        }
        let mut local: Vec<i128> = stamps.iter().map(|stamp| stamp.local).collect();
        let mut lead = 0;
        let mut found = None;
        let instants: Vec<i128> = match zone.filter(|_| !number) {
            Some(zone) if written => {
                let instants: Vec<i128> = stamps
                    .iter()
                    .map(|s| s.local - s.offset.unwrap_or(0))
                    .collect();
                for (local, instant) in local.iter_mut().zip(&instants) {
                    *local = instant + offset_at(zone, *instant).unwrap_or(0);
                }
                found = Some(zone.clone());
                instants
            }
            Some(zone) => {
                found = Some(zone.clone());
                instants_in(&local, zone)?
            }
            None if written => stamps
                .iter()
                .map(|s| s.local - s.offset.unwrap_or(0))
                .collect(),
            None if number => local.clone(),
            None => match unfold(&local) {
                None => local.clone(),
                Some((instants, zone)) => {
                    let last = local[local.len() - 1];
                    let offset = zone
                        .as_ref()
                        .and_then(|zone| offsets_of(zone, last).last().copied());
                    lead = last - offset.unwrap_or(0) - instants[instants.len() - 1];
                    found = zone.filter(|_| offset.is_some());
                    instants
                }
            },
        };
        for (row, pair) in instants.windows(2).enumerate() {
            if pair[1] == pair[0] {
                return Err(Fault::Repeated(row + 1));
            }
            if pair[1] < pair[0] {
                return Err(Fault::Descends(row + 1));
            }
        }
        let last = instants.len().saturating_sub(1);
        let clock = |is_local| Clock {
            local: is_local,
            shift: local.get(last).copied().unwrap_or(0) - instants.get(last).copied().unwrap_or(0),
            zone: found.clone().map(|zone| (zone, lead)),
            written,
        };
        if let Some(name) = given {
            let first = local.first().copied().ok_or(Fault::Frequency)?;
            let frequency = Frequency::parse(name, first)
                .filter(|_| !number)
                .ok_or(Fault::Frequency)?;
            let is_local = of_days(&frequency);
            let (frequency, times) = if is_local {
                (frequency, &local)
            } else {
                let frequency = Frequency::parse(name, instants[0]).ok_or(Fault::Frequency)?;
                (frequency, &instants)
            };
            let mut steps = Vec::with_capacity(times.len());
            for (row, time) in times.iter().enumerate() {
                let step = frequency.step_of(*time);
                // A first row beside the frequency is a wrong frequency.
                steps.push(step.ok_or(if row == 0 {
                    Fault::Frequency
                } else {
                    Fault::Off(row)
                })?);
            }
            if let Some(row) = steps.windows(2).position(|pair| pair[1] <= pair[0]) {
                return Err(Fault::Off(row + 1));
            }
            return Ok(Self {
                frequency,
                steps,
                clock: clock(is_local),
                style,
            });
        }
        let by_instants = Frequency::find(&instants, number);
        let by_local = if local == instants {
            None
        } else {
            Frequency::find(&local, number)
        };
        let length = |found: &(Frequency, Vec<i128>)| found.1[found.1.len() - 1] - found.1[0];
        let (is_local, (frequency, steps)) = match (by_instants, by_local) {
            (Some(one), Some(other)) => {
                // Days and longer steps are those of the local calendar.
                let shorter = length(&other) < length(&one);
                let as_long = length(&other) == length(&one) && of_days(&other.0);
                if shorter || as_long {
                    (true, other)
                } else {
                    (false, one)
                }
            }
            // Where they are the same, days are local ones all the same.
            (Some(one), None) => (local == instants && of_days(&one.0), one),
            (None, Some(other)) => (true, other),
            (None, None) => return Err(Fault::Irregular(first_irregular(&instants))),
        };
        Ok(Self {
            frequency,
            steps,
            clock: clock(is_local),
            style,
        })
    }

    /// The frequency's name.
    pub(super) fn name(&self) -> String {
        self.frequency.name()
    }

    /// The step of a row.
    pub(super) fn step(&self, row: usize) -> Option<i128> {
        self.steps.get(row).copied()
    }

    /// The timestamp so many steps after the last row's; nothing where the calendar ends.
    pub(super) fn after(&self, steps: usize) -> Option<String> {
        let last = *self.steps.last()?;
        let time = self
            .frequency
            .at(last.checked_add(i128::try_from(steps).ok()?)?);
        let Clock {
            local,
            shift,
            zone,
            written,
        } = &self.clock;
        let (local, offset) = match (local, zone) {
            (true, None) => (time, *shift),
            // An hour that the zone leaves out is written as if it did not.
            (true, Some((zone, _))) => (
                time,
                offsets_of(zone, time).first().copied().unwrap_or(*shift),
            ),
            (false, None) => (time.checked_add(*shift)?, *shift),
            (false, Some((zone, lead))) => {
                let utc = time.checked_add(*lead)?;
                let offset = offset_at(zone, utc)?;
                (utc + offset, offset)
            }
        };
        self.style.write(Stamp {
            local,
            offset: written.then_some(offset),
        })
    }
}

/// Whether its steps are those of a local calendar.
fn of_days(frequency: &Frequency) -> bool {
    !matches!(frequency, Frequency::Fixed { step, .. } if step % DAY != 0)
}

/// The instants of local times in a zone: of two that may be meant the one that ascends.
fn instants_in(local: &[i128], zone: &TimeZone) -> Result<Vec<i128>, Fault> {
    let mut instants: Vec<i128> = Vec::with_capacity(local.len());
    for (row, time) in local.iter().enumerate() {
        let possible = offsets_of(zone, *time)
            .into_iter()
            .map(|offset| time - offset);
        let possible: Vec<i128> = possible.collect();
        let ascends = possible
            .iter()
            .find(|instant| instants.last().is_none_or(|last| *instant > last));
        let instant = ascends.or(possible.last()).ok_or(Fault::Skipped(row))?;
        instants.push(*instant);
    }
    Ok(instants)
}

/// The first row that is no whole number of the commonest distance after the one before.
fn first_irregular(instants: &[i128]) -> usize {
    let mut distances: Vec<i128> = instants.windows(2).map(|pair| pair[1] - pair[0]).collect();
    distances.sort_unstable();
    let middle = distances
        .get(distances.len() / 2)
        .copied()
        .unwrap_or(1)
        .max(1);
    let odd = instants
        .windows(2)
        .position(|pair| (pair[1] - pair[0]) % middle != 0);
    odd.unwrap_or(0) + 1
}

/// Local times of less than a day's step as instants, if a clock was changed between them: it leaves an
/// hour out or repeats one where some zone's clock does; and the zone, as far as what follows tells.
fn unfold(local: &[i128]) -> Option<(Vec<i128>, Option<TimeZone>)> {
    let mut distances: Vec<i128> = local.windows(2).map(|pair| pair[1] - pair[0]).collect();
    distances.sort_unstable();
    let step = *distances.get(distances.len() / 2)?;
    if step <= 0 || step >= DAY {
        return None;
    }
    // Clocks are changed by at most three hours.
    let strange = |row: &usize| {
        let distance = local[*row] - local[row - 1];
        distance != step && (-3 * HOUR..=step + 3 * HOUR).contains(&distance)
    };
    let rows: Vec<usize> = (1..local.len()).filter(strange).collect();
    // No clock is changed as often.
    if rows.is_empty() || rows.len() > local.len() / 8 + 2 {
        return None;
    }
    let needed = |row: usize| {
        let distance = local[row] - local[row - 1];
        distance <= 0 || distance % step != 0
    };
    let database = TimeZoneDatabase::bundled();
    let mut zones: Vec<TimeZone> = database
        .available()
        .filter_map(|name| database.get(name.as_str()).ok())
        .filter(|zone| zone.is_primary())
        .collect();
    let (first, others): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(|row| needed(*row));
    let changes = |zone: &TimeZone, row: usize| change(zone, local[row - 1], local[row], step);
    let mut changed = Vec::new();
    for row in first {
        let by = zones.iter().find_map(|zone| changes(zone, row))?;
        zones.retain(|zone| changes(zone, row) == Some(by));
        changed.push((row, by));
    }
    zones.retain(|zone| shows(zone, local));
    if zones.is_empty() {
        return None;
    }
    for row in others {
        if let Some(by) = zones.iter().find_map(|zone| changes(zone, row)) {
            zones.retain(|zone| changes(zone, row) == Some(by));
            changed.push((row, by));
        }
    }
    if changed.is_empty() {
        return None;
    }
    changed.sort_unstable();
    let mut changed = changed.into_iter().peekable();
    let mut total = 0;
    let mut instants = Vec::with_capacity(local.len());
    for (row, time) in local.iter().enumerate() {
        if let Some((_, by)) = changed.next_if(|(at, _)| *at == row) {
            total += by;
        }
        instants.push(time - total);
    }
    let last = local[local.len() - 1];
    let future = |zone: &TimeZone| coming(zone, last);
    let zone = zones.first().cloned();
    let agree = zone.filter(|zone| {
        let expected = future(zone);
        zones.iter().all(|other| future(other) == expected)
    });
    Some((instants, agree))
}

/// What a zone's clock is put forward by between two local times that are whole steps apart, if it is.
fn change(zone: &TimeZone, before: i128, after: i128, step: i128) -> Option<i128> {
    let (earlier, later) = (offsets_of(zone, before), offsets_of(zone, after));
    let pairs = earlier
        .iter()
        .flat_map(|from| later.iter().map(move |to| (from, to)));
    let changes = pairs.filter(|(from, to)| {
        let distance = (after - *to) - (before - *from);
        from != to && distance == step
    });
    changes.map(|(from, to)| to - from).next()
}

/// Whether a zone's clock shows all of the local times, which ascend but for an hour now and then.
fn shows(zone: &TimeZone, local: &[i128]) -> bool {
    let (Some(first), Some(last)) = (local.first(), local.last()) else {
        return true;
    };
    transitions(zone, *first - DAY, *last + DAY)
        .iter()
        .all(|(at, by)| {
            let next = local.partition_point(|time| time < at);
            local.get(next).is_none_or(|time| *time >= at + by)
        })
}

/// The local times that a zone's clock is changed at in the three years after one, and by how much.
fn coming(zone: &TimeZone, last: i128) -> Vec<(i128, i128)> {
    let transitions = transitions(zone, last - DAY, last + 3 * 366 * DAY);
    transitions
        .into_iter()
        .filter(|(at, _)| *at > last)
        .collect()
}

/// The local times that a zone's clock is changed at, and by how much.
fn transitions(zone: &TimeZone, from: i128, to: i128) -> Vec<(i128, i128)> {
    let Ok(start) = jiff::Timestamp::from_nanosecond(from) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for transition in zone.following(start) {
        let instant = transition.timestamp().as_nanosecond();
        if instant > to {
            break;
        }
        let after = i128::from(transition.offset().seconds()) * SECOND;
        let before = offset_at(zone, instant - 1).unwrap_or(after);
        if before != after {
            found.push((instant + before, after - before));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{Axis, Fault};
    use crate::processing::time::{Format, Stamp, Style};

    fn read(texts: &[String]) -> (Vec<Stamp>, Style) {
        let format = Format::YearFirst;
        let stamps = texts
            .iter()
            .map(|text| format.read(text).unwrap())
            .collect();
        (
            stamps,
            format.read_styled(&texts[texts.len() - 1]).unwrap().1,
        )
    }

    fn axis(texts: &[String], zone: Option<&str>) -> Result<Axis, Fault> {
        let (stamps, style) = read(texts);
        let zone = zone.map(|name| TimeZone::get(name).unwrap());
        Axis::new(&stamps, style, None, zone.as_ref())
    }

    fn hours(day: &str, hours: impl IntoIterator<Item = u32>, zone: &str) -> Vec<String> {
        let texts = hours
            .into_iter()
            .map(|hour| format!("{day} {hour:02}:00{zone}"));
        texts.collect()
    }

    #[test]
    fn clocks_that_are_changed_leave_nothing_out() {
        // Central Europe.
        let spring = [
            hours("2024-03-30", 0..24, ""),
            hours("2024-03-31", (0..2).chain(3..24), ""),
        ];
        let found = axis(&spring.concat(), None).unwrap();
        assert_eq!(found.name(), "h");
        assert_eq!(found.step(46).unwrap() - found.step(0).unwrap(), 46);
        assert_eq!(found.after(1).unwrap(), "2024-04-01 00:00");
        let autumn = [
            hours("2024-10-26", 0..24, ""),
            hours("2024-10-27", (0..3).chain(2..24), ""),
        ];
        let found = axis(&autumn.concat(), None).unwrap();
        assert_eq!(found.step(48).unwrap() - found.step(0).unwrap(), 48);
        assert_eq!(found.after(2).unwrap(), "2024-10-28 01:00");
        // North America changes elsewhere; at noon nobody does.
        let america = [
            hours("2024-03-09", 0..24, ""),
            hours("2024-03-10", (0..2).chain(3..24), ""),
        ];
        let found = axis(&america.concat(), None).unwrap();
        assert_eq!(found.step(46).unwrap() - found.step(0).unwrap(), 46);
        let gap = [
            hours("2024-03-30", 0..24, ""),
            hours("2024-03-31", (0..12).chain(13..24), ""),
        ];
        let found = axis(&gap.concat(), None).unwrap();
        assert_eq!(found.step(46).unwrap() - found.step(0).unwrap(), 47);
        let twice = [
            hours("2024-03-30", 0..24, ""),
            hours("2024-03-31", (0..13).chain(12..24), ""),
        ];
        assert_eq!(axis(&twice.concat(), None), Err(Fault::Repeated(37)));
    }

    #[test]
    fn quarters_of_an_hour_go_back_and_on() {
        let mut texts = Vec::new();
        for (day, hour) in (0..24)
            .map(|hour| (26, hour))
            .chain([0, 1, 2, 2, 3, 4].map(|hour| (27, hour)))
        {
            texts.extend(
                [0, 15, 30, 45].map(|minute| format!("2024-10-{day} {hour:02}:{minute:02}")),
            );
        }
        let found = axis(&texts, None).unwrap();
        assert_eq!(found.name(), "15min");
        assert_eq!(found.step(119).unwrap() - found.step(0).unwrap(), 119);
        assert_eq!(found.after(1).unwrap(), "2024-10-27 05:00");
    }

    #[test]
    fn a_zone_that_is_given_goes_on() {
        let before = hours("2024-03-30", 0..24, "");
        let found = axis(&before, Some("Europe/Berlin")).unwrap();
        assert_eq!(found.after(2).unwrap(), "2024-03-31 01:00");
        assert_eq!(found.after(3).unwrap(), "2024-03-31 03:00");
        assert_eq!(
            axis(&before, None).unwrap().after(3).unwrap(),
            "2024-03-31 02:00"
        );
        let skipped = hours("2024-03-31", 0..24, "");
        assert_eq!(
            axis(&skipped, Some("Europe/Berlin")),
            Err(Fault::Skipped(2))
        );
        let written = [
            hours("2024-03-31", 0..2, "+01:00"),
            hours("2024-03-31", 3..24, "+02:00"),
        ]
        .concat();
        let found = axis(&written, None).unwrap();
        assert_eq!(found.after(1).unwrap(), "2024-04-01 00:00+02:00");
        assert_eq!(found.step(22).unwrap() - found.step(0).unwrap(), 22);
        let winter = hours("2024-03-30", 0..24, "+01:00");
        let found = axis(&winter, Some("Europe/Berlin")).unwrap();
        assert_eq!(found.after(3).unwrap(), "2024-03-31 03:00+02:00");
    }

    #[test]
    fn local_days_are_days() {
        let days: Vec<String> = [
            "2024-03-29T00:00:00+01:00",
            "2024-03-30T00:00:00+01:00",
            "2024-03-31T00:00:00+01:00",
            "2024-04-01T00:00:00+02:00",
            "2024-04-02T00:00:00+02:00",
        ]
        .map(str::to_owned)
        .to_vec();
        let found = axis(&days, None).unwrap();
        assert_eq!(found.name(), "D");
        assert_eq!(found.after(1).unwrap(), "2024-04-03T00:00:00+02:00");
        let mut mixed = days;
        mixed[3] = "2024-04-01T00:00:00".to_owned();
        assert_eq!(axis(&mixed, None), Err(Fault::Mixed(3)));
    }
}
