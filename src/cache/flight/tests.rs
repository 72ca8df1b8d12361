//! Who reads what, and how it ends for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use http::StatusCode;

use super::*;
use crate::cache::{Freshness, Variant};

fn head() -> Arc<Entry> {
    let head = (StatusCode::OK, HeaderMap::new());
    Arc::new(Entry::new(head, Variant::default(), Freshness::default()))
}

fn read(follower: &mut Follower) -> Poll<Option<Result<Bytes, Broken>>> {
    let part = follower.poll_part(&mut Context::from_waker(Waker::noop()));
    part.map(|part| {
        part.map(|part| match part? {
            Part::Data(data) => Ok(data),
            Part::Trailers(_) => Ok(Bytes::from_static(b"trailers")),
        })
    })
}

fn wanted(flight: &Flight) -> Poll<bool> {
    flight.poll_wanted(&mut Context::from_waker(Waker::noop()))
}

fn data(text: &'static str) -> Poll<Option<Result<Bytes, Broken>>> {
    Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes()))))
}

#[test]
fn a_fetch_hears_that_its_last_reader_left_before_it_asked_or_after() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Arc::clone(&woken).into();
    let left = |flight: &Flight| flight.poll_left(&mut Context::from_waker(&waker));
    let flight = Arc::new(Flight::default());
    let last = flight.follow().unwrap();
    assert_eq!((wanted(&flight), left(&flight)), (Poll::Ready(true), Poll::Pending));
    drop(last);
    assert!(woken.0.load(Ordering::Relaxed));
    assert!(left(&flight).is_ready());
}

#[tokio::test]
async fn late_followers_read_from_the_beginning_and_on_from_the_store() {
    let flight = Arc::new(Flight::default());
    let end = EndGuard(Arc::clone(&flight));
    let mut first = flight.follow().unwrap();
    flight.say(Outcome::Comes(head()));
    flight.push(Bytes::from_static(b"ab"));
    assert_eq!(read(&mut first), data("ab"));
    assert!(read(&mut first).is_pending());
    flight.push(Bytes::from_static(b"cd"));
    let mut second = flight.follow().unwrap();
    assert!(matches!(second.outcome().await, Outcome::Comes(_)));
    assert_eq!(read(&mut second), data("ab"));
    let mut entry = head().like();
    entry.body = flight.body();
    flight.stored(Arc::new(entry));
    flight.finish(None);
    drop(end);
    assert_eq!((read(&mut first), read(&mut second)), (data("cd"), data("cd")));
    assert!(first.is_at_end() && read(&mut first) == Poll::Ready(None));
    let mut third = flight.follow().unwrap();
    assert_eq!(read(&mut third), data("abcd"));
}

#[test]
fn what_is_not_stored_is_let_go_at_the_pace_of_the_slowest() {
    let flight = Arc::new(Flight::default());
    let (mut quick, slow) = (flight.follow().unwrap(), flight.follow().unwrap());
    flight.push(Bytes::from(vec![b'x'; 1 << 20]));
    assert_eq!(wanted(&flight), Poll::Ready(true), "it may be stored");
    flight.pass();
    assert!(flight.follow().is_none());
    assert!(wanted(&flight).is_pending());
    while read(&mut quick).is_ready() {}
    let kept = flight.0.lock().pieces.len();
    assert_eq!(kept, (1_usize << 20).div_ceil(PIECE));
    drop(slow);
    assert_eq!(flight.0.lock().pieces.len(), 0);
    assert_eq!(wanted(&flight), Poll::Ready(true));
    drop(quick);
    assert_eq!(wanted(&flight), Poll::Ready(false), "nobody is left");
}

#[test]
fn who_keeps_others_waiting_is_left_behind() {
    let flight = Arc::new(Flight::default());
    let (mut quick, mut slow) = (flight.follow().unwrap(), flight.follow().unwrap());
    flight.push(Bytes::from(vec![b'x'; 1 << 20]));
    assert_eq!(flight.held_up_at(), None, "it may be stored");
    flight.pass();
    assert_eq!(flight.held_up_at(), None, "nobody waits");
    while read(&mut quick).is_ready() {}
    assert_eq!(flight.held_up_at(), Some(0));
    assert_eq!(read(&mut slow), Poll::Ready(Some(Ok(Bytes::from(vec![b'x'; PIECE])))));
    assert_eq!(flight.held_up_at(), Some(PIECE as u64));
    flight.leave_behind(PIECE as u64);
    assert_eq!((wanted(&flight), flight.held_up_at()), (Poll::Ready(true), None));
    assert_eq!(flight.0.lock().pieces.len(), 0);
    assert_eq!(read(&mut slow), Poll::Ready(Some(Err(Broken))));
    assert!(!slow.is_at_end());
    drop(slow);
    flight.push(Bytes::from_static(b"a"));
    assert_eq!(read(&mut quick), data("a"));
}

#[tokio::test]
async fn a_fetch_that_ends_without_a_word_is_nothing_and_one_that_breaks_off_is_broken() {
    let flight = Arc::new(Flight::default());
    let mut follower = flight.follow().unwrap();
    drop(EndGuard(Arc::clone(&flight)));
    assert!(matches!(follower.outcome().await, Outcome::Gone));
    let flight = Arc::new(Flight::default());
    let mut follower = flight.follow().unwrap();
    flight.say(Outcome::Comes(head()));
    flight.push(Bytes::from_static(b"a"));
    drop(EndGuard(Arc::clone(&flight)));
    assert_eq!(read(&mut follower), data("a"));
    assert_eq!(read(&mut follower), Poll::Ready(Some(Err(Broken))));
    assert!(matches!(flight.outcome(), Some(Outcome::Refused)));
}

#[test]
fn however_it_arrives_a_body_is_kept_in_whole_pieces() {
    let flight = Flight::default();
    let sizes = [10, PIECE - 20, 5, 3 * PIECE, 7, PIECE + 1, 100, 2 * PIECE - 50];
    for (n, size) in sizes.into_iter().enumerate() {
        flight.push(Bytes::from(vec![u8::try_from(n).unwrap(); size]));
    }
    let body = flight.body();
    let total: usize = sizes.iter().sum();
    let lengths: Vec<usize> = body.pieces().iter().map(Bytes::len).collect();
    let (last, whole) = lengths.split_last().unwrap();
    assert!(whole.iter().all(|length| *length == PIECE), "{lengths:?}");
    assert_eq!((*last, body.length()), (total % PIECE, total as u64));
    let expected =
        sizes.iter().enumerate().flat_map(|(n, size)| vec![u8::try_from(n).unwrap(); *size]);
    assert!(body.pieces().concat().into_iter().eq(expected));
}

#[test]
fn trailers_come_last_and_once() {
    let flight = Arc::new(Flight::default());
    let mut follower = flight.follow().unwrap();
    flight.finish(Some(HeaderMap::new()));
    assert!(!follower.is_at_end());
    assert_eq!(read(&mut follower), data("trailers"));
    assert!(follower.is_at_end());
    assert_eq!(read(&mut follower), Poll::Ready(None));
}
