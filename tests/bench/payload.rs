//! Bodies for benches, the same every time.

use bytes::Bytes;

/// Numbers that are the same every time.
pub(crate) fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 7_u64;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    }
}

/// A list as an API answers it.
pub(crate) fn json(length: usize) -> Bytes {
    const WORDS: [&str; 12] = [
        "alpha", "bravo", "carbon", "delta", "ember", "fjord", "garnet", "harbor", "indigo",
        "juniper", "kelp", "lumen",
    ];
    let mut number = numbers();
    let mut text = String::from("[");
    while text.len() < length {
        let [a, b, c, d, e] = [(); 5].map(|()| WORDS[number(12)]);
        let (id, suffix, active) = (number(1_000_000), number(1_000), number(2) == 0);
        let score = number(100_000);
        text += &format!(
            "{{\"id\":{id},\"name\":\"{a} {b}\",\"email\":\"{c}{suffix}@example.org\",\
             \"active\":{active},\"score\":{}.{:03},\"tags\":[\"{d}\",\"{e}\"]}},",
            score / 1_000,
            score % 1_000,
        );
    }
    text.truncate(length);
    text.into()
}
