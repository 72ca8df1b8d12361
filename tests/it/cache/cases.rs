//! Cases by section: what the client asks, what the origin answers, and what comes of it. They are text,
//! in `cases/*.cases`, one proxy a file:
//!
//! ```text
//! config {"default_ttl": "60s"}     the cache's, before the first case, if it has one
//!
//! case 9111-3 a stated lifetime is stored
//! > GET /                           a request; the case's own path goes before its path
//! > x-a: 1                          a header of it; `body: text` is its body
//! < 200                             the origin's answer, so it is asked once; without, it is not asked
//! < cache-control: max-age=60       a header of it; `body: text`; `!date` says none
//! ^ if-none-match: "1"              a header that the origin received, or `method:` or `path:`
//! = 200 hit; ttl=60                 what the client sees: status, and the beginning of what `Cache-Status`
//!                                   says of this cache, parameter by parameter; a value left open is any
//! = age: 0                          a header of it; `body: text`
//! ```
//!
//! `^ !name` and `= !name` are absent, `~name: text` has the text in it. `<<` answers a request in the
//! background, for which the step's own answer does not wait; `<?` one that may be made or not. `< cut` is
//! no answer but the connection's end, `= *` any status. A body that is not given is `step` and the step's
//! number. Wherever a value stands, `{now}`, `{now-60}` and `{now+60}` are dates, `{base}` the case's path,
//! and `{x*9}` nine times `x`. As time passes, `age` may be somewhat more and `ttl` somewhat less.

mod format;
mod run;

use std::fmt::Write;
use std::path::Path;

use super::{cached, verdict};

/// Fewer are not all of them.
const AT_LEAST: usize = 250;

#[tokio::test]
async fn every_case_comes_out_as_its_section_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cache/cases");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "cases")).collect();
    paths.sort();
    let (mut total, mut failed, mut report) = (0, 0, String::new());
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (count, failures) = match format::parse(&text) {
            Ok(file) => (file.cases.len(), run::file(file).await),
            Err(faults) => (0, faults),
        };
        total += count;
        failed += failures.len();
        eprintln!("{name}: {count} cases, {} failures", failures.len());
        for failure in failures {
            writeln!(report, "{name}:{failure}").unwrap();
        }
    }
    eprintln!("{total} cases");
    assert_eq!(failed, 0, "of {total} cases these failed:\n{report}");
    assert!(total >= AT_LEAST, "{total} cases, not {AT_LEAST}");
}
