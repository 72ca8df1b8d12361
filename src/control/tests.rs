//! The rules of control, shown without a network: updates in; verdicts, subscriptions and
//! snapshots out.

mod extensions;
mod fixture;
mod restoring;
mod running;
mod subscribing;
mod verdicts;
mod warming;
