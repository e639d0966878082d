//! Request and response bodies of the HTTP API.

mod body;
mod request;
mod response;

pub use self::body::{SyntaxError, body_text, for_each_member};
pub use self::request::{IngestRequest, ParseError};
pub use self::response::{
    BatchResponse, ErrorResponse, IngestResponse, LogResponse, LogsPage, RejectedItem,
    RejectionCode, Status,
};
