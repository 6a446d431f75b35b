//! The comparison on real servers.

mod real {
    use bson::{Bson, Document, doc};
    use mongodb::Client;
    use mongoferry::{
        model::{Selection, Side},
        mongo::Cluster,
        observe::Metrics,
        retry::Retry,
        source::mongo::MongoSource,
        verify::{DifferenceKind, Report, Settings, growing_pause, structure_only, verify},
    };
    use std::{sync::Arc, time::Duration};
    use testbed::{DataSet, Options, ReplicaSet, fill};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    struct Two {
        sets: [ReplicaSet; 2],
        clients: [Client; 2],
        readers: [MongoSource; 2],
        settings: Settings,
    }

    impl Two {
        async fn start() -> Self {
            let start = |name: &str| ReplicaSet::start(Options { name: name.into(), ..Options::default() });
            let (a, b) = tokio::join!(start("a"), start("b"));
            let sets = [a.unwrap(), b.unwrap()];
            let stop = CancellationToken::new();
            let retry = Retry::new(Duration::from_secs(20), stop, |_| {});
            let mut readers = Vec::new();
            for (side, set) in [Side::Source, Side::Target].into_iter().zip(&sets) {
                let cluster = Cluster::connect(side, &set.uri().into(), 16, retry.clone(), None).await.unwrap();
                readers.push(MongoSource::new(cluster, "primary").unwrap());
            }
            let clients = [sets[0].client().await.unwrap(), sets[1].client().await.unwrap()];
            // Small ones, so that there are many batches and partitions.
            let settings = Settings { partition_bytes: 100_000, batch_documents: 37, ..Settings::new(retry) };
            Self { sets, clients, readers: readers.try_into().unwrap(), settings }
        }
        async fn both(&self, command: Document) {
            for side in 0..2 {
                self.on(side, command.clone()).await;
            }
        }
        async fn on(&self, side: usize, command: Document) {
            let reply = self.clients[side].database("v").run_command(command.clone()).await.unwrap();
            assert!(!reply.contains_key("writeErrors"), "{command}: {reply}");
        }
        async fn on_target(&self, command: Document) {
            self.on(1, command).await;
        }
        async fn verify(&self, selection: &Selection) -> Report {
            let metrics = Arc::new(Metrics::new());
            let stop = CancellationToken::new();
            let pause = growing_pause(Duration::from_millis(20));
            let [a, b] = &self.readers;
            let report = verify(a, b, selection, &self.settings, &metrics, pause, &stop).await.unwrap();
            assert_eq!(metrics.parity_age_seconds().is_some(), report.equal);
            report
        }
        async fn end(self) {
            for reader in self.readers {
                reader.cluster().clone().close().await;
            }
            for client in self.clients {
                client.shutdown().immediate(true).await;
            }
            drop(self.sets);
        }
    }

    fn told(report: &Report) -> Vec<String> {
        let mut all: Vec<_> = report
            .differences
            .iter()
            .map(|d| format!("{} {} {} {}", d.ns.coll(), d.kind.label(), d.id.as_deref().unwrap_or("-"), d.detail))
            .collect();
        all.sort();
        all
    }

    fn mixed() -> Vec<Bson> {
        vec![
            Bson::MinKey,
            Bson::Null,
            Bson::Double(f64::NAN),
            Bson::Double(f64::NEG_INFINITY),
            Bson::Int32(1),
            Bson::Int64(2),
            Bson::Double(3.5),
            Bson::Decimal128("4.25".parse().unwrap()),
            Bson::String("x".into()),
            Bson::Document(doc! {}),
            Bson::Document(doc! {"a": 1, "b": "c"}),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![] }),
            Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
            Bson::Boolean(false),
            Bson::DateTime(bson::DateTime::from_millis(5)),
            Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }),
            Bson::MaxKey,
        ]
    }

    async fn prepare(two: &Two) {
        let numbered: Vec<_> = (0..100).map(|n| doc! {"_id": n, "a": n, "b": "text"}).collect();
        for coll in ["byte", "type", "order", "missing", "extra", "idtype", "first_last", "all_missing", "lost"] {
            two.both(doc! {"insert": coll, "documents": numbered.clone()}).await;
        }
        let ids: Vec<_> = mixed().into_iter().map(|id| doc! {"_id": id, "v": 1}).collect();
        two.both(doc! {"insert": "mixed", "documents": ids.clone()}).await;
        two.both(doc! {"insert": "mixed_missing", "documents": ids}).await;
        two.both(doc! {"create": "all_extra"}).await;
        two.both(doc! {"create": "collated", "collation": {"locale": "en", "strength": 2}}).await;
        two.both(doc! {"insert": "collated", "documents": [{"_id": "a"}, {"_id": "K"}, {"_id": "z"}]}).await;
        two.both(doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}}).await;
        two.both(doc! {"insert": "clustered", "documents": numbered}).await;
        two.both(doc! {"create": "capped", "capped": true, "size": 100_000}).await;
        two.both(doc! {"insert": "capped", "documents": [{"_id": 2}, {"_id": 1}]}).await;
        two.both(doc! {"create": "options", "validator": {"a": {"$gt": 1}}}).await;
        two.both(doc! {"createIndexes": "byte", "indexes": [{"key": {"a": 1}, "name": "a_1", "sparse": true}, {"key": {"b": 1, "a": 1}, "name": "gone"}]}).await;
        two.both(doc! {"create": "view", "viewOn": "byte", "pipeline": [{"$match": {"a": 1}}]}).await;
        two.both(doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn equal_sides_are_equal_and_every_difference_is_found() {
        let two = Two::start().await;
        let everything = Selection::default();
        prepare(&two).await;
        let report = two.verify(&everything).await;
        assert!(report.equal, "{:#?}", report.differences);
        assert_eq!(report.documents, 9 * 100 + 2 * mixed().len() as u64 + 3 + 100 + 2);
        let set = |coll: &str, id: Bson, to: Document| doc! {"update": coll, "updates": [{"q": {"_id": id}, "u": to}]};
        let delete = |coll: &str, id: Bson| doc! {"delete": coll, "deletes": [{"q": {"_id": id}, "limit": 1}]};
        let insert = |coll: &str, doc: Document| doc! {"insert": coll, "documents": [doc]};
        for command in [
            set("byte", 50.into(), doc! {"a": 50, "b": "texT"}),
            set("type", 36.into(), doc! {"a": 36_i64, "b": "text"}),
            set("order", 37.into(), doc! {"b": "text", "a": 37}),
            delete("missing", 0.into()),
            delete("missing", 73.into()),
            insert("extra", doc! {"_id": 40.5}),
            delete("idtype", 60.into()),
            insert("idtype", doc! {"_id": 60_i64, "a": 60, "b": "text"}),
            insert("first_last", doc! {"_id": Bson::MinKey}),
            insert("first_last", doc! {"_id": Bson::MaxKey}),
            doc! {"delete": "all_missing", "deletes": [{"q": {}, "limit": 0}]},
            doc! {"insert": "all_extra", "documents": (0..50).map(|n| doc! {"_id": n}).collect::<Vec<_>>()},
            delete("collated", "K".into()),
            insert("collated", doc! {"_id": "k"}),
            set("clustered", 37.into(), doc! {"a": 0, "b": "text"}),
            delete("mixed_missing", Bson::Double(f64::NAN)),
            delete("mixed_missing", Bson::MaxKey),
            delete("mixed_missing", Bson::MinKey),
            delete("mixed_missing", Bson::Null),
            set("mixed", Bson::MaxKey, doc! {"v": 2}),
            set("mixed", Bson::Document(doc! {}), doc! {"v": 1_i64}),
            doc! {"collMod": "options", "validator": {"a": {"$gt": 2}}},
            doc! {"dropIndexes": "byte", "index": "a_1"},
            doc! {"createIndexes": "byte", "indexes": [{"key": {"a": 1}, "name": "a_1"}, {"key": {"z": 1}, "name": "more"}]},
            doc! {"dropIndexes": "byte", "index": "gone"},
            doc! {"collMod": "view", "viewOn": "byte", "pipeline": [{"$match": {"a": 2}}]},
            doc! {"create": "surplus"},
            doc! {"drop": "lost"},
        ] {
            two.on_target(command).await;
        }
        let report = two.verify(&everything).await;
        assert!(!report.equal && !report.truncated);
        let bulk = |coll: &str| report.differences.iter().filter(|d| d.ns.coll() == coll).map(|d| d.kind).collect::<Vec<_>>();
        assert_eq!(bulk("all_missing"), [DifferenceKind::Missing; 100]);
        assert_eq!(bulk("all_extra"), [DifferenceKind::Extra; 50]);
        let few: Vec<_> = told(&report).into_iter().filter(|t| !t.starts_with("all_")).collect();
        let wanted = [
            "byte different 50 value of `b` differs",
            "byte index - index `a_1`: `sparse` missing on target",
            "byte index - index `gone` missing on target",
            "byte index - index `more` on target only",
            "clustered different 37 value of `a` differs",
            "collated different \"K\" value of `_id` differs",
            "extra extra 40.5 not on the source",
            "first_last extra {\"$maxKey\":1} not on the source",
            "first_last extra {\"$minKey\":1} not on the source",
            "idtype different 60 type of `_id` differs",
            "lost collection_missing - no `v.lost` on the target",
            "missing missing 0 not on the target",
            "missing missing 73 not on the target",
            "mixed different {\"$maxKey\":1} value of `v` differs",
            "mixed different {} type of `v` differs",
            "mixed_missing missing null not on the target",
            "mixed_missing missing {\"$maxKey\":1} not on the target",
            "mixed_missing missing {\"$minKey\":1} not on the target",
            "mixed_missing missing {\"$numberDouble\":\"NaN\"} not on the target",
            "options options - option `validator` differs",
            "order different 37 field order differs",
            "surplus collection_extra - no `v.surplus` on the source",
            "type different 36 type of `a` differs",
            "view options - option `pipeline` differs",
        ];
        assert_eq!(few, wanted, "{few:#?}");
        let one = Selection::new(&["v.capped".into()], &[], &[]).unwrap();
        assert!(two.verify(&one).await.equal, "what is not selected does not count");
        let [a, b] = &two.readers;
        let counted = structure_only(a, b, &everything, &two.settings, &CancellationToken::new()).await.unwrap();
        let told = told(&counted);
        assert!(told.contains(&"missing missing - 100 documents on the source, 98 on the target".to_owned()), "{told:#?}");
        assert!(told.contains(&"view options - option `pipeline` differs".to_owned()), "{told:#?}");
        two.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_on_its_way_is_no_difference_and_what_never_rests_is_told() {
        let two = Two::start().await;
        let numbered: Vec<_> = (0..100).map(|n| doc! {"_id": n}).collect();
        two.both(doc! {"insert": "a", "documents": numbered.clone()}).await;
        let write = |coll: &'static str, n: i32| doc! {"update": coll, "updates": [{"q": {"_id": 5}, "u": {"n": n}, "upsert": true}]};
        two.on(0, write("a", 1)).await;
        two.on(0, doc! {"insert": "late", "documents": numbered}).await;
        let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
        let [a, b] = &two.readers;
        // The ferry brings what is late when it is waited for, once.
        let target = two.clients[1].database("v");
        let settle = |_| {
            let (target, command) = (target.clone(), write("a", 1));
            async move {
                target.run_command(command).await.unwrap();
                let late: Vec<_> = (0..100).map(|n| doc! {"_id": n}).collect();
                target.run_command(doc! {"insert": "late", "documents": late, "ordered": false}).await.unwrap();
                Ok(())
            }
        };
        let live = Settings { live: true, generations: 4, ..two.settings.clone() };
        let report = verify(a, b, &Selection::default(), &live, &metrics, settle, &stop).await.unwrap();
        assert!(report.equal, "{:#?}", report.differences);
        assert_eq!(report.documents, 200);
        // One document that changes on the source at every look, and never arrives.
        two.on(0, write("a", 2)).await;
        let (source, times) = (two.clients[0].database("v"), std::sync::atomic::AtomicI32::new(3));
        let settle = |_| {
            let (source, command) = (source.clone(), write("a", times.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
            async move {
                source.run_command(command).await.unwrap();
                Ok(())
            }
        };
        let report = verify(a, b, &Selection::default(), &live, &metrics, settle, &stop).await.unwrap();
        assert_eq!(told(&report), ["a unsettled 5 changed on the source each time, 4 times"]);
        stop.cancel();
        let pause = growing_pause(Duration::ZERO);
        assert!(verify(a, b, &Selection::default(), &live, &metrics, pause, &stop).await.is_err(), "no verdict when stopped");
        two.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reads_both_sides_once() {
        let mut two = Two::start().await;
        let set = DataSet { documents: 60_000, approx_bytes: 1_000, ..DataSet::default() };
        let (a, b) = tokio::join!(fill(&two.clients[0], set.clone()), fill(&two.clients[1], set));
        let (a, _) = (a.unwrap(), b.unwrap());
        two.settings.partition_bytes = 8 << 20;
        two.settings.batch_documents = 1_000;
        let started = Instant::now();
        let report = two.verify(&Selection::default()).await;
        let took = started.elapsed().as_secs_f64();
        println!("verified {} documents, {:.1} MB/s of the source", report.documents, report.bytes as f64 / took / 1e6);
        assert!(report.equal, "{:#?}", report.differences);
        assert_eq!((report.documents, report.bytes), (a.documents, a.bytes));
        let started = Instant::now();
        tokio::join!(read_all(&two.readers[0]), read_all(&two.readers[1]));
        println!("reading both sides once: {:.1} MB/s of the source", report.bytes as f64 / started.elapsed().as_secs_f64() / 1e6);
        two.end().await;
    }

    /// Reads a whole cluster, two collections at a time, and does nothing with it.
    async fn read_all(reader: &MongoSource) {
        use mongoferry::source::{CollectionRef, Found, Scan, ScanRange, Source};
        let after = reader.operation_time().await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for info in reader.collections().await.unwrap() {
            let (reader, of) = (reader.clone(), CollectionRef { ns: info.ns.clone(), uuid: info.uuid.unwrap() });
            let range = ScanRange { from: None, max: None, after, batch_documents: 1_000, natural: false };
            tasks.spawn(async move {
                let Found::Here(mut scan) = reader.scan(&of, range).await.unwrap() else { panic!("gone") };
                while scan.next().await.unwrap().is_some() {}
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}
