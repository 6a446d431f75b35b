//! Numbers as people read them. JSON never comes here.

use bytesize::ByteSize;

/// `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `12,345,678`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".to_owned();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite, at least 60, and saturating")]
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", whole % 60),
        (0, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The same where it may not be known yet.
pub(super) fn maybe_seconds(known: Option<f64>) -> String {
    known.map_or_else(|| "unknown".to_owned(), seconds)
}

/// A rate per second, rounded.
pub(super) fn rate(per_second: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are finite and not negative; the cast saturates")]
    let whole = per_second.max(0.0).round() as u64;
    whole
}

/// How much of the whole is done, between 0 and 1; nothing where the whole is not known.
pub(super) fn share(done: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let share = (whole > 0).then(|| (done as f64 / whole as f64).min(1.0));
    share
}

/// `[#######.............]`.
pub(super) fn bar(share: f64, width: usize) -> String {
    let full = (1..=width)
        .take_while(|&cell| {
            share * f64::from(u32::try_from(width).unwrap_or(u32::MAX)) >= f64::from(u32::try_from(cell).unwrap_or(u32::MAX))
        })
        .count();
    format!("[{}{}]", "#".repeat(full), ".".repeat(width - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1000), count(12_345_678)], ["0", "999", "1,000", "12,345,678"]);
        assert_eq!([seconds(0.44), seconds(200.0), seconds(7500.0), seconds(273_600.0)], ["0.4 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]);
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!([bar(0.0, 4), bar(0.5, 4), bar(1.0, 4)], ["[....]", "[##..]", "[####]"]);
        assert_eq!(share(5, 0), None);
    }
}
