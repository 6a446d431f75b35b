//! Two replica sets, and room on the machine for them.

use super::{Ferry, METADATA, run};
use bson::{Document, doc};
use mongodb::Client;
use std::{fs, path::PathBuf};
use testbed::{Options, ReplicaSet, connect, end, parity};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Tests that run servers at once, however many threads there are: elections have time limits.
const PLACES: u32 = 2;

/// The logs of servers.
#[derive(Debug)]
struct Words(Vec<PathBuf>);

/// A source and a target, each with a client.
#[derive(Debug)]
pub struct Pair {
    // Declared first, so that the logs are read before they are removed.
    _words: Words,
    pub source: ReplicaSet,
    pub target: ReplicaSet,
    /// Of the source.
    pub from: Client,
    /// Of the target.
    pub to: Client,
    _places: SemaphorePermit<'static>,
}

/// A test that fails tells what the servers died of, if they did.
impl Drop for Words {
    fn drop(&mut self) {
        for log in self.0.iter().filter(|_| std::thread::panicking()) {
            let text = fs::read_to_string(log).unwrap_or_default();
            let last: Vec<_> = text.lines().filter(|line| line.contains(r#""s":"F""#)).take(5).collect();
            if !last.is_empty() {
                eprintln!("last words in {}:\n{}", log.display(), last.join("\n"));
            }
        }
    }
}

impl Words {
    fn of(sets: [&ReplicaSet; 2]) -> Self {
        let logs =
            |set: &ReplicaSet| (0..set.addresses().len()).map(|n| set.folder().join(format!("node{n}/mongod.log"))).collect::<Vec<_>>();
        Self(sets.into_iter().flat_map(logs).collect())
    }
}

/// Room on the machine, for as long as it is kept.
async fn room(places: u32) -> SemaphorePermit<'static> {
    static FREE: Semaphore = Semaphore::const_new(PLACES as usize);
    FREE.acquire_many(places).await.expect("never closed")
}

/// The machine for one test, as long as the value lives: for tests with clusters of their own making.
pub async fn whole_machine() -> SemaphorePermit<'static> {
    room(PLACES).await
}

impl Pair {
    /// One node each.
    pub async fn start() -> Self {
        Self::with(Options::default(), Options::default()).await
    }

    /// As asked for. The names of the sets differ.
    pub async fn with(source: Options, target: Options) -> Self {
        // Several nodes want the machine for themselves.
        let places = if source.nodes + target.nodes > 2 { PLACES } else { 1 };
        Self::at(places, source, target).await
    }

    /// As [`Pair::with`], with the machine for itself: for tests whose load has a rate to reach.
    pub async fn alone(source: Options, target: Options) -> Self {
        Self::at(PLACES, source, target).await
    }

    async fn at(places: u32, source: Options, target: Options) -> Self {
        let places = room(places).await;
        let (source, target) = (Options { name: "source".into(), ..source }, Options { name: "target".into(), ..target });
        let (source, target) = tokio::try_join!(ReplicaSet::start(source), ReplicaSet::start(target)).unwrap();
        let (from, to) = (connect(&source.uri()).await.unwrap(), connect(&target.uri()).await.unwrap());
        Self { _words: Words::of([&source, &target]), source, target, from, to, _places: places }
    }

    /// Starts `run` between the two.
    pub fn ferry(&self, more: &[&str]) -> Ferry {
        Ferry::start(&self.source.uri(), &self.target.uri(), more)
    }

    /// Runs a command on a database of the source.
    #[track_caller]
    pub fn on_source(&self, database: &str, command: Document) -> impl Future<Output = Document> {
        run(&self.from, database, command)
    }

    /// Runs a command on a database of the target.
    #[track_caller]
    pub fn on_target(&self, database: &str, command: Document) -> impl Future<Output = Document> {
        run(&self.to, database, command)
    }

    /// The migration's record, if there is one.
    pub async fn record(&self) -> Option<Document> {
        self.to.database(METADATA).collection::<Document>("migration").find_one(doc! {}).await.unwrap()
    }

    /// Fails unless both sides are equal, byte for byte.
    pub async fn assert_equal(&self) {
        self.assert_equal_as(parity::everything).await;
    }

    /// As [`Pair::assert_equal`], with filters and renames: see [`testbed::compare`].
    pub async fn assert_equal_as(&self, pick: impl Fn(&str, &str) -> Option<(String, String)>) {
        let report = testbed::compare(&self.from, &self.to, pick).await.unwrap();
        let few: Vec<_> = report.differences.iter().take(30).map(ToString::to_string).collect();
        assert!(report.is_equal(), "{} differences, such as\n{}", report.differences.len(), few.join("\n"));
        assert!(report.documents().0 > 0, "nothing was compared");
    }

    /// Ends the clients before their runtime does.
    pub async fn end(self) {
        end(self.from).await;
        end(self.to).await;
    }
}
