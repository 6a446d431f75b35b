//! Texts into values: numbers, sizes, durations, addresses, connection strings, each within its range.
//! A text that does not fit gives back how the sentence "`--flag` …" goes on. Values are quoted, secrets never.

use crate::model::{Namespace, ShardKey};
use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

/// How the sentence about a bad value goes on.
pub(super) type Complaint = String;

/// A whole number within a range.
pub(super) fn number(text: &str, range: &RangeInclusive<usize>) -> Result<usize, Complaint> {
    let (low, high) = (range.start(), range.end());
    let fits = text.trim().parse::<usize>().ok().filter(|n| range.contains(n));
    fits.ok_or_else(|| format!("must be a whole number from {low} to {high}, not `{text}`"))
}

/// A size as people write it.
pub(super) fn size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Complaint> {
    let bytes =
        text.trim().parse::<bytesize::ByteSize>().map_err(|_| format!("must be a size such as `512MiB` or `2GiB`, not `{text}`"))?.as_u64();
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    let show = |bytes: &u64| bytesize::ByteSize::b(*bytes).display().iec().to_string();
    Err(if *range.end() == u64::MAX {
        format!("must be at least {}, not `{text}`", show(range.start()))
    } else {
        format!("must be from {} to {}, not `{text}`", show(range.start()), show(range.end()))
    })
}

/// A duration as people write it.
pub fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Complaint> {
    let duration =
        humantime::parse_duration(text.trim()).map_err(|_| format!("must be a duration such as `500ms`, `30s` or `10m`, not `{text}`"))?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let show = |d: &Duration| humantime::format_duration(*d);
    Err(format!("must be from {} to {}, not `{text}`", show(range.start()), show(range.end())))
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Complaint> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let all = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        format!("must be one of {all}, not `{text}`")
    })
}

/// True or false, with the usual spellings of an environment.
pub(super) fn switch(text: &str) -> Result<bool, Complaint> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("must be `true` or `false`, not `{text}`")),
    }
}

/// An address with a port. Which ones may listen is decided with the options that protect them.
pub(super) fn address(text: &str) -> Result<SocketAddr, Complaint> {
    let text = text.trim();
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric.parse().map_err(|_| format!("must be an address and a port such as `127.0.0.1:27182`, not `{text}`"))
}

/// A connection string. Whether it leads anywhere is for the driver to say.
pub(super) fn uri(text: &str) -> Result<(), Complaint> {
    let Some(rest) = text.strip_prefix("mongodb://").or_else(|| text.strip_prefix("mongodb+srv://")) else {
        return Err("must begin with `mongodb://` or `mongodb+srv://`".to_owned());
    };
    // Such a string would be cut at the wrong place when it is shown, too.
    if rest.split_once('?').is_some_and(|(_, options)| options.contains('@')) {
        return Err("has an `@` after a `?`: write `?`, `@`, `:` and `/` in user, password and options as %3F, %40, %3A and %2F".to_owned());
    }
    let hosts = rest.split_once('?').map_or(rest, |(before, _)| before);
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    if hosts.is_empty() || hosts.starts_with('/') {
        return Err("names no host".to_owned());
    }
    Ok(())
}

/// A name for a database of ours.
pub(super) fn database(text: &str) -> Result<String, Complaint> {
    let bad = |c: char| matches!(c, '/' | '\\' | '.' | ' ' | '"' | '$' | '*' | '<' | '>' | ':' | '|' | '?' | '\0');
    if text.is_empty() || text.len() > 63 || text.contains(bad) {
        return Err(format!("must be the name of a database, up to 63 bytes without any of `/\\. \"$*<>:|?`, not `{text}`"));
    }
    if matches!(text, "admin" | "local" | "config") {
        return Err(format!("must not be `{text}`, which belongs to the server"));
    }
    Ok(text.to_owned())
}

/// A pair of a rename.
pub(super) fn rename(text: &str) -> Result<(String, String), Complaint> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        Some(_) | None => Err(format!("must be written FROM=TO, not `{text}`")),
    }
}

/// A collection and its shard key. The key is behind the last `=`: a collection's name may have one.
pub(super) fn shard(text: &str) -> Result<(Namespace, ShardKey), Complaint> {
    let (ns, key) = text.rsplit_once('=').ok_or_else(|| format!("must be written NS=KEY, as in `shop.orders=customer:1`, not `{text}`"))?;
    let ns = Namespace::parse(ns).ok_or_else(|| format!("must name a collection as `db.collection`, not `{ns}`"))?;
    let key = ShardKey::parse(key).map_err(|why| format!("has no shard key for `{ns}`: {why}"))?;
    Ok((ns, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_and_told() {
        assert_eq!(number("8", &(1..=256)), Ok(8));
        assert_eq!(number("0", &(1..=256)).unwrap_err(), "must be a whole number from 1 to 256, not `0`");
        assert_eq!(size("128MiB", &(1..=u64::MAX)), Ok(128 << 20));
        assert_eq!(size("1MiB", &((128 << 20)..=u64::MAX)).unwrap_err(), "must be at least 128.0 MiB, not `1MiB`");
        let interval = Duration::from_millis(100)..=Duration::from_secs(60);
        assert_eq!(duration("1s", &interval), Ok(Duration::from_secs(1)));
        assert_eq!(duration("2m", &interval).unwrap_err(), "must be from 100ms to 1m, not `2m`");
        assert!(duration("30", &interval).unwrap_err().contains("such as"));
    }

    #[test]
    fn shard_keys_come_with_their_collection() {
        let (ns, key) = shard("shop.a=b=customer:1,_id:hashed").unwrap();
        assert_eq!((ns.as_str(), key.to_string().as_str()), ("shop.a=b", "{customer: 1, _id: \"hashed\"}"));
        for bad in ["shop.orders", "shop=_id:1", "shop.orders=_id", "shop.orders="] {
            assert!(shard(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_numbers_with_a_port() {
        for good in ["127.0.0.1:1", "[::1]:1", "localhost:1", "0.0.0.0:1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1", "example.org:1", ":1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn connection_strings_are_never_quoted() {
        for bad in ["http://u:s3cret@h", "mongodb://u:s3?cret@h/", "mongodb://u:s3cret@/", "s3cret"] {
            let why = uri(bad).unwrap_err();
            assert!(!why.contains("s3") && !why.contains("cret"), "{why}");
        }
        assert_eq!(uri("mongodb+srv://u:p@h/?tls=true"), Ok(()));
    }
}
