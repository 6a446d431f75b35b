//! What a resume token tells that its event does not. The position itself stays opaque: a token is handed back
//! as it came.
//!
//! `_data` is hex of the server's key-string format (RAN on 4.4.2, 5.0.4, 6.0.5 and 6.0.27): `82` and the cluster time
//! in eight bytes; `2B02` for the version 1 of the token; the token's type, `2C0100` for an event and `29` for a
//! post-batch token; the number of the operation in its transaction, `29` for 0, else `2B` to `32` and one to eight
//! bytes; `6E` or `6F`, whether it comes from an invalidation; and, where the event is of a collection, `5A1004` and
//! the sixteen bytes of its UUID. Servers before 6.0 tell the UUID nowhere else.

use crate::model::{ClusterTime, CollectionUuid, raw};
use bson::RawDocument;

/// The cluster time, which a post-batch token tells in no other way. `None` for any other shape.
pub(super) fn time(token: &RawDocument) -> Option<ClusterTime> {
    let data = raw::get(token, "_data")?.str()?;
    let number = |range: std::ops::Range<usize>| u32::from_str_radix(data.get(range)?, 16).ok();
    data.starts_with("82").then(|| Some(ClusterTime { t: number(2..10)?, i: number(10..18)? }))?
}

/// The collection of an event. `None` for any other shape, and for an event that is of no collection.
pub(super) fn collection(token: &RawDocument) -> Option<CollectionUuid> {
    let data = raw::get(token, "_data")?.str()?;
    let rest = data.strip_prefix("82")?.get(16..)?.strip_prefix("2B022C0100")?;
    let number = u8::from_str_radix(rest.get(..2)?, 16).ok()?;
    let bytes = match number {
        0x29 => 0,
        0x2B..=0x32 => usize::from(number - 0x2A),
        _ => return None,
    };
    let rest = rest.get(2 + 2 * bytes..)?;
    let rest = rest.strip_prefix("6E").or_else(|| rest.strip_prefix("6F"))?.strip_prefix("5A1004")?.get(..32)?;
    let mut uuid = [0; 16];
    for (n, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(rest.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(CollectionUuid(uuid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn uuid_of(data: &str) -> Option<String> {
        collection(&rawdoc! {"_data": data}).map(|uuid| uuid.to_string())
    }

    /// Tokens as they came from 4.4.2 and 5.0.4.
    #[test]
    fn tokens_tell_time_and_collection() {
        let insert = "826B025531000000132B022C0100296E5A1004241F8A8F93DA4379ABB575E522BC52B1461E5F6964002B020004";
        assert_eq!(time(&rawdoc! {"_data": insert}), Some(ClusterTime { t: 0x6B02_5531, i: 0x13 }));
        assert_eq!(uuid_of(insert).as_deref(), Some("241f8a8f93da4379abb575e522bc52b1"));
        // The second and the 161st operation of a transaction.
        for data in [
            "826B0255310000001E2B022C01002B026E5A10043B898B97E06940A28183BB9EA1F2617E461E5F6964002C07D20004",
            "826B0255310000001E2B022C01002C01406E5A10043B898B97E06940A28183BB9EA1F2617E461E5F6964002C09100004",
        ] {
            assert_eq!(uuid_of(data).as_deref(), Some("3b898b97e06940a28183bb9ea1f2617e"));
        }
        let drop = "826B0255360000028D2B022C0100296E5A10047E909089EA494811BD25D962EBF8449204";
        assert_eq!(uuid_of(drop).as_deref(), Some("7e909089ea494811bd25d962ebf84492"));
    }

    #[test]
    fn what_has_no_collection_or_another_shape_tells_none() {
        let post_batch = "826B0255310000000D2B0229296E04";
        assert_eq!((time(&rawdoc! {"_data": post_batch}).map(|t| t.i), uuid_of(post_batch)), (Some(13), None));
        let drop_database = "826B025537000000012B022C0100296E04";
        let version_2 = "826B025531000000132B042C0100296E5A1004241F8A8F93DA4379ABB575E522BC52B104";
        let cut_short = "826B025531000000132B022C0100296E5A1004241F8A8F93DA43";
        for data in [drop_database, version_2, cut_short, "82", "", "ü26B", "826B025531000000132B022C01003"] {
            assert_eq!(uuid_of(data), None, "{data}");
        }
    }
}
