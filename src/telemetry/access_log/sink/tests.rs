//! Tests of the writer against real files.

use std::fs;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn sinks() -> (Telemetry, Sinks) {
    let telemetry = Telemetry::default();
    let sinks = Sinks::new(2, &telemetry);
    (telemetry, sinks)
}

fn access_log(telemetry: &Telemetry) -> Arc<AccessLogStats> {
    telemetry.group(Scope::global("access_log"))
}

fn filesystem(telemetry: &Telemetry) -> Arc<FilesystemStats> {
    telemetry.group(Scope::global("filesystem"))
}

#[test]
fn lines_stay_whole_and_in_order_for_each_worker() {
    const LINES: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (telemetry, sinks) = sinks();
    let sink = sinks.open(&Target::File(path.clone())).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let sink = &sink;
            scope.spawn(move || {
                for line in 0..LINES {
                    let text = format!("{worker} {line} {}\n", "x".repeat(line % 60));
                    sink.add(|out| out.extend_from_slice(text.as_bytes()));
                }
            });
        }
    });
    assert!(sinks.flush(LONG));
    let text = fs::read_to_string(&path).unwrap();
    let mut last = [None; 4];
    for line in text.lines() {
        let parts: Vec<_> = line.split(' ').collect();
        let (worker, number) =
            (parts[0].parse::<usize>().unwrap(), parts[1].parse::<usize>().unwrap());
        assert_eq!(parts[2].len(), number % 60, "{line}");
        assert!(last[worker] < Some(number), "{line} after {:?}", last[worker]);
        last[worker] = Some(number);
    }
    let written = text.lines().count() as u64;
    assert_eq!(written + access_log(&telemetry).logs_dropped.value(), 4 * LINES as u64);
}

#[test]
fn a_stuck_writer_costs_lines_and_not_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (telemetry, sinks) = sinks();
    let sink = sinks.open(&Target::File(path.clone())).unwrap();
    let line = [[b'x'; 1_023].as_slice(), b"\n"].concat();
    let hangs = sink.output.lock();
    for _ in 0..3_000 {
        sink.add(|out| out.extend_from_slice(&line));
    }
    // A round that had begun may have taken a part; it holds no more than one buffer.
    let dropped = access_log(&telemetry).logs_dropped.value();
    assert!((3_000 - 2 * 1_024..=3_000 - 1_024).contains(&dropped), "{dropped} were dropped");
    assert!(!sinks.flush(Duration::from_millis(1)));
    drop(hangs);
    assert!(sinks.flush(LONG));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count() as u64, 3_000 - dropped);
    assert!(text.lines().all(|l| l.len() == 1_023));
}

#[test]
fn a_file_is_opened_once_and_closed_when_nobody_logs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (_telemetry, sinks) = sinks();
    let target = Target::File(path.clone());
    let sink = sinks.open(&target).unwrap();
    assert!(Arc::ptr_eq(&sink, &sinks.open(&target).unwrap()));
    sink.add(|out| out.extend_from_slice(b"last words\n"));
    drop(sink);
    assert!(sinks.flush(LONG));
    assert_eq!(fs::read_to_string(&path).unwrap(), "last words\n");
    assert!(sinks.0.shared.state.lock().sinks.is_empty());
}

#[test]
fn reopening_follows_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rotated) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
    let (telemetry, sinks) = sinks();
    let sink = sinks.open(&Target::File(path.clone())).unwrap();
    sink.add(|out| out.extend_from_slice(b"before\n"));
    fs::rename(&path, &rotated).unwrap();
    sinks.reopen();
    assert!(sinks.flush(LONG));
    sink.add(|out| out.extend_from_slice(b"after\n"));
    assert!(sinks.flush(LONG));
    assert_eq!(fs::read_to_string(&rotated).unwrap(), "before\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    sinks.reopen();
    assert!(sinks.flush(LONG));
    assert_eq!(filesystem(&telemetry).reopen_failed.value(), 1);
}

#[test]
fn a_full_disk_is_counted_and_survived() {
    let (telemetry, sinks) = sinks();
    let sink = sinks.open(&Target::File("/dev/full".into())).unwrap();
    for round in 1..=2 {
        sink.add(|out| out.extend_from_slice(b"lost\n"));
        assert!(sinks.flush(LONG));
        assert_eq!(filesystem(&telemetry).write_failed.value(), round);
    }
}

#[test]
fn what_cannot_be_opened_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (_telemetry, sinks) = sinks();
    for path in [dir.path().to_owned(), dir.path().join("none/a.log")] {
        let fault = sinks.open(&Target::File(path)).unwrap_err();
        assert!(matches!(fault, Fault::System { .. }), "{fault}");
    }
    let unmade = Target::File(dir.path().join("a.log"));
    Sinks::check_only().open(&unmade).unwrap();
    assert!(!dir.path().join("a.log").exists());
}

#[test]
fn shutdown_writes_and_ends_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (_telemetry, sinks) = sinks();
    assert!(sinks.shutdown(LONG), "there is nothing to end yet");
    let (_telemetry, sinks) = self::sinks();
    let sink = sinks.open(&Target::File(path.clone())).unwrap();
    sink.add(|out| out.extend_from_slice(b"end\n"));
    assert!(sinks.shutdown(LONG));
    assert_eq!(fs::read_to_string(&path).unwrap(), "end\n");
    assert!(sinks.0.shared.state.lock().writer.is_none());
    assert!(sinks.shutdown(LONG));
}
