//! `google.protobuf.Any` to message and back.
