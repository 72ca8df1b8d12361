//! Resource files: read once, read again when renamed over, and harmless when bad.

use super::super::{Events, Xds};
use super::*;
use crate::proto::envoy::config::core::v3::Node;

const CDS: ResourceType = ResourceType::Cluster;

/// One resource a line; a line of `!` is an error.
fn lines(bytes: &[u8]) -> Result<Vec<Any>, String> {
    let text = String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())?;
    let any = |line: &str| Any { type_url: CDS.type_url().into(), value: line.into() };
    let resources =
        text.lines().map(|l| if l == "!" { Err("line is !".into()) } else { Ok(any(l)) });
    resources.collect()
}

fn replace(directory: &std::path::Path, text: &str) -> PathBuf {
    let (new, path) = (directory.join("new"), directory.join("cds.yaml"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}

async fn event(events: &mut Events) -> Event {
    let next = tokio::time::timeout(Duration::from_secs(20), events.recv());
    next.await.expect("an event should have come").unwrap()
}

async fn update(events: &mut Events) -> (Update, Vec<String>) {
    let Event::Update(update) = event(events).await else { panic!("an update should have come") };
    let text = |r: &Resource| String::from_utf8(r.body.value.clone()).unwrap();
    let texts = update.resources.iter().map(text).collect();
    (update, texts)
}

fn subscribed(path: PathBuf) -> (Xds, Events) {
    let (xds, events) = Xds::start(Node::default(), 8, lines);
    xds.subscribe_all(&Source::File(path), CDS);
    (xds, events)
}

#[tokio::test]
async fn a_file_is_read_and_read_again_when_another_is_renamed_over_it() {
    let directory = tempfile::tempdir().unwrap();
    let (xds, mut events) = subscribed(replace(directory.path(), "a\nb"));
    let (first, texts) = update(&mut events).await;
    assert!(first.full && texts == ["a", "b"]);
    xds.verdict(first.token, Verdict::accept());
    replace(directory.path(), "c");
    let (second, texts) = update(&mut events).await;
    assert_eq!(texts, ["c"]);
    assert_ne!(second.version, first.version);
    // Two more while control decides: only the last is worth telling.
    replace(directory.path(), "d");
    replace(directory.path(), "e");
    let rejected = vec![Rejection { name: "c".into(), error: "bad".into() }];
    xds.verdict(second.token, Verdict { rejected });
    assert_eq!(update(&mut events).await.1, ["e"]);
    let status = &xds.status()[0];
    assert_eq!(status.types[0].last_nack.as_deref(), Some("c: bad"));
    assert_eq!(status.types[0].version, &*first.version);
}

#[tokio::test]
async fn a_bad_file_is_told_once_and_a_good_one_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cds.yaml");
    let (xds, mut events) = subscribed(path.clone());
    let Event::Disconnected { error, ty, .. } = event(&mut events).await else { panic!() };
    assert!(error.contains("cds.yaml") && ty == Some(CDS), "{error}");
    replace(directory.path(), "a\n!");
    let Event::Disconnected { error, .. } = event(&mut events).await else { panic!() };
    assert!(error.contains("line is !"), "{error}");
    assert!(!xds.status()[0].connected);
    replace(directory.path(), "a");
    assert_eq!(update(&mut events).await.1, ["a"]);
    assert!(xds.status()[0].connected);
}

#[tokio::test]
async fn a_watched_directory_stands_in_for_the_files_own() {
    let (files, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = replace(files.path(), "a");
    let (xds, mut events) = Xds::start(Node::default(), 8, lines);
    xds.watch_directory(path.clone(), watched.path().to_owned());
    xds.subscribe_all(&Source::File(path), CDS);
    let (first, _) = update(&mut events).await;
    xds.verdict(first.token, Verdict::accept());
    replace(files.path(), "b");
    replace(watched.path(), "anything");
    assert_eq!(update(&mut events).await.1, ["b"]);
}

#[tokio::test]
async fn a_new_subscription_brings_an_unchanged_file_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = replace(directory.path(), "a");
    let (xds, mut events) = subscribed(path.clone());
    let (first, _) = update(&mut events).await;
    xds.verdict(first.token, Verdict::accept());
    xds.subscribe(&Source::File(path), CDS, &["late".into()]);
    let (second, texts) = update(&mut events).await;
    assert_eq!((texts, &second.version), (vec!["a".to_owned()], &first.version));
}
