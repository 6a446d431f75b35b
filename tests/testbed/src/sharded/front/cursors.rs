//! Where each open cursor lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mongodb::bson::RawDocument;
use tokio::sync::Mutex as AsyncMutex;

use super::stream::MergedStream;
use super::upstream::Upstream;

#[derive(Clone)]
pub enum Home {
    /// A cursor of a shard's routing code, over all shards.
    Routed(Arc<Upstream>),
    /// An ordinary cursor of one server.
    Server(Arc<Upstream>),
    /// A change stream that the front merges itself.
    Merged(Arc<AsyncMutex<MergedStream>>),
}

#[derive(Default)]
pub struct Cursors(Mutex<HashMap<i64, Home>>);

impl Cursors {
    /// Remembers the cursor of a first reply, if it has one.
    pub fn remember(&self, reply: &RawDocument, home: Home) {
        let id = reply.get_document("cursor").and_then(|cursor| cursor.get_i64("id"));
        if let Some(id) = id.ok().filter(|id| *id != 0) {
            self.insert(id, home);
        }
    }

    /// Also forgets the change streams, with what they hold in memory, whose clients have gone.
    pub fn insert(&self, id: i64, home: Home) {
        let mut homes = self.homes();
        homes.retain(|_, home| match home {
            Home::Merged(stream) => !stream.try_lock().is_ok_and(|stream| stream.is_abandoned()),
            _ => true,
        });
        homes.insert(id, home);
    }

    pub fn get(&self, id: i64) -> Option<Home> {
        self.homes().get(&id).cloned()
    }

    pub fn remove(&self, id: i64) -> Option<Home> {
        self.homes().remove(&id)
    }

    fn homes(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Home>> {
        self.0.lock().expect("nothing panics with the cursors")
    }
}
