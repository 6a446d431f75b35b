//! The body of mongosync's `start`. What would change which data arrives is taken or refused, never passed over.

use crate::observe::control::StartOrder;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The body, as far as it means something here.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StartBody {
    /// `cluster0`.
    source: Option<String>,
    /// `cluster1`.
    destination: Option<String>,
    /// Where these are given, they must be what the process was started with.
    include_namespaces: Option<Vec<NamespaceFilter>>,
    exclude_namespaces: Option<Vec<NamespaceFilter>>,
    /// `afterDataCopy` or `beforeDataCopy`.
    build_indexes: Option<String>,
    /// `"sourceAndDestination"` or true; `"destinationOnly"`, `"none"` or false: then the source is not fenced.
    #[schema(value_type = Option<Object>)]
    enable_user_write_blocking: Option<Value>,
    verification: Option<VerificationBody>,
    reversible: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerificationBody {
    enabled: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NamespaceFilter {
    #[schema(value_type = Option<Object>)]
    database: Option<Value>,
    collections: Option<Vec<String>>,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

/// Options that only tune mongosync's own ways.
const TUNING: [&str; 5] = ["detectRandomId", "copyInNaturalOrder", "preExistingDestinationData", "skipDiskSpaceCheck", "disableTelemetry"];

/// What a start comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Start {
    pub order: StartOrder,
    /// The runbook stops the writers itself.
    pub writes_stopped: bool,
    pub warnings: Vec<String>,
}

impl StartBody {
    /// # Errors
    /// What cannot be done, with what to do instead.
    pub(super) fn read(self, include: &[String], exclude: &[String]) -> Result<Start, String> {
        let mut start = Start::default();
        for (field, given, wanted) in [("source", &self.source, "cluster0"), ("destination", &self.destination, "cluster1")] {
            match given.as_deref() {
                None => return Err(format!("`{field}` is missing: it is `{wanted}`")),
                Some(name) if name != wanted => {
                    return Err(format!("`{field}` is `{wanted}`, not `{name}`: the direction is that of --source and --target"));
                }
                Some(_) => {}
            }
        }
        same("includeNamespaces", self.include_namespaces, include, "--include")?;
        same("excludeNamespaces", self.exclude_namespaces, exclude, "--exclude")?;
        start.order.indexes_before_data = match self.build_indexes.as_deref() {
            None => None,
            Some("afterDataCopy") => Some(false),
            Some("beforeDataCopy") => Some(true),
            Some(other) => {
                return Err(format!("`buildIndexes` is `afterDataCopy` or `beforeDataCopy`, not `{other}`: all indexes are built"));
            }
        };
        start.writes_stopped = match self.enable_user_write_blocking {
            None | Some(Value::Bool(true)) => false,
            Some(Value::Bool(false)) => true,
            Some(Value::String(word)) if word == "sourceAndDestination" => false,
            Some(Value::String(word)) if matches!(word.as_str(), "none" | "destinationOnly") => true,
            Some(_) => return Err("`enableUserWriteBlocking` is `sourceAndDestination`, `destinationOnly` or `none`".to_owned()),
        };
        start.order.verification = self.verification.and_then(|verification| verification.enabled);
        // Any migration can be; nothing has to be prepared for it.
        let _ = self.reversible;
        for name in self.other.keys() {
            if !TUNING.contains(&name.as_str()) {
                return Err(format!("`{name}` is not supported"));
            }
            start.warnings.push(format!("`{name}` of the start request has no effect on mongoferry"));
        }
        Ok(start)
    }
}

/// A filter may not change between runs, so it is an option of the process; a request may only repeat it.
fn same(field: &str, filters: Option<Vec<NamespaceFilter>>, configured: &[String], flag: &str) -> Result<(), String> {
    let Some(filters) = filters else { return Ok(()) };
    let mut wanted = Vec::new();
    for filter in filters {
        if let Some(unknown) = filter.other.keys().next() {
            return Err(format!("`{field}.{unknown}` is not supported: give `{flag} '/…/'` to `mongoferry run --hold`"));
        }
        let databases = match filter.database {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => return Err(format!("`{field}.database` is a name")),
        };
        for database in databases {
            match &filter.collections {
                None => wanted.push(database),
                Some(collections) => wanted.extend(collections.iter().map(|collection| format!("{database}.{collection}"))),
            }
        }
    }
    let (mut a, mut b) = (wanted.clone(), configured.to_vec());
    a.sort();
    b.sort();
    if a == b {
        return Ok(());
    }
    let flags: String = wanted.iter().map(|name| format!(" {flag} '{name}'")).collect();
    Err(format!("`{field}` is not what this process was started with: start it as `mongoferry run --hold{flags}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(more: Value) -> Result<Start, String> {
        let mut body = json!({"source": "cluster0", "destination": "cluster1"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<StartBody>(body).map_err(|e| e.to_string())?.read(&["shop.orders".into(), "crm".into()], &[])
    }

    #[test]
    fn the_usual_bodies_are_taken() {
        assert_eq!(read(json!({})), Ok(Start::default()));
        let full = read(json!({
            "reversible": true, "enableUserWriteBlocking": "sourceAndDestination", "buildIndexes": "beforeDataCopy",
            "verification": {"enabled": false},
            "includeNamespaces": [{"database": "crm"}, {"database": "shop", "collections": ["orders"]}],
        }))
        .unwrap();
        assert_eq!(full.order, StartOrder { indexes_before_data: Some(true), verification: Some(false) });
        assert!(!full.writes_stopped && full.warnings.is_empty());
        assert!(read(json!({"enableUserWriteBlocking": "none"})).unwrap().writes_stopped);
        assert!(read(json!({"enableUserWriteBlocking": false})).unwrap().writes_stopped);
        assert_eq!(read(json!({"detectRandomId": true})).unwrap().warnings.len(), 1);
    }

    #[test]
    fn what_would_bring_other_data_is_refused() {
        for body in [
            json!({"source": "cluster1"}),
            json!({"destination": null}),
            json!({"includeNamespaces": [{"database": "other"}]}),
            json!({"excludeNamespaces": [{"database": "crm"}]}),
            json!({"includeNamespaces": [{"databaseRegex": {"pattern": "^a"}}]}),
            json!({"buildIndexes": "never"}),
            json!({"sharding": {"shardingEntries": []}}),
            json!({"namespaceRemap": []}),
            json!({"enableUserWriteBlocking": 3}),
            json!({"verification": {"mode": "x"}}),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        let told = read(json!({"includeNamespaces": [{"database": "a", "collections": ["b", "c"]}]})).unwrap_err();
        assert!(told.ends_with("`mongoferry run --hold --include 'a.b' --include 'a.c'`"), "{told}");
    }
}
