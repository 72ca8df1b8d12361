//! What a message says that we do not honour: fields we refuse and fields we do not declare.
