//! The details of an error: messages of `google.rpc` and of the server's own, as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::Any;
use serde_json::{Value, json};
use tonic_types::pb;

/// The details in the trailer `grpc-status-details-bin`. A message that neither `google.rpc` nor `pool`
/// describes is shown in base64. Empty if there are none.
pub(super) fn decode(trailer: &[u8], pool: &DescriptorPool) -> Vec<Value> {
    let Ok(status) = pb::Status::decode(trailer) else {
        return vec![json!({"malformed": STANDARD.encode(trailer)})];
    };
    let known = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).ok();
    let pools: Vec<_> = [Some(pool), known.as_ref()].into_iter().flatten().collect();
    let details = status.details.iter();
    details.map(|detail| shown(detail, &pools)).collect()
}

fn shown(detail: &Any, pools: &[&DescriptorPool]) -> Value {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let message = pools.iter().find_map(|pool| {
        let description = pool.get_message_by_name(name)?;
        let message = DynamicMessage::decode(description, &*detail.value).ok()?;
        serde_json::to_value(message).ok()
    });
    match message {
        Some(Value::Object(mut fields)) => {
            fields.insert("@type".to_owned(), json!(detail.type_url));
            Value::Object(fields)
        }
        Some(value) => json!({"@type": detail.type_url, "value": value}),
        None => json!({"@type": detail.type_url, "base64": STANDARD.encode(&detail.value)}),
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn known_details_are_readable_and_unknown_ones_stay() {
        let details = ErrorDetails::with_bad_request_violation("s", "is empty");
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let decoded = decode(status.details(), &DescriptorPool::new());
        assert_eq!(
            decoded,
            [json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "s", "description": "is empty"}],
            })]
        );
        let own = Any {
            type_url: "x/a.B".to_owned(),
            value: vec![1, 2],
        };
        let own = pb::Status {
            details: vec![own],
            ..Default::default()
        };
        let decoded = decode(&own.encode_to_vec(), &DescriptorPool::new());
        assert_eq!(decoded, [json!({"@type": "x/a.B", "base64": "AQI="})]);
        assert!(decode(&[], &DescriptorPool::new()).is_empty());
        assert_eq!(decode(b"\xff", &DescriptorPool::new()).len(), 1);
    }
}
