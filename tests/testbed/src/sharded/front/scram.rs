//! How the front logs in on the servers: as one of them, by the key that they share (SCRAM-SHA-256, RFC 7677).

use std::collections::HashMap;
use std::io::{Error, Result};
use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, RawDocument, RawDocumentBuf, rawdoc};
use sha2::{Digest, Sha256};

use super::failure::is_ok;
use super::upstream::{Connection, exchange};
use super::wire;

type Hash = [u8; 32];

/// The key of a cluster's servers.
pub struct Key {
    key: String,
    /// Every server has a salt of its own, and the salting is slow on purpose.
    salted: Mutex<HashMap<(Vec<u8>, u32), Hash>>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub fn new(key: &str) -> Key {
        Key { key: key.into(), salted: Mutex::default() }
    }

    /// Makes a connection one of the server `__system`, who may do everything.
    pub async fn log_in(&self, connection: &mut Connection) -> Result<()> {
        let nonce = BASE64_STANDARD.encode(rand::random::<[u8; 18]>());
        let bare = format!("n=__system,r={nonce}");
        let start = rawdoc! {
            "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": payload(&format!("n,,{bare}")),
            "options": { "skipEmptyExchange": true }, "$db": "local",
        };
        let reply = said(connection, start).await?;
        let first = text(&reply)?;
        let field = |name: &str| {
            let found = first.split(',').find_map(|field| field.strip_prefix(name));
            found.ok_or_else(|| Error::other("an answer without salt"))
        };
        let salt = BASE64_STANDARD.decode(field("s=")?).map_err(Error::other)?;
        let salted = self.salted(salt, field("i=")?.parse().map_err(Error::other)?);
        let without_proof = format!("c=biws,r={}", field("r=")?);
        let client_key = mac(&salted, b"Client Key");
        let signature = mac(&Sha256::digest(client_key), format!("{bare},{first},{without_proof}").as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let last = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
        let conversation = reply.get_i32("conversationId").map_err(Error::other)?;
        let go_on = rawdoc! { "saslContinue": 1, "conversationId": conversation, "payload": payload(&last), "$db": "local" };
        let reply = said(connection, go_on).await?;
        if matches!(reply.get_bool("done"), Ok(true)) { Ok(()) } else { Err(Error::other("the login goes on")) }
    }

    /// PBKDF2 with one block, which is as long as the hash.
    fn salted(&self, salt: Vec<u8>, rounds: u32) -> Hash {
        let mut known = self.salted.lock().expect("nothing panics with it");
        *known.entry((salt, rounds)).or_insert_with_key(|(salt, rounds)| {
            let mut last = mac(self.key.as_bytes(), &[salt, &1_u32.to_be_bytes()[..]].concat());
            let mut sum = last;
            for _ in 1..*rounds {
                last = mac(self.key.as_bytes(), &last);
                sum.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
            }
            sum
        })
    }
}

fn mac(key: &[u8], message: &[u8]) -> Hash {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn payload(text: &str) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() }
}

fn text(reply: &RawDocument) -> Result<String> {
    String::from_utf8(reply.get_binary("payload").map_err(Error::other)?.bytes.to_vec()).map_err(Error::other)
}

async fn said(connection: &mut Connection, command: RawDocumentBuf) -> Result<RawDocumentBuf> {
    let reply = exchange(connection, &wire::encode(1, 0, &command, &[])).await?;
    if is_ok(&reply) { Ok(reply) } else { Err(Error::other(format!("the server refuses its own key: {reply:?}"))) }
}
