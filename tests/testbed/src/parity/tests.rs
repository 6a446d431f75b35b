use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};

use super::*;
use crate::testing::server_slot;
use crate::{Options, ReplicaSet, end};

/// Fills a cluster with a bit of everything; both sides get the same.
async fn fill(client: &Client) {
    let database = client.database("shop");
    let things = database.collection::<Document>("things");
    let documents = (0..6000).map(|n| {
        let id: Bson = match n % 4 {
            0 => Bson::Int32(n),
            1 => Bson::Int64(i64::from(n)),
            2 => format!("thing {n}").into(),
            _ => ObjectId::from_bytes([n as u8, (n >> 8) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).into(),
        };
        doc! { "_id": id, "n": n, "tags": ["a", "b"], "nested": { "x": 1, "y": 2 } }
    });
    things.insert_many(documents).await.unwrap();
    let index = doc! { "createIndexes": "things", "indexes": [{ "key": { "n": 1 }, "name": "by n", "unique": true }] };
    database.run_command(index).await.unwrap();
    let capped = doc! { "create": "log", "capped": true, "size": 65536 };
    database.run_command(capped).await.unwrap();
    let series = doc! { "create": "weather", "timeseries": { "timeField": "at", "metaField": "place" } };
    database.run_command(series).await.unwrap();
    let at = mongodb::bson::DateTime::from_millis(1_700_000_000_000);
    // Buckets get an `_id` of their own on each cluster, so they are written as such.
    let bucket = doc! {
        "_id": ObjectId::from_bytes([0x65; 12]),
        "control": { "version": 1, "min": { "at": at, "t": 1 }, "max": { "at": at, "t": 1 } },
        "meta": "here",
        "data": { "at": { "0": at }, "t": { "0": 1 } },
    };
    database.collection::<Document>("system.buckets.weather").insert_one(bucket).await.unwrap();
    database.run_command(doc! { "create": "view", "viewOn": "things", "pipeline": [] }).await.unwrap();
    database.run_command(doc! { "create": "empty" }).await.unwrap();
}

/// Runs commands on the target; answers the differences that this makes.
async fn after(clients: (&Client, &Client), database: &str, commands: impl IntoIterator<Item = Document>) -> Vec<(Kind, Option<String>)> {
    for command in commands {
        clients.1.database(database).run_command(command).await.unwrap();
    }
    let report = compare(clients.0, clients.1, everything).await.unwrap();
    let listed = report.namespaces.iter().map(|namespace| namespace.differences).sum::<u64>();
    assert_eq!(listed as usize, report.differences.len());
    report.differences.into_iter().map(|difference| (difference.kind, difference.id)).collect()
}

fn set(id: impl Into<Bson>, update: impl Into<Bson>) -> Document {
    doc! { "update": "things", "updates": [{ "q": { "_id": id.into() }, "u": update.into() }] }
}

#[tokio::test]
async fn every_kind_of_difference_is_found_and_equal_is_equal() {
    let _slot = server_slot().await;
    let (one, two) =
        tokio::try_join!(ReplicaSet::start(Options::default()), ReplicaSet::start(Options { name: "rs1".into(), ..Options::default() }))
            .unwrap();
    let (source, target) = (one.client().await.unwrap(), two.client().await.unwrap());
    tokio::join!(fill(&source), fill(&target));
    let both = (&source, &target);

    let report = compare(&source, &target, everything).await.unwrap();
    assert_eq!(report.differences, []);
    assert!(report.is_equal());
    assert_eq!(report.documents(), (6001, 6001));
    let names: Vec<_> = report.namespaces.iter().map(|namespace| namespace.namespace.as_str()).collect();
    let expected = ["shop.empty", "shop.log", "shop.system.buckets.weather", "shop.things", "shop.view", "shop.weather"];
    assert_eq!(names, expected);

    let four = Some(r#"{"$numberInt":"4"}"#.to_string());
    let changed = [(Kind::ChangedDocument, four.clone())];
    // A changed value, a number of another width, another order of fields, at the top and below.
    assert_eq!(after(both, "shop", [set(4, doc! { "$set": { "nested.x": 9 } })]).await, changed);
    assert_eq!(after(both, "shop", [set(4, doc! { "$set": { "nested.x": 1_i64 } })]).await, changed);
    assert_eq!(after(both, "shop", [set(4, doc! { "$set": { "nested.x": 1.0 } })]).await, changed);
    let swapped = doc! { "n": 4, "nested": { "x": 1, "y": 2 }, "tags": ["a", "b"] };
    assert_eq!(after(both, "shop", [set(4, swapped)]).await, changed);
    let swapped = doc! { "n": 4, "tags": ["a", "b"], "nested": { "y": 2, "x": 1 } };
    assert_eq!(after(both, "shop", [set(4, swapped)]).await, changed);
    let healed = doc! { "n": 4, "tags": ["a", "b"], "nested": { "x": 1, "y": 2 } };
    assert_eq!(after(both, "shop", [set(4, healed.clone())]).await, []);

    let delete = doc! { "delete": "things", "deletes": [{ "q": { "_id": 4 }, "limit": 1 }] };
    assert_eq!(after(both, "shop", [delete]).await, [(Kind::MissingDocument, four.clone())]);
    // An `_id` of another width is another document.
    let mut insert = doc! { "_id": 4_i64 };
    insert.extend(healed.clone());
    let found = after(both, "shop", [doc! { "insert": "things", "documents": [insert] }]).await;
    let long = Some(r#"{"$numberLong":"4"}"#.to_string());
    assert_eq!(found, [(Kind::MissingDocument, four.clone()), (Kind::ExtraDocument, long)]);
    let delete = doc! { "delete": "things", "deletes": [{ "q": { "_id": 4 }, "limit": 1 }] };
    let mut insert = doc! { "_id": 4 };
    insert.extend(healed);
    assert_eq!(after(both, "shop", [delete, doc! { "insert": "things", "documents": [insert] }]).await, []);

    let only = |kind| [(kind, None)];
    let remove = doc! { "dropIndexes": "things", "index": "by n" };
    assert_eq!(after(both, "shop", [remove.clone()]).await, only(Kind::MissingIndex));
    let index = |index: Document| doc! { "createIndexes": "things", "indexes": [index] };
    let plain = index(doc! { "key": { "n": 1 }, "name": "by n" });
    assert_eq!(after(both, "shop", [plain]).await, only(Kind::ChangedIndex));
    let unique = index(doc! { "key": { "n": 1 }, "name": "by n", "unique": true });
    assert_eq!(after(both, "shop", [remove, unique]).await, []);
    let extra = index(doc! { "key": { "tags": 1 }, "name": "by tag" });
    assert_eq!(after(both, "shop", [extra]).await, only(Kind::ExtraIndex));
    assert_eq!(after(both, "shop", [doc! { "dropIndexes": "things", "index": "by tag" }]).await, []);

    let strict = doc! { "collMod": "things", "validationLevel": "moderate", "validator": { "n": { "$gte": 0 } } };
    let kinds = after(both, "shop", [strict]).await;
    assert!(!kinds.is_empty() && kinds.iter().all(|(kind, _)| *kind == Kind::ChangedOptions), "{kinds:?}");
    // An emptied validator stays in the options, so the source gets the same.
    let strict = doc! { "collMod": "things", "validationLevel": "moderate", "validator": { "n": { "$gte": 0 } } };
    source.database("shop").run_command(strict).await.unwrap();
    let view = doc! { "collMod": "view", "viewOn": "things", "pipeline": [{ "$match": { "n": 1 } }] };
    assert_eq!(after(both, "shop", [view]).await, only(Kind::ChangedOptions));
    assert_eq!(after(both, "shop", [doc! { "drop": "view" }]).await, only(Kind::MissingCollection));
    assert_eq!(after(both, "shop", [doc! { "create": "view", "viewOn": "things", "pipeline": [] }]).await, []);

    // The same documents, in another order than on the source.
    for n in [1, 2] {
        source.database("shop").run_command(doc! { "insert": "log", "documents": [{ "_id": n }] }).await.unwrap();
    }
    let turned = [2, 1].map(|n| doc! { "insert": "log", "documents": [{ "_id": n }] });
    let first = Some(r#"{"$numberInt":"1"}"#.to_string());
    assert_eq!(after(both, "shop", turned).await, [(Kind::ChangedOrder, first)]);
    for side in [&source, &target] {
        side.database("shop").run_command(doc! { "delete": "log", "deletes": [{ "q": {}, "limit": 0 }] }).await.unwrap();
    }

    assert_eq!(after(both, "shop", [doc! { "create": "more" }]).await, only(Kind::ExtraCollection));
    assert_eq!(after(both, "shop", [doc! { "drop": "more" }]).await, []);
    let found = after(both, "other", [doc! { "insert": "more", "documents": [{ "_id": 4 }] }]).await;
    assert_eq!(found, [(Kind::ExtraCollection, None), (Kind::ExtraDocument, four)]);
    target.database("other").drop().await.unwrap();

    let renamed = doc! { "renameCollection": "shop.empty", "to": "mall.blank" };
    target.database("admin").run_command(renamed).await.unwrap();
    let pick = |database: &str, collection: &str| match collection {
        "empty" => Some(("mall".to_string(), "blank".to_string())),
        _ => everything(database, collection),
    };
    assert_eq!(compare(&source, &target, pick).await.unwrap().differences, []);

    // A cursor that dies under the reader: no verdict at all.
    for (side, failure) in [(&one, doc! { "errorCode": 43 }), (&two, doc! { "closeConnection": true })] {
        let mut data = doc! { "failCommands": ["getMore"], "appName": "testbed" };
        data.extend(failure);
        let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
        side.admin(0, command).await.unwrap();
        assert!(compare(&source, &target, pick).await.is_err());
        assert!(compare(&source, &target, pick).await.unwrap().is_equal());
    }

    end(source).await;
    end(target).await;
}
