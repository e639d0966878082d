//! Positions in a change stream, and the tokens that name them.
//!
//! A position is the text of MongoDB's resume token: hexadecimal digits whose order is
//! that of the changes. The token has a tag of the collection in front.

use std::sync::{Arc, OnceLock};

use bson::spec::BinarySubtype;
use bson::{Bson, RawDocumentBuf, doc};
use mongodb::change_stream::event::ResumeToken;

use crate::domain::read::ReadError;
use crate::infrastructure::repository::mongodb::connection::MongoConnection;
use crate::infrastructure::repository::mongodb::failure::Failure;
use crate::infrastructure::repository::mongodb::operation;

/// A position in a change stream.
pub(super) type Position = Arc<str>;

/// The first byte of a resume token, which marks its time.
const TIME_MARK: &str = "82";

/// Length of the time in seconds behind the mark, in digits.
const SECONDS_DIGITS: usize = 8;

/// How far the change streams of two processes can be apart, in seconds.
const MAX_AHEAD: u64 = 60;

/// Distinguishes a collection from all others, also from one that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CollectionTag(pub(super) u32);

/// The tag of the collection that a change stream follows. The collection can be created
/// after the change stream was opened.
#[derive(Debug)]
pub(super) struct StreamTag {
    /// The tag until the collection exists. Only this process accepts it.
    provisional: CollectionTag,
    collection: OnceLock<CollectionTag>,
}

impl StreamTag {
    pub(super) fn new(provisional: CollectionTag) -> Self {
        Self { provisional, collection: OnceLock::new() }
    }

    /// Looks the collection's tag up, unless it is known. The change stream must be open:
    /// it ends when the collection is dropped, so the tag never changes later.
    pub(super) async fn update(&self, connection: &MongoConnection) -> Result<(), ReadError> {
        if self.collection.get().is_none()
            && let Some(tag) = tag_of_collection(connection).await?
        {
            self.collection.get_or_init(|| tag);
        }
        Ok(())
    }

    /// Returns the tag for new tokens.
    pub(super) fn current(&self) -> CollectionTag {
        self.collection.get().copied().unwrap_or(self.provisional)
    }

    /// Returns the position, unless the token is of another collection. A provisional token
    /// from before a drop is accepted here: the change stream from its position ends at the
    /// drop.
    pub(super) fn parse(&self, token: &str) -> Option<Position> {
        self.current().parse(token).or_else(|| self.provisional.parse(token))
    }
}

/// Returns the tag of the collection of log entries, a part of its UUID. Returns `None` if
/// the collection does not exist.
async fn tag_of_collection(
    connection: &MongoConnection,
) -> Result<Option<CollectionTag>, ReadError> {
    let database = connection.database()?;
    let command = doc! {
        "listCollections": 1,
        "filter": { "name": &connection.options().collection },
        "cursor": {},
    };
    let listed = operation::read(async move { database.run_command(command).await }).await?;
    let batch = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|error| Failure::transient(error.to_string()))?;
    let info = batch.first().and_then(|collection| collection.as_document()?.get("info"));
    Ok(info.and_then(|info| CollectionTag::of_uuid(info.as_document()?.get("uuid")?)))
}

impl CollectionTag {
    /// Creates a tag that no other process has, for a collection that does not exist yet.
    pub(super) fn provisional() -> Self {
        Self(fastrand::u32(..))
    }

    fn of_uuid(uuid: &Bson) -> Option<Self> {
        let Bson::Binary(uuid) = uuid else { return None };
        let start = uuid.bytes.first_chunk().filter(|_| uuid.subtype == BinarySubtype::Uuid)?;
        Some(Self(u32::from_be_bytes(*start)))
    }

    pub(super) fn token(self, position: &str) -> String {
        format!("m-{:08x}-{position}", self.0)
    }

    /// Returns the position, unless the token is of another collection.
    pub(super) fn parse(self, token: &str) -> Option<Position> {
        let (tag, position) = token.strip_prefix("m-")?.split_once('-')?;
        let is_upper_hex = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        let is_position = position.starts_with(TIME_MARK)
            && position.len() >= TIME_MARK.len() + SECONDS_DIGITS
            && position.len().is_multiple_of(2)
            && position.bytes().all(is_upper_hex);
        let is_same = tag == format!("{:08x}", self.0);
        (is_position && is_same).then(|| position.into())
    }
}

/// Returns whether `position` is too far ahead of `end` to be one of this store.
pub(super) fn is_in_the_future(position: &str, end: &str) -> bool {
    let seconds = |position: &str| {
        let digits = position.get(TIME_MARK.len()..TIME_MARK.len() + SECONDS_DIGITS)?;
        u64::from_str_radix(digits, 16).ok()
    };
    match (seconds(position), seconds(end)) {
        (Some(position), Some(end)) => position > end + MAX_AHEAD,
        _ => true,
    }
}

/// Returns the driver's token.
pub(super) fn resume_token(position: &str) -> Result<ResumeToken, ReadError> {
    bson::deserialize_from_document(doc! { "_data": position })
        .map_err(|error| ReadError::Failed(format!("cannot build a resume token: {error}")))
}

/// Returns the position of the driver's token.
pub(super) fn position(token: &ResumeToken) -> Option<Position> {
    let token: RawDocumentBuf = bson::serialize_to_raw_document_buf(token).ok()?;
    token.get_str("_data").ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "826744A6C8000000012B0429296E1404";

    #[test]
    fn a_token_is_accepted_only_for_its_collection() {
        let tag = CollectionTag(0xab);
        let token = tag.token(DATA);
        assert_eq!(tag.parse(&token).as_deref(), Some(DATA));
        assert_eq!(CollectionTag(0xac).parse(&token), None);
        assert_eq!(tag.parse(&CollectionTag(0).token(DATA)), None);
        for wrong in [
            "",
            "m-",
            "m-000000ab-",
            "m-000000ab-82",
            "m-000000ab-826744A6C800000001ZZ",
            "m-000000ab-816744A6C80000000100",
            "m-000000ab-826744a6c80000000100",
            "e-000000ab-826744A6C80000000100",
        ] {
            assert_eq!(tag.parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_tag_is_the_start_of_the_uuid() {
        let uuid = bson::Uuid::from_bytes([0xab; 16]);
        assert_eq!(CollectionTag::of_uuid(&uuid.into()), Some(CollectionTag(0xabab_abab)));
        assert_eq!(CollectionTag::of_uuid(&Bson::Null), None);
    }

    #[test]
    fn a_provisional_token_is_accepted_once_the_collection_exists() {
        let tag = StreamTag::new(CollectionTag(1));
        let provisional = tag.current().token(DATA);
        tag.collection.set(CollectionTag(2)).unwrap();
        assert_eq!(tag.current(), CollectionTag(2));
        assert_eq!(tag.parse(&provisional).as_deref(), Some(DATA));
        assert_eq!(tag.parse(&tag.current().token(DATA)).as_deref(), Some(DATA));
        assert_eq!(tag.parse(&CollectionTag(3).token(DATA)), None);
    }

    #[test]
    fn tokens_of_the_driver_are_kept_unchanged() {
        let token = resume_token(DATA).unwrap();
        assert_eq!(position(&token).as_deref(), Some(DATA));
    }

    #[test]
    fn only_positions_far_ahead_are_in_the_future() {
        assert!(!is_in_the_future(DATA, DATA));
        assert!(!is_in_the_future("826744A6FF00", DATA));
        assert!(is_in_the_future("826744A7FF00", DATA));
        assert!(!is_in_the_future("820000000000", DATA));
    }
}
