//! The bearer token, from a file that others may not read.

use super::renewed::Renewed;
use crate::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use std::{fs, path::Path};
use subtle::ConstantTimeEq;

/// Characters of a token at least: nobody guesses 64 random bits over HTTP.
const SHORTEST: usize = 16;

/// What whoever asks has to know.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

impl Token {
    /// Reads a token. `flag` names the option in what is complained of.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for a file that cannot be read, that others may read, or that holds no token.
    pub fn read(path: &Path, flag: &str) -> Result<Self> {
        let text = SecretString::from(String::from_utf8(private(path, flag)?).unwrap_or_default());
        let token = text.expose_secret().trim();
        if token.len() >= SHORTEST && token.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(SecretString::from(token)));
        }
        let problem = format!("names a file that holds no token: {} (one line of at least {SHORTEST} visible characters)", path.display());
        Err(bad(flag, problem, "make one: `openssl rand -hex 32 > FILE && chmod 600 FILE`"))
    }

    /// The same, read again when the file changes.
    ///
    /// # Errors
    /// As [`Token::read`].
    pub fn renewed(path: &Path, flag: &'static str) -> Result<Renewed<Self>> {
        let path = path.to_owned();
        Renewed::new(vec![path.clone()], move || Self::read(&path, flag))
    }

    /// Whether this is it. Takes as long for a wrong one of the same length, wherever it differs.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.expose_secret().as_bytes().ct_eq(given).into()
    }

    /// For the header `Authorization`.
    #[must_use]
    pub fn header(&self) -> SecretString {
        SecretString::from(format!("Bearer {}", self.0.expose_secret()))
    }
}

/// The bytes of a file that holds a secret.
///
/// # Errors
/// [`Error::BadConfig`] where it cannot be read, or others may read or change it.
pub fn private(path: &Path, flag: &str) -> Result<Vec<u8>> {
    use std::os::unix::fs::PermissionsExt;
    let unreadable = |why: std::io::Error| bad(flag, format!("names a file that cannot be read: {}: {why}", path.display()), "");
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
    // The group may read: that is how secrets are mounted into containers.
    if mode & 0o027 != 0 {
        let problem = format!("names a file that others may read or change: {} has mode {:o}", path.display(), mode & 0o777);
        return Err(bad(flag, problem, &format!("`chmod 600 {}`", path.display())));
    }
    fs::read(path).map_err(unreadable)
}

/// A complaint about an option of the endpoint; an empty hint is none.
pub(super) fn bad(flag: &str, problem: String, hint: &str) -> Error {
    Error::BadConfig { field: flag.into(), problem, hint: (!hint.is_empty()).then(|| hint.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn read(text: &[u8], mode: u32) -> Result<Token> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Token::read(&path, "--token-file")
    }

    #[test]
    fn a_token_is_a_line_that_nobody_else_may_read() {
        let token = read(b"  0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcdeg", b"0123456789abcde", b"0123456789abcdef0"] {
            assert!(!token.is(wrong));
        }
        assert!(!format!("{token:?}").contains("0123"));
        assert!(read(b"0123456789abcdef", 0o640).is_ok());
        for (text, mode) in [
            (&b"0123456789abcdef"[..], 0o644),
            (b"0123456789abcdef", 0o620),
            (b"0123456789abcde", 0o600),
            (b"0123456789 abcdef", 0o600),
            (b"\xff123456789abcdefgh", 0o600),
            (b"", 0o600),
        ] {
            let error = read(text, mode).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.hint().is_some() && !error.to_string().contains("0123"), "{error}");
        }
        assert_eq!(Token::read(Path::new("/nonexistent"), "--token-file").unwrap_err().exit_code(), 2);
    }
}
