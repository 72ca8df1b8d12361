//! Bytes as an `Any` of any type: what it is, what is in it, how it is shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nuncio::proto::any::{effective_type, type_name, unpack};
use nuncio::proto::envoy::config::core::v3::TypedExtensionConfig;
use nuncio::proto::envoy::extensions::filters::http::router::v3::Router;
use nuncio::proto::{audit, json};
use prost::Message;
use prost_types::Any;

fuzz_target!(|data: &[u8]| {
    let Ok(any) = Any::decode(data) else { return };
    let _ = effective_type(&any);
    let _ = audit::audit(type_name(&any.type_url), &any.value);
    let _ = audit::audit("google.protobuf.Any", data);
    let _ = unpack::<Router>(&any);
    let _ = unpack::<TypedExtensionConfig>(&any);
    let _ = json::to_json(type_name(&any.type_url), &any.value);
    let _ = json::to_json("google.protobuf.Any", data);
});
