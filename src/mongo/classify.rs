//! One function from the driver's error to ours: labels first, codes second, never message text.

use crate::{
    error::{Error, Trouble},
    model::{ClusterTime, Side},
};
use mongodb::error::{ErrorKind, WriteFailure};

/// Codes for which the same command may well succeed in a moment. Names as in the server's
/// `error_codes.yml`; the driver's own list of retryable reads and writes is a part of it.
const TRANSIENT: [(i32, Trouble); 37] = [
    (6, Trouble::Network),      // HostUnreachable
    (7, Trouble::Network),      // HostNotFound
    (24, Trouble::Other),       // LockTimeout
    (43, Trouble::Other),       // CursorNotFound: the reader opens again
    (50, Trouble::Timeout),     // MaxTimeMSExpired
    (64, Trouble::Timeout),     // WriteConcernFailed (timed out)
    (89, Trouble::Network),     // NetworkTimeout
    (91, Trouble::Election),    // ShutdownInProgress
    (134, Trouble::Other),      // ReadConcernMajorityNotAvailableYet
    (175, Trouble::Other),      // QueryPlanKilled: the reader opens again
    (189, Trouble::Election),   // PrimarySteppedDown
    (202, Trouble::Timeout),    // NetworkInterfaceExceededTimeLimit
    (237, Trouble::Other),      // CursorKilled
    (262, Trouble::Timeout),    // ExceededTimeLimit
    (9001, Trouble::Network),   // SocketException
    (10058, Trouble::Election), // LegacyNotPrimary
    (10107, Trouble::Election), // NotWritablePrimary
    (11600, Trouble::Election), // InterruptedAtShutdown
    (11602, Trouble::Election), // InterruptedDueToReplStateChange
    (13435, Trouble::Election), // NotPrimaryNoSecondaryOk
    (13436, Trouble::Election), // NotPrimaryOrSecondary
    (388, Trouble::Overload),   // TransactionTooLargeForCache: a document of 16 MiB under cache pressure (RAN on 6.0.5)
    (12586, Trouble::Other),    // BackgroundOperationInProgressForDatabase: an index build of ours
    (12587, Trouble::Other),    // BackgroundOperationInProgressForNamespace: as above (RAN on 6.0.5, on collMod)
    (70, Trouble::Other),       // ShardNotFound: of a router that does not know yet that a shard has left (RAN on 6.0.5)
    (112, Trouble::Overload),   // WriteConflict
    (46, Trouble::Other),       // LockBusy: of a router, while somebody else moves or changes a collection
    (63, Trouble::Other),       // StaleShardVersion: of a router that does not know yet where a chunk is
    (117, Trouble::Other),      // ConflictingOperationInProgress: as LockBusy
    (133, Trouble::Election),   // FailedToSatisfyReadPreference: a shard without a primary (RAN on 6.0.5)
    (150, Trouble::Other),      // StaleEpoch: a router that gave up following a collection
    (239, Trouble::Other),      // SnapshotTooOld: the reader opens again at a newer time
    (246, Trouble::Other),      // SnapshotUnavailable: as above
    (249, Trouble::Other),      // StaleDbVersion: as StaleShardVersion, of a database
    (250, Trouble::Other),      // StaleChunkHistory: as SnapshotTooOld, of where chunks were (RAN on 6.0.5)
    (319, Trouble::Other),      // MovePrimaryInProgress: of writes to a database that is being moved to another shard (RAN on 6.0.5)
    (13388, Trouble::Other),    // StaleConfig: as StaleShardVersion
];

/// The place in the oplog is gone: ChangeStreamHistoryLost, CappedPositionLost, ChangeStreamFatalError,
/// and InvalidResumeToken (a token of another cluster).
const LOST: [i32; 4] = [286, 136, 280, 260];

const UNAUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;

const RETRY_LABELS: [(&str, Trouble); 4] = [
    ("SystemOverloadedError", Trouble::Overload),
    ("RetryableWriteError", Trouble::Other),
    ("TransientTransactionError", Trouble::Other),
    ("ResumableChangeStreamError", Trouble::Other),
];

fn transient(code: i32) -> Option<Trouble> {
    TRANSIENT.iter().find(|(c, _)| *c == code).map(|(_, why)| *why)
}

/// What a driver error means. `doing` reads on after "while": "listing collections".
#[must_use]
pub fn classify(side: Side, doing: &str, error: mongodb::error::Error) -> Error {
    let doing = doing.to_owned();
    if matches!(*error.kind, ErrorKind::Shutdown) {
        return Error::Interrupted;
    }
    if matches!(*error.kind, ErrorKind::Authentication { .. }) || code_of(&error) == Some(AUTHENTICATION_FAILED) {
        return Error::BadCredentials { side, source: quiet(error) };
    }
    // A client that cannot authenticate shows as a pool that never becomes ready; only the text inside says why.
    // The wording is the driver's own (`driver/src/error.rs`, `ErrorKind::Authentication`), pinned by a test on a real server.
    if let ErrorKind::ServerSelection { message, .. } = &*error.kind {
        if message.contains("SCRAM failure") || message.contains("Authentication failed") {
            return Error::BadCredentials { side, source: quiet(error) };
        }
        return Error::Unreachable { side, doing, why: Trouble::Election, source: quiet(error) };
    }
    match code_of(&error) {
        Some(UNAUTHORIZED) => return Error::Forbidden { side, doing, source: quiet(error) },
        Some(code) if LOST.contains(&code) => return Error::PositionLost { wanted: ClusterTime::default(), oldest: None },
        _ => {}
    }
    if let Some(why) = code_of(&error).and_then(transient) {
        return Error::Unreachable { side, doing, why, source: quiet(error) };
    }
    if let Some((_, why)) = RETRY_LABELS.iter().find(|(label, _)| error.contains_label(label)) {
        return Error::Unreachable { side, doing, why: *why, source: quiet(error) };
    }
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::DnsResolve { .. } => {
            Error::Unreachable { side, doing, why: Trouble::Network, source: quiet(error) }
        }
        ErrorKind::InvalidArgument { message, .. } => Error::BadConfig {
            field: format!("--{side}"),
            problem: format!("is no usable connection string: {message}"),
            hint: Some("its parts are `mongodb://` or `mongodb+srv://`, then `user:password@`, the hosts, and `/?replicaSet=NAME`".into()),
        },
        ErrorKind::InvalidTlsConfig { message, .. } => Error::BadConfig {
            field: format!("--{side}"),
            problem: format!("has TLS options that do not work: {message}"),
            hint: Some("check `tlsCAFile` and `tlsCertificateKeyFile`: both are PEM files on this machine".into()),
        },
        _ => Error::Refused { side, doing, code: code_of(&error).unwrap_or(0), source: quiet(error) },
    }
}

/// What an error code inside an otherwise good reply means (`writeErrors`, `writeConcernError`).
#[must_use]
pub fn refused_by_code(side: Side, doing: &str, code: i32, message: &str) -> Error {
    let (doing, source) = (doing.to_owned(), Box::new(Quiet(format!("{message} (code {code})"))));
    if let Some(why) = transient(code) {
        Error::Unreachable { side, doing, why, source }
    } else if code == UNAUTHORIZED {
        Error::Forbidden { side, doing, source }
    } else {
        Error::Refused { side, doing, code, source }
    }
}

fn code_of(error: &mongodb::error::Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(e) => Some(e.code),
        ErrorKind::Write(WriteFailure::WriteError(e)) => Some(e.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(e)) => Some(e.code),
        _ => None,
    }
}

/// A cause in words, without data: the driver prints the server's whole reply, and the server puts the refused
/// command (code 13) or the offending key (code 11000) behind the first brace of its message.
fn quiet(error: mongodb::error::Error) -> Box<Quiet> {
    let text = match &*error.kind {
        ErrorKind::Command(e) => format!("{} (code {}, {})", without_data(&e.message), e.code, e.code_name),
        // Labels in any order, and fields that say nothing.
        kind @ ErrorKind::ServerSelection { .. } => without_labels(&kind.to_string()),
        ErrorKind::Write(_) | ErrorKind::InsertMany(_) | ErrorKind::BulkWrite(_) => "the server refused a write".to_owned(),
        kind => kind.to_string(),
    };
    Box::new(Quiet(text))
}

fn without_data(message: &str) -> &str {
    let cut = message.find(['{', '[']).unwrap_or(message.len());
    message[..cut].trim_end().trim_end_matches(" to execute command")
}

fn without_labels(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, labels)) = rest.split_once(", labels: {") {
        kept.push_str(before);
        let behind = labels.split_once('}').map_or("", |(_, behind)| behind);
        rest = behind.strip_prefix(", source: None").unwrap_or(behind);
        rest = rest.strip_prefix(", server response: None").unwrap_or(rest);
    }
    kept + rest
}

/// A cause in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Quiet(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Remedy;

    #[test]
    fn what_the_server_quotes_is_cut_off() {
        let refused = "not authorized on admin to execute command { insert: \"c\", documents: [ { name: \"x\" } ] }";
        assert_eq!(without_data(refused), "not authorized on admin");
        assert_eq!(
            without_data("E11000 duplicate key error collection: a.b index: _id_ dup key: { _id: 1 }"),
            "E11000 duplicate key error collection: a.b index: _id_ dup key:"
        );
        let selection = "No available servers. { Error: refused, labels: {\"A\", \"B\"}, source: None, server response: None }, 2";
        assert_eq!(without_labels(selection), "No available servers. { Error: refused }, 2");
    }

    #[test]
    fn lost_is_never_transient() {
        assert!(LOST.iter().all(|code| transient(*code).is_none()));
    }

    #[test]
    fn every_code_has_its_remedy() {
        for (code, remedy) in
            [(10107, Remedy::Retry), (189, Remedy::Retry), (13, Remedy::Operate), (121, Remedy::Operate), (0, Remedy::Operate)]
        {
            assert_eq!(refused_by_code(Side::Target, "testing", code, "no").remedy(), remedy, "{code}");
        }
    }

    #[test]
    fn network_errors_are_retried() {
        let io = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "cut");
        assert_eq!(classify(Side::Source, "testing", io.into()).remedy(), Remedy::Retry);
    }
}
