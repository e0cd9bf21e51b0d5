//! Five-field cron expressions, evaluated in local time: seconds since 1970-01-01 00:00 local time.

use std::{fmt, str::FromStr};

const DAY: i64 = 86_400;

/// A cron expression as in a Kubernetes CronJob: minute, hour, day of month, month, day of week, as numbers or names, lists,
/// ranges and steps. `7` is Sunday too. If both day fields are restricted, a day has to match one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    /// One bit per value.
    minutes: u64,
    hours: u32,
    days: u32,
    months: u16,
    /// Bit 0 is Sunday.
    weekdays: u8,
    /// Whether a day has to match both day fields, since one of them matches all days.
    both: bool,
}

/// The error of parsing a cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CronError {
    /// The number of fields is not five.
    Fields,
    /// A field is invalid.
    Field {
        /// Name of the field.
        field: &'static str,
        /// Text of the field.
        text: String,
    },
    /// No date matches, such as the 30th of February.
    Never,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields => f.write_str("cron must have five fields (minute hour day month weekday)"),
            Self::Field { field, text } => write!(f, "`{text}` is not a valid {field} of a cron expression"),
            Self::Never => f.write_str("cron names a day that never comes"),
        }
    }
}

impl std::error::Error for CronError {}

/// The valid values of a field.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", least: 0, most: 59, names: &[] };
const HOUR: Field = Field { name: "hour", least: 0, most: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day of month", least: 1, most: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const WEEKDAY: Field =
    Field { name: "day of week", least: 0, most: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };

impl Field {
    /// Parses a list to bits.
    fn bits(&self, text: &str) -> Result<u64, CronError> {
        let wrong = || CronError::Field { field: self.name, text: text.to_owned() };
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.part(part).ok_or_else(wrong)?))
    }

    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            None if all(range) => (self.least, self.most),
            // A number with a step is a range up to the maximum.
            None => (self.number(range)?, if step.is_some() { self.most } else { self.number(range)? }),
        };
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        (from <= to).then(|| (from..=to).step_by(step).map(|n| 1 << n).sum())
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(index) => self.least + u32::try_from(index).ok()?,
            None => text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))?,
        };
        (self.least..=self.most).contains(&number).then_some(number)
    }
}

fn all(text: &str) -> bool {
    text == "*" || text == "?"
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let mut fields = text.split_ascii_whitespace();
        let mut next = || fields.next().ok_or(CronError::Fields);
        let (minutes, hours, days, months, weekdays) = (next()?, next()?, next()?, next()?, next()?);
        if fields.next().is_some() {
            return Err(CronError::Fields);
        }
        let both = all(days) || all(weekdays);
        let weekdays = WEEKDAY.bits(weekdays)?;
        let cron = Self {
            minutes: MINUTE.bits(minutes)?,
            hours: HOUR.bits(hours)? as u32,
            days: DAY_OF_MONTH.bits(days)? as u32,
            months: MONTH.bits(months)? as u16,
            weekdays: (weekdays | weekdays >> 7) as u8 & 0x7f,
            both,
        };
        if cron.ever() { Ok(cron) } else { Err(CronError::Never) }
    }
}

impl Cron {
    fn ever(&self) -> bool {
        const LAST: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let first = self.days.trailing_zeros();
        !self.both || (1..).zip(LAST).any(|(month, last)| self.months >> month & 1 == 1 && first <= last)
    }

    /// Returns the latest matching minute in `[oldest, local]`.
    pub(super) fn at_or_before(&self, local: i64, oldest: i64) -> Option<i64> {
        let mut day = local.div_euclid(DAY);
        // The time of day is limited on the first day only.
        let mut until = local.rem_euclid(DAY);
        while day >= oldest.div_euclid(DAY) {
            if self.names_day(day)
                && let Some(second) = self.latest(until)
            {
                return Some(day * DAY + second).filter(|found| *found >= oldest);
            }
            (day, until) = (day - 1, DAY);
        }
        None
    }

    /// Returns the earliest matching minute in `[local, latest]`.
    pub(super) fn at_or_after(&self, local: i64, latest: i64) -> Option<i64> {
        let mut day = local.div_euclid(DAY);
        let mut from = local.rem_euclid(DAY);
        while day <= latest.div_euclid(DAY) {
            if self.names_day(day)
                && let Some(second) = self.earliest(from)
            {
                return Some(day * DAY + second).filter(|found| *found <= latest);
            }
            (day, from) = (day + 1, 0);
        }
        None
    }

    fn names_day(&self, day: i64) -> bool {
        let (month, of_month) = month_and_day(day);
        // 1970-01-01 was a Thursday.
        let of_week = (day + 4).rem_euclid(7);
        let (named, weekday) = (self.days >> of_month & 1 == 1, self.weekdays >> of_week & 1 == 1);
        self.months >> month & 1 == 1 && if self.both { named && weekday } else { named || weekday }
    }

    /// Returns the latest matching minute of a day at or before a second of the day.
    fn latest(&self, until: i64) -> Option<i64> {
        let (hour, minute) = (until / 3600, until / 60 % 60);
        if self.hours >> hour & 1 == 1
            && let Some(minute) = highest(self.minutes & up_to(minute))
        {
            return Some(hour * 3600 + minute * 60);
        }
        let hour = highest(u64::from(self.hours) & up_to(hour) >> 1)?;
        Some(hour * 3600 + highest(self.minutes)? * 60)
    }

    /// Returns the earliest matching minute of a day at or after a second of the day.
    fn earliest(&self, from: i64) -> Option<i64> {
        // A minute that has started is in the past.
        let from = (from + 59) / 60;
        let (hour, minute) = (from / 60, from % 60);
        if hour > 23 {
            return None;
        }
        if self.hours >> hour & 1 == 1
            && let Some(minute) = lowest(self.minutes & !(up_to(minute) >> 1))
        {
            return Some(hour * 3600 + minute * 60);
        }
        let hour = lowest(u64::from(self.hours) & !up_to(hour))?;
        Some(hour * 3600 + lowest(self.minutes)? * 60)
    }
}

/// Returns the bits from 0 to `bit`, which is less than 63.
fn up_to(bit: i64) -> u64 {
    (2 << bit) - 1
}

fn highest(bits: u64) -> Option<i64> {
    bits.checked_ilog2().map(i64::from)
}

fn lowest(bits: u64) -> Option<i64> {
    (bits != 0).then(|| i64::from(bits.trailing_zeros()))
}

/// Converts days since 1970-01-01 to the month and day of the Gregorian calendar.
fn month_and_day(day: i64) -> (i64, i64) {
    // Years start on the 1st of March, so that the leap day is the last day. An era of 400 years started 719,468 days before
    // 1970-01-01.
    let of_era = (day + 719_468).rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Five months have 153 days.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str) -> Cron {
        text.parse().unwrap()
    }

    #[test]
    fn month_and_day_of_known_dates() {
        // 2000-02-29, 2024-12-31 and the days after, 2026-03-01, 1969-12-31, 2100-02-28 and the day after.
        let days = [
            (11_016, (2, 29)),
            (20_088, (12, 31)),
            (20_089, (1, 1)),
            (20_119, (1, 31)),
            (20_120, (2, 1)),
            (20_513, (3, 1)),
            (-1, (12, 31)),
            (47_540, (2, 28)),
            (47_541, (3, 1)),
        ];
        for (day, expected) in days {
            assert_eq!(month_and_day(day), expected, "{day}");
        }
    }

    #[test]
    fn fields() {
        assert_eq!(cron("0 0 1 1 *").minutes, 1);
        assert_eq!(cron("*/15 0 1 1 *").minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(cron("50/5 0 1 1 *").minutes, 1 << 50 | 1 << 55);
        assert_eq!(cron("1-5/2,9 0 1 1 *").minutes, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 9);
        assert_eq!(cron("9,5-10/4 0 1 1 *").minutes, 1 << 5 | 1 << 9, "a value may be listed twice");
        assert_eq!(cron("* * * * *").minutes, (1 << 60) - 1);
        assert_eq!(cron("* * ? * MON-fri").weekdays, 0b011_1110);
        assert_eq!(cron("* * * * 5-7").weekdays, 0b110_0001);
        assert_eq!(["0", "7", "0,7"].map(|day| cron(&format!("* * * * {day}")).weekdays), [1; 3]);
        assert_eq!(cron("* * * jan,DEC *").months, 1 << 1 | 1 << 12);
        assert_eq!(cron("  5   4 * * *  "), cron("5 4 * * *"));
    }

    #[test]
    fn invalid_expressions_have_a_reason() {
        let field = |field, text: &str| CronError::Field { field, text: text.to_owned() };
        let cases = [
            ("", CronError::Fields),
            ("* * * *", CronError::Fields),
            ("* * * * * *", CronError::Fields),
            ("@daily", CronError::Fields),
            ("60 * * * *", field("minute", "60")),
            ("* 24 * * *", field("hour", "24")),
            ("* * 0 * *", field("day of month", "0")),
            ("* * * 13 *", field("month", "13")),
            ("* * * * 8", field("day of week", "8")),
            ("5-1 * * * *", field("minute", "5-1")),
            ("*/0 * * * *", field("minute", "*/0")),
            ("+5 * * * *", field("minute", "+5")),
            ("1, * * * *", field("minute", "1,")),
            ("* * * * MONDAY", field("day of week", "MONDAY")),
            ("* * * 1/ *", field("month", "1/")),
            ("0 0 30 2 *", CronError::Never),
            ("0 0 31 4,6,9,11 *", CronError::Never),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Cron>(), Err(expected), "{text}");
        }
        assert!("0 0 29 2 *".parse::<Cron>().is_ok());
        assert!("0 0 30 2 1".parse::<Cron>().is_ok(), "or a Monday in February");
        assert_eq!(field("hour", "24").to_string(), "`24` is not a valid hour of a cron expression");
    }

    #[test]
    fn day_fields_combine_as_in_cron() {
        // 2026-11-13 is a Friday.
        let day = 20_770;
        assert_eq!(month_and_day(day), (11, 13));
        assert!(cron("0 0 13 * *").names_day(day) && cron("0 0 * * 5").names_day(day));
        assert!(!cron("0 0 14 * *").names_day(day) && !cron("0 0 * * 4").names_day(day));
        assert!(cron("0 0 14 * 5").names_day(day) && cron("0 0 13 * 4").names_day(day));
        assert!(!cron("0 0 14 * 4").names_day(day));
        assert!(!cron("0 0 13 10 *").names_day(day) && !cron("0 0 1 10 5").names_day(day));
        assert!(!cron("0 0 */2 * 4").names_day(day + 1), "a step is a restriction: the 14th, a Saturday, is neither");
    }

    /// For each minute, the bits and both searches agree.
    #[test]
    fn searches_agree_with_a_scan_of_every_minute() {
        for text in [
            "30 8 * * 1-5",
            "*/7 */5 * * *",
            "0 0 1 * *",
            "59 23 31 12 *",
            "5,10 3,4 28-31 * 0",
            "0 12 29 2 *",
            "0-2 9 * 5 1",
        ] {
            let cron = cron(text);
            let (begin, end) = (20_400 * DAY, 20_900 * DAY);
            let named = |second: i64| {
                let (hour, minute) = (second.rem_euclid(DAY) / 3600, second.rem_euclid(3600) / 60);
                cron.hours >> hour & 1 == 1 && cron.minutes >> minute & 1 == 1 && cron.names_day(second.div_euclid(DAY))
            };
            let (mut last, mut since) = (None, begin);
            for second in (begin..end).step_by(60).filter(|second| named(*second)) {
                for probe in [since, second - 1, (since + second) / 2] {
                    if probe >= since && probe < second {
                        assert_eq!(cron.at_or_before(probe, begin), last, "{text} at {probe}");
                        let next = if Some(probe) == last { last } else { Some(second) };
                        assert_eq!(cron.at_or_after(probe, end), next, "{text} at {probe}");
                    }
                }
                (last, since) = (Some(second), second);
            }
            assert_eq!(cron.at_or_before(end - 1, begin), last, "{text}");
            if let Some(last) = last {
                assert_eq!(cron.at_or_before(end - 1, last + 1), None);
                assert_eq!(cron.at_or_after(last, last), Some(last));
                assert_eq!(cron.at_or_after(last - 30, last - 1), None);
            }
        }
    }
}
