//! Points in time as upstream prints them (Go's layout `2006-01-02 15:04:05.999 -0700 MST`), in UTC.

use std::time::SystemTime;

const SECONDS_A_DAY: u64 = 86_400;

/// `2016-01-26 14:23:34.631 +0000 UTC`; the fraction has no zeros at its end.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / SECONDS_A_DAY, since.as_secs() % SECONDS_A_DAY);
    let (year, month, day) = date(days);
    let fraction = format!(".{:03}", since.subsec_millis());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar: years are counted from March, so that a
/// leap day is a year's last (Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_AN_ERA: u64 = 146_097;
    let days = days.saturating_add(DAYS_TO_1970);
    let (era, day) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn points_in_time() {
        let at = |milliseconds| timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(at(1_453_818_214_631), "2016-01-26 14:23:34.631 +0000 UTC");
        assert_eq!(at(951_782_400_100), "2000-02-29 00:00:00.1 +0000 UTC");
        assert_eq!(at(4_107_542_399_050), "2100-02-28 23:59:59.05 +0000 UTC");
        assert_eq!(at(4_107_542_400_000), "2100-03-01 00:00:00 +0000 UTC");
    }
}
