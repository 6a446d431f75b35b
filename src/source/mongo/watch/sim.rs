//! The watch over random histories: a source that goes on while it is looked at, a stream that lags, crashes. What
//! comes out must leave downstream with what the source has, and never contradict itself.

use super::{
    super::token,
    Asked, Known, Living, Watched,
    eyes::{Look, Seen, Sight},
};
use crate::{
    error::Result,
    model::{
        Change, ChangeEvent, ClusterTime, CollectionInfo, CollectionKind, CollectionUuid, Ddl, DocumentKey, IndexSpec, Namespace, Position,
        ResumeToken, Selection, Write, WriteOp, raw,
    },
    source::{EventBatch, EventStream, StartAt},
};
use bson::{RawDocumentBuf, rawdoc};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

#[derive(Debug, Clone)]
struct Stored {
    ns: Namespace,
    options: RawDocumentBuf,
    indexes: BTreeMap<String, IndexSpec>,
    documents: BTreeSet<u32>,
}

/// The source: what it has now, and the events that its stream will show.
#[derive(Debug)]
struct World {
    rng: StdRng,
    now: u32,
    made: u8,
    collections: BTreeMap<CollectionUuid, Stored>,
    views: BTreeMap<Namespace, RawDocumentBuf>,
    events: Vec<ChangeEvent>,
}

type Shared = Arc<Mutex<World>>;

fn time(t: u32) -> ClusterTime {
    ClusterTime { t, i: 1 }
}

fn position(t: u32, uuid: Option<CollectionUuid>) -> Position {
    let of = uuid.map_or(String::new(), |uuid| format!("5A1004{}", uuid.to_string().to_uppercase()));
    // A post-batch token is of another type.
    let kind = if uuid.is_some() { "2C0100" } else { "29" };
    let data = format!("82{t:08X}{:08X}2B02{kind}296E{of}04", 1);
    Position { token: ResumeToken(rawdoc! {"_data": data}), time: time(t) }
}

impl World {
    fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), now: 1, made: 0, collections: BTreeMap::new(), views: BTreeMap::new(), events: Vec::new() }
    }

    fn name(&mut self) -> Namespace {
        Namespace::new(if self.rng.random_bool(0.8) { "a" } else { "b" }, &format!("n{}", self.rng.random_range(0..3)))
    }

    fn named(&self, ns: &Namespace) -> Option<CollectionUuid> {
        self.collections.iter().find(|(_, s)| s.ns == *ns).map(|(uuid, _)| *uuid)
    }

    fn tell(&mut self, uuid: Option<CollectionUuid>, change: Change) {
        self.events.push(ChangeEvent { position: position(self.now, uuid), change, bytes: 1 });
    }

    fn make(&mut self, ns: Namespace) -> CollectionUuid {
        self.made += 1;
        let uuid = CollectionUuid([self.made; 16]);
        self.collections.insert(uuid, Stored { ns, options: rawdoc! {}, indexes: BTreeMap::new(), documents: BTreeSet::new() });
        uuid
    }

    fn drop_collection(&mut self, uuid: CollectionUuid) {
        if let Some(gone) = self.collections.remove(&uuid) {
            self.tell(Some(uuid), Change::Ddl(Ddl::Drop { ns: gone.ns, uuid: None }));
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        self.now += 1;
        let ns = self.name();
        let (there, view) = (self.named(&ns), self.views.contains_key(&ns));
        match (self.rng.random_range(0..16), there) {
            (0..=5, _) if !view => {
                let uuid = there.unwrap_or_else(|| self.make(ns.clone()));
                // The creation comes first in the oplog.
                self.now += 1;
                let id = self.now;
                if let Some(stored) = self.collections.get_mut(&uuid) {
                    stored.documents.insert(id);
                }
                let id = rawdoc! {"_id": i64::from(id)};
                let Some(key) = DocumentKey::new(id.clone()) else { return };
                self.tell(Some(uuid), Change::Write(Write { ns, uuid: None, key, twins: false, op: WriteOp::Insert(id) }));
            }
            (6, None) if !view => drop(self.make(ns)),
            (7, None) if !view => drop(self.views.insert(ns, rawdoc! {"viewOn": "n0", "pipeline": [i64::from(self.now)]})),
            (8 | 9, Some(uuid)) => self.drop_collection(uuid),
            (8, None) => drop(self.views.remove(&ns)),
            (10 | 11, Some(uuid)) => {
                let to = Namespace::new(ns.db(), self.name().coll());
                if to == ns || self.views.contains_key(&to) {
                    return;
                }
                if let Some(replaced) = self.named(&to) {
                    self.collections.remove(&replaced);
                }
                if let Some(stored) = self.collections.get_mut(&uuid) {
                    stored.ns = to.clone();
                }
                self.tell(Some(uuid), Change::Ddl(Ddl::Rename { from: ns, to, uuid: None, dropped: None }));
            }
            (12 | 13, Some(uuid)) => {
                let name = format!("i{}", self.rng.random_range(0..2));
                let spec = IndexSpec(
                    rawdoc! {"name": name.as_str(), "key": {"a": self.rng.random_range(0..2)}, "hidden": self.rng.random::<bool>()},
                );
                let remove = self.rng.random_bool(0.3);
                if let Some(stored) = self.collections.get_mut(&uuid) {
                    stored.indexes.remove(&name);
                    if !remove {
                        stored.indexes.insert(name, spec);
                    }
                }
            }
            (14, Some(uuid)) => {
                let options = if self.rng.random::<bool>() {
                    rawdoc! {"validator": {"a": i64::from(self.now)}}
                } else {
                    rawdoc! {}
                };
                if let Some(stored) = self.collections.get_mut(&uuid) {
                    stored.options = options;
                }
            }
            (15, _) if view => drop(self.views.insert(ns, rawdoc! {"viewOn": "n1", "pipeline": [i64::from(self.now)]})),
            (15, _) if self.rng.random_bool(0.2) => {
                let db = ns.db().to_owned();
                let all: Vec<_> = self.collections.iter().filter(|(_, s)| s.ns.db() == db).map(|(uuid, _)| *uuid).collect();
                all.into_iter().for_each(|uuid| self.drop_collection(uuid));
                self.views.retain(|ns, _| ns.db() != db);
                self.now += 1;
                self.tell(None, Change::Ddl(Ddl::DropDatabase { db }));
            }
            _ => {}
        }
    }

    /// The first event behind a token.
    fn behind(&self, position: &Position) -> usize {
        let same = self.events.iter().position(|e| e.position.token == position.token);
        let time = token::time(&position.token.0);
        same.map_or_else(|| self.events.partition_point(|e| Some(e.position.time) < time), |at| at + 1)
    }

    /// Some things happen, perhaps.
    fn go_on(&mut self) {
        for _ in 0..self.rng.random_range(0..4) {
            self.step();
        }
    }

    fn seen(&self, db: &str) -> Vec<Seen> {
        let seen = |ns: &Namespace, uuid, kind, options: &RawDocumentBuf| Seen {
            info: CollectionInfo { ns: ns.clone(), uuid, kind, options: options.clone() },
            indexes: None,
            documents: false,
        };
        let collections = self.collections.iter().map(|(uuid, s)| seen(&s.ns, Some(*uuid), CollectionKind::Collection, &s.options));
        let views = self.views.iter().map(|(ns, options)| seen(ns, None, CollectionKind::View, options));
        collections.chain(views).filter(|s| s.info.ns.db() == db).collect()
    }
}

/// Looks at the world, which goes on between any two parts of a look until it is told to stand still.
#[derive(Clone)]
struct Watcher {
    world: Shared,
    still: bool,
}

impl Watcher {
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap();
        if !self.still {
            world.go_on();
        }
        world
    }
}

impl Sight for Watcher {
    async fn find(&self, db: &str, uuid: CollectionUuid) -> Result<Option<CollectionInfo>> {
        Ok(self.world().seen(db).into_iter().map(|s| s.info).find(|info| info.uuid == Some(uuid)))
    }

    async fn look(&mut self, number: u64, _: &Selection, known: &HashSet<CollectionUuid>, _: bool) -> Result<Look> {
        let from = time(self.world().now);
        let mut seen: Vec<Seen> = ["a", "b"].into_iter().flat_map(|db| self.world().seen(db)).collect();
        for one in &mut seen {
            let world = self.world();
            let Some((uuid, stored)) = one.info.uuid.and_then(|uuid| Some((uuid, world.collections.get(&uuid)?))) else { continue };
            one.documents = !known.contains(&uuid) && !stored.documents.is_empty();
            one.indexes = Some(stored.indexes.values().cloned().collect());
        }
        let until = time(self.world().now);
        Ok(Look { number, from, until, whole: true, seen })
    }
}

/// The stream as servers before 6.0 have it.
struct Plain {
    watcher: Watcher,
    next: usize,
    /// Where it begins; the first reply is empty.
    start: Option<u32>,
}

impl EventStream for Plain {
    async fn next(&mut self) -> Result<EventBatch> {
        tokio::task::yield_now().await;
        let mut world = self.watcher.world();
        if let Some(start) = self.start.take() {
            return Ok(EventBatch { events: vec![ChangeEvent { position: position(start, None), change: Change::Idle, bytes: 0 }] });
        }
        let left = world.events.len() - self.next;
        let most = if self.watcher.still { left } else { world.rng.random_range(0..=left) };
        let mut events = world.events[self.next..self.next + most].to_vec();
        self.next += most;
        let end = match events.last() {
            Some(last) if self.next < world.events.len() || last.position.time == time(world.now) => last.position.clone(),
            None if self.next < world.events.len() => position(world.events[self.next].position.time.t - 1, None),
            _ => position(world.now, None),
        };
        events.push(ChangeEvent { position: end, change: Change::Idle, bytes: 0 });
        Ok(EventBatch { events })
    }
}

#[derive(Debug, Clone)]
struct Copy {
    stored: Stored,
    dropped: bool,
    known_at: ClusterTime,
}

/// What the tail makes of structural changes (`tail::ddl`), with its contradictions as failures.
#[derive(Debug, Default, Clone)]
struct Downstream {
    collections: BTreeMap<CollectionUuid, Copy>,
    views: BTreeMap<Namespace, (RawDocumentBuf, bool, ClusterTime)>,
    listed_until: ClusterTime,
}

impl Downstream {
    fn named(&self, ns: &Namespace) -> Option<ClusterTime> {
        let collection = self.collections.values().find(|c| !c.dropped && c.stored.ns == *ns).map(|c| c.known_at);
        collection.or_else(|| self.views.get(ns).filter(|(_, dropped, _)| !dropped).map(|(.., at)| *at))
    }

    fn hear(&mut self, event: &ChangeEvent) {
        let at = event.position.time;
        let listed_later = at <= self.listed_until;
        match &event.change {
            Change::Idle => {}
            Change::Write(write) => {
                let known = self.collections.get_mut(&write.uuid.expect("every write tells its collection"));
                let Some(copy) = known else {
                    assert!(listed_later, "an event of a collection that was never created: {event:?}");
                    return;
                };
                copy.stored.documents.insert(u32::try_from(write.key.id().integer().unwrap()).unwrap());
            }
            Change::Ddl(Ddl::Create { ns, uuid: Some(uuid), options }) => {
                if self.collections.contains_key(uuid) {
                    return;
                }
                let taken = self.named(ns);
                assert!(taken.is_none_or(|known_at| listed_later || known_at >= at), "`{ns}` was created, and is another: {event:?}");
                let stored = Stored { ns: ns.clone(), options: options.clone(), indexes: BTreeMap::new(), documents: BTreeSet::new() };
                self.collections.insert(*uuid, Copy { stored, dropped: taken.is_some(), known_at: at });
            }
            Change::Ddl(Ddl::Create { ns, options, .. }) => {
                if self.views.get(ns).is_some_and(|(_, dropped, known_at)| if *dropped { *known_at > at } else { *known_at >= at }) {
                    return;
                }
                assert!(self.named(ns).is_none(), "the view `{ns}` was created, and is another: {event:?}");
                self.views.insert(ns.clone(), (options.clone(), false, at));
            }
            Change::Ddl(Ddl::Drop { uuid: Some(uuid), .. }) => self.drop_collection(*uuid, at, false),
            Change::Ddl(Ddl::Drop { ns, .. }) => {
                if let Some((_, dropped, known_at)) = self.views.get_mut(ns).filter(|(.., known_at)| *known_at <= at) {
                    (*dropped, *known_at) = (true, at);
                }
            }
            Change::Ddl(Ddl::DropDatabase { db }) => {
                for (_, (_, dropped, known_at)) in self.views.iter_mut().filter(|(ns, (.., known_at))| ns.db() == db && *known_at <= at) {
                    (*dropped, *known_at) = (true, at);
                }
            }
            Change::Ddl(Ddl::Rename { from, to, uuid, dropped }) => {
                let uuid = uuid.unwrap();
                let Some(copy) = self.collections.get(&uuid).cloned() else {
                    dropped.iter().for_each(|old| self.drop_collection(*old, at, false));
                    assert!(listed_later, "an unknown collection was renamed: {event:?}");
                    return;
                };
                if copy.dropped || copy.known_at >= at || copy.stored.ns == *to {
                    return;
                }
                if copy.stored.ns != *from {
                    assert!(listed_later, "`{from}` was renamed, but is known as `{}`: {event:?}", copy.stored.ns);
                    return;
                }
                dropped.iter().for_each(|old| self.drop_collection(*old, at, true));
                if self.named(to).is_some() {
                    assert!(listed_later, "renamed to `{to}`, which another one is: {event:?}");
                    return;
                }
                let copy = self.collections.get_mut(&uuid).unwrap();
                copy.stored.ns = to.clone();
                copy.known_at = at;
            }
            Change::Ddl(Ddl::CreateIndexes { uuid, indexes, .. }) => {
                if let Some(copy) = self.collections.get_mut(&uuid.unwrap()) {
                    copy.stored.indexes.extend(indexes.iter().map(|spec| (spec.name().to_owned(), spec.clone())));
                }
            }
            Change::Ddl(Ddl::DropIndexes { uuid, names, .. }) => {
                if let Some(copy) = self.collections.get_mut(&uuid.unwrap()) {
                    copy.stored.indexes.retain(|name, _| !names.contains(name));
                }
            }
            Change::Ddl(Ddl::Modify { ns, uuid: None, options }) => {
                if let Some((now, ..)) = self.views.get_mut(ns) {
                    now.clone_from(options);
                }
            }
            Change::Ddl(Ddl::Modify { uuid: Some(uuid), options, .. }) => {
                let Some(copy) = self.collections.get_mut(uuid) else { return };
                if let Some(index) = raw::get(options, "index").and_then(|e| e.document()) {
                    let name = raw::get(index, "name").and_then(|e| e.str()).unwrap();
                    let key = raw::owned(raw::get(&copy.stored.indexes[name].0, "key").and_then(|e| e.document()).unwrap());
                    let hidden = raw::get(index, "hidden").and_then(|e| e.bool()).unwrap();
                    copy.stored.indexes.insert(name.to_owned(), IndexSpec(rawdoc! {"name": name, "key": key, "hidden": hidden}));
                } else {
                    let unset = options == &rawdoc! {"validator": {}};
                    copy.stored.options = if unset {
                        rawdoc! {}
                    } else {
                        options.clone()
                    };
                }
            }
        }
    }

    fn drop_collection(&mut self, uuid: CollectionUuid, at: ClusterTime, in_any_case: bool) {
        if let Some(copy) = self.collections.get_mut(&uuid).filter(|c| !c.dropped && (in_any_case || c.known_at <= at)) {
            copy.dropped = true;
            copy.known_at = copy.known_at.max(at);
        }
    }

    fn known(&self) -> Known {
        let collection = |(uuid, c): (&CollectionUuid, &Copy)| {
            let info = CollectionInfo {
                ns: c.stored.ns.clone(),
                uuid: Some(*uuid),
                kind: CollectionKind::Collection,
                options: c.stored.options.clone(),
            };
            Living { info, indexes: c.stored.indexes.values().cloned().collect(), known_at: c.known_at }
        };
        let view = |(ns, (options, _, known_at)): (&Namespace, &(RawDocumentBuf, bool, ClusterTime))| {
            let info = CollectionInfo { ns: ns.clone(), uuid: None, kind: CollectionKind::View, options: options.clone() };
            Living { info, indexes: Vec::new(), known_at: *known_at }
        };
        let collections = self.collections.iter().filter(|(_, c)| !c.dropped).map(collection);
        let views = self.views.iter().filter(|(_, (_, dropped, _))| !dropped).map(view);
        Known { selection: Selection::default(), living: collections.chain(views).collect() }
    }
}

/// What is there, in words.
fn shown<'a>(
    collections: impl Iterator<Item = (&'a CollectionUuid, &'a Stored)>,
    views: impl Iterator<Item = (&'a Namespace, &'a RawDocumentBuf)>,
) -> BTreeSet<String> {
    let collections = collections.map(|(uuid, s)| {
        let indexes: Vec<_> =
            s.indexes.values().map(|i| (i.name().to_owned(), i.is("hidden"), raw::get(&i.0, "key").map(|k| k.value.to_vec()))).collect();
        format!("{} {uuid} {:?} {indexes:?} {:?}", s.ns, s.options, s.documents)
    });
    collections.chain(views.map(|(ns, options)| format!("{ns} {options:?}"))).collect()
}

async fn history(seed: u64) {
    let world: Shared = Arc::new(Mutex::new(World::new(seed)));
    let mut watcher = Watcher { world: world.clone(), still: false };
    let mut rng = StdRng::seed_from_u64(!seed);
    for _ in 0..rng.random_range(0..20) {
        drop(watcher.world());
    }
    // The plan: the stream's start first, then a listing that takes its time.
    let start = watcher.world().now + 1;
    let mut downstream = Downstream::default();
    let listed_from = time(watcher.world().now);
    for db in ["a", "b"] {
        let world = watcher.world();
        for (uuid, stored) in world.collections.iter().filter(|(_, s)| s.ns.db() == db) {
            downstream.collections.insert(*uuid, Copy { stored: stored.clone(), dropped: false, known_at: listed_from });
        }
        downstream.views.extend(
            world.views.iter().filter(|(ns, _)| ns.db() == db).map(|(ns, options)| (ns.clone(), (options.clone(), false, listed_from))),
        );
    }
    downstream.listed_until = time(watcher.world().now);

    let mut resume = (StartAt::Time(time(start)), world.lock().unwrap().events.partition_point(|e| e.position.time < time(start)));
    let runs = rng.random_range(1..4);
    for run in 1..=runs {
        let asked = Arc::new(Asked::default());
        let plain = Plain { watcher: watcher.clone(), next: resume.1, start: matches!(resume.0, StartAt::Time(_)).then_some(start) };
        let mut watched = Watched::new(plain, watcher.clone(), &resume.0, &downstream.known(), asked.clone());
        watched.every = Duration::ZERO;
        for _ in 0..rng.random_range(0..12) {
            let batch = watched.next().await.unwrap();
            // Behind a crash the stream begins again at some place that was durable, and downstream is where it was.
            if rng.random_bool(0.3) && !batch.events.is_empty() {
                let durable = &batch.events[rng.random_range(0..batch.events.len())].position;
                resume = (StartAt::After(durable.clone()), world.lock().unwrap().behind(durable));
            }
            batch.events.iter().for_each(|event| downstream.hear(event));
        }
        if run < runs {
            continue;
        }
        // The source stands still, and somebody asks.
        watcher.still = true;
        (watched.stream.watcher.still, watched.eyes.still) = (true, true);
        let now = time(world.lock().unwrap().now);
        asked.ask(now);
        let mut reached = false;
        for _ in 0..20 {
            let batch = watched.next().await.unwrap();
            batch.events.iter().for_each(|event| downstream.hear(event));
            reached |= batch.events.last().is_some_and(|e| e.position.time >= now && matches!(e.change, Change::Idle));
            if reached {
                break;
            }
        }
        assert!(reached, "the fence is never passed");
    }

    let world = world.lock().unwrap();
    let wanted = shown(world.collections.iter(), world.views.iter());
    let living = downstream.collections.iter().filter(|(_, c)| !c.dropped).map(|(uuid, c)| (uuid, &c.stored));
    let views = downstream.views.iter().filter(|(_, (_, dropped, _))| !dropped).map(|(ns, (options, ..))| (ns, options));
    assert_eq!(shown(living, views), wanted);
}

#[test]
fn whatever_happens_meanwhile_downstream_has_what_the_source_has() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let given: Option<u64> = std::env::var("MONGOFERRY_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = given.map_or(0..2_000, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(history(seed))));
        assert!(outcome.is_ok(), "MONGOFERRY_TEST_SEED={seed}");
    }
}
