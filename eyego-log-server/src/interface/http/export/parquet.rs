//! Events as Apache Parquet. Row groups are small, so that an export needs little
//! memory whatever its size.

use std::io;
use std::sync::Arc;

use eyego_log_core::LogEntry;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::Value;

use super::csv::Columns;

/// Size of the values of a row group, in bytes, before compression.
const GROUP_BYTES: usize = 4 << 20;

/// Memory of an export: the values of a row group, their encoded form, and the
/// metadata of all row groups, which are written last.
pub(super) const MEMORY_BYTES: usize = 3 * GROUP_BYTES;

/// The text columns before the timestamp.
const TEXT_COLUMNS: [&str; 3] = ["id", "userId", "action"];

/// A file that is written row group by row group.
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Columns,
    /// Id, user and action of the rows of the current group.
    texts: [Vec<ByteArray>; TEXT_COLUMNS.len()],
    timestamps: Vec<i64>,
    /// The metadata as JSON, or one of the chosen columns each.
    metadata: Vec<Vec<Option<ByteArray>>>,
    /// Size of the values of the current group.
    bytes: usize,
}

impl ParquetFile {
    /// Starts a file with these columns of metadata.
    ///
    /// # Errors
    /// Returns an error if the schema is invalid.
    pub(super) fn new(columns: Columns) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()))
            .set_created_by(concat!("eyego-log-server ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let schema = Arc::new(schema(&columns).map_err(error)?);
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties));
        let metadata = vec![Vec::new(); columns.paths().len().max(1)];
        Ok(Self {
            writer: writer.map_err(error)?,
            columns,
            texts: Default::default(),
            timestamps: Vec::new(),
            metadata,
            bytes: 0,
        })
    }

    /// Adds a row to the current group.
    pub(super) fn push(&mut self, entry: &LogEntry) {
        let bytes = &mut self.bytes;
        let mut array = |text: Vec<u8>| {
            *bytes += text.len() + size_of::<ByteArray>();
            ByteArray::from(text)
        };
        let texts = [
            entry.id.to_hex().to_vec(),
            entry.user_id.as_str().into(),
            entry.action.as_str().into(),
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(array(text));
        }
        self.timestamps.push(entry.timestamp.as_millis());
        if self.columns.paths().is_empty() {
            self.metadata[0].push(Some(array(entry.metadata.as_json().into())));
            return;
        }
        let metadata = entry.metadata.to_map();
        for (column, path) in self.metadata.iter_mut().zip(self.columns.paths()) {
            column.push(path.value(&metadata).map(|value| match value {
                Value::String(text) => array(text.as_bytes().to_vec()),
                json => array(json.to_string().into_bytes()),
            }));
        }
    }

    /// Returns `true` if the current group should be written.
    pub(super) fn is_group_full(&self) -> bool {
        self.bytes >= GROUP_BYTES
    }

    /// Writes the current group, and the end of the file if it is the last one.
    /// Returns the bytes written. Takes tens of milliseconds.
    ///
    /// # Errors
    /// Returns an error if the values cannot be encoded.
    pub(super) fn write_group(&mut self, is_last: bool) -> io::Result<Vec<u8>> {
        self.encode(is_last).map_err(error)?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    fn encode(&mut self, is_last: bool) -> Result<(), ParquetError> {
        if !self.timestamps.is_empty() {
            let mut group = self.writer.next_row_group()?;
            for values in &mut self.texts {
                write_column::<ByteArrayType>(&mut group, values, None)?;
                values.clear();
            }
            write_column::<Int64Type>(&mut group, &self.timestamps, None)?;
            for column in &mut self.metadata {
                let levels: Vec<_> = column.iter().map(|value| value.is_some().into()).collect();
                let values: Vec<_> = column.drain(..).flatten().collect();
                write_column::<ByteArrayType>(&mut group, &values, Some(&levels))?;
            }
            group.close()?;
            self.timestamps.clear();
            self.bytes = 0;
        }
        if is_last {
            self.writer.finish()?;
        }
        Ok(())
    }
}

/// Writes the next column of a row group. Values that are missing have level 0.
fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns".to_owned()));
    };
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Returns the columns of the file. Those of metadata have no value in rows without
/// it.
fn schema(columns: &Columns) -> Result<Type, ParquetError> {
    let text = |name: &str, repetition: Repetition| {
        Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_logical_type(Some(LogicalType::String))
            .with_repetition(repetition)
            .build()
            .map(Arc::new)
    };
    let mut fields = Vec::new();
    for name in TEXT_COLUMNS {
        fields.push(text(name, Repetition::REQUIRED)?);
    }
    let millis = LogicalType::timestamp(true, TimeUnit::MILLIS);
    let timestamp = Type::primitive_type_builder("timestamp", PhysicalType::INT64)
        .with_logical_type(Some(millis))
        .with_repetition(Repetition::REQUIRED)
        .build()?;
    fields.push(Arc::new(timestamp));
    if columns.paths().is_empty() {
        fields.push(text("metadata", Repetition::OPTIONAL)?);
    }
    for path in columns.paths() {
        fields.push(text(&format!("metadata.{}", path.as_str()), Repetition::OPTIONAL)?);
    }
    Type::group_type_builder("event").with_fields(fields).build()
}

fn error(error: ParquetError) -> io::Error {
    io::Error::other(error)
}
