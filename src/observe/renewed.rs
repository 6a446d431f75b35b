//! What was read from files and is taken up anew when they change: certificates and tokens are renewed while a migration runs.

use crate::error::Result;
use std::{
    convert::Infallible,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// A value made of files. Cheap to clone; all clones are one.
pub struct Renewed<T>(Arc<Inner<T>>);

struct Inner<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T> + Send + Sync>,
    seen: Mutex<Vec<Option<Stamp>>>,
    now: RwLock<Arc<T>>,
}

/// Changes with whatever is done to a file, also where another one takes its name, as a secret that is mounted into a container.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    /// Clocks of file systems go by milliseconds: two changes may have one time.
    size: u64,
    changed: (i64, i64),
}

impl<T> Clone for Renewed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> std::fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("files", &self.0.files).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn new(files: Vec<PathBuf>, read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Self> {
        // Before they are read: what changes meanwhile is read again.
        let seen = stamps(&files);
        let now = read()?;
        Ok(Self(Arc::new(Inner { files, read: Box::new(read), seen: Mutex::new(seen), now: RwLock::new(Arc::new(now)) })))
    }

    /// As last read.
    #[must_use]
    pub fn now(&self) -> Arc<T> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files every two seconds, for as long as it is polled.
    pub(super) async fn follow(&self) -> Infallible {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let renewed = self.clone();
            // The files may lie on a network.
            let _ = tokio::task::spawn_blocking(move || renewed.look()).await;
        }
    }

    /// Reads the files again where one has changed. Where they cannot be used, what was read before stays in force: they may be half
    /// written, and are read again with their next change.
    fn look(&self) {
        let Inner { files, read, seen, now } = &*self.0;
        let stamps = stamps(files);
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamps {
                return;
            }
            *seen = stamps;
        }
        match read() {
            Ok(renewed) => {
                *now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
                tracing::info!(?files, "files of the endpoint have changed, and are in force");
            }
            Err(error) => {
                let error = error.story();
                tracing::warn!(?files, error, "files of the endpoint have changed and cannot be used: what was read before stays in force");
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |m: fs::Metadata| Stamp { file: (m.dev(), m.ino()), size: m.size(), changed: (m.ctime(), m.ctime_nsec()) };
    files.iter().map(|path| fs::metadata(path).ok().map(stamp)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn what_changed_is_read_once_and_what_cannot_be_used_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let reads = Arc::new(AtomicU32::new(0));
        let (read, counted) = (path.clone(), reads.clone());
        let renewed = Renewed::new(vec![path.clone()], move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let text = fs::read_to_string(&read).map_err(|_| Error::Bug("gone".into()))?;
            if text == "bad" { Err(Error::Bug("bad".into())) } else { Ok(text) }
        })
        .unwrap();
        let look = |reads_by_now: u32| {
            renewed.look();
            assert_eq!(reads.load(Ordering::Relaxed), reads_by_now);
            renewed.now().to_string()
        };
        assert_eq!(look(1), "one", "nothing has changed");
        fs::write(&path, "second").unwrap();
        assert_eq!(look(2), "second");
        fs::write(&path, "bad").unwrap();
        assert_eq!(look(3), "second");
        assert_eq!(look(3), "second", "it is not read again before it changes");
        fs::remove_file(&path).unwrap();
        assert_eq!(look(4), "second");
        // Another file that takes its name, as by a link that is turned over.
        fs::write(folder.path().join("next"), "three").unwrap();
        fs::rename(folder.path().join("next"), &path).unwrap();
        assert_eq!(look(5), "three");
        assert!(Renewed::new(vec![path], || Err::<u8, _>(Error::Bug("at first".into()))).is_err());
    }
}
