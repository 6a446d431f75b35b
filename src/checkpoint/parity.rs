//! The saved forms of what is proved equal: ranges in the form of partitions, and one document with the marks of each
//! collection. The clock tells up to which source time all touches are in the marks: a resume point behind it was saved by
//! somebody who kept none, and then nothing is proved.

use super::record::uuid;
use crate::{
    model::{ClusterTime, raw},
    parity::{Bits, Marks},
};
use bson::{RawDocument, RawDocumentBuf};

/// Grows when one of these forms changes its meaning; another one is not read, which costs a comparison and nothing else.
const FORMAT: i32 = 1;
/// Identity of the clock.
pub(super) const CLOCK: &str = "clock";

/// The clock as saved.
pub(super) fn from_clock(time: ClusterTime) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    b.str("_id", CLOCK).i32("format", FORMAT).timestamp("time", time.t, time.i);
    b.finish()
}

/// And back; `None` for what is none, or in another form.
pub(super) fn to_clock(doc: &RawDocument) -> Option<ClusterTime> {
    let is_ours = raw::get(doc, "_id")?.str() == Some(CLOCK) && raw::get(doc, "format")?.integer() == Some(i64::from(FORMAT));
    raw::get(doc, "time").filter(|_| is_ours)?.timestamp().map(|(t, i)| ClusterTime { t, i })
}

/// Marks as saved.
pub(super) fn from_marks(marks: &Marks) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    b.uuid("_id", marks.collection);
    let bytes = marks.touched.as_bytes();
    let mut value = u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes().to_vec();
    value.push(0);
    value.extend_from_slice(bytes);
    b.value("touched", raw::tag::BINARY, &value);
    b.finish()
}

/// And back; `None` for what is none.
pub(super) fn to_marks(doc: &RawDocument) -> Option<Marks> {
    let touched = raw::get(doc, "touched").filter(|e| e.tag == raw::tag::BINARY)?;
    Some(Marks::new(uuid(doc, "_id")?, Bits::from_bytes(touched.value.get(5..)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CollectionUuid;
    use bson::rawdoc;

    #[test]
    fn they_come_back_as_they_were_saved() {
        let mut touched = Bits::default();
        touched.put(11, true);
        let marks = Marks::new(CollectionUuid([3; 16]), touched);
        assert_eq!(to_marks(&from_marks(&marks)), Some(marks));
        let time = ClusterTime { t: 5, i: 6 };
        assert_eq!(to_clock(&from_clock(time)), Some(time));
        assert_eq!(to_marks(&from_clock(time)), None);
        assert_eq!(to_clock(&rawdoc! {"_id": CLOCK, "format": 2, "time": bson::Timestamp { time: 5, increment: 6 }}), None);
    }

    #[test]
    fn the_wire_form_is_pinned() {
        let marks = from_marks(&Marks::new(CollectionUuid([3; 16]), Bits::from_bytes(&[5])));
        let hex: String = marks.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "2e000000055f69640010000000040303030303030303030303030303030305746f75636865640001000000000500");
    }
}
