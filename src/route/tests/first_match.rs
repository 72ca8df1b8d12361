//! The index finds what a scan over the configuration in its order finds.

use proptest::prelude::*;

use super::*;
use crate::proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use crate::proto::envoy::r#type::matcher::v3 as matcher;
use crate::proto::envoy::r#type::v3::FractionalPercent;

/// One route as the scan sees it.
#[derive(Debug, Clone)]
struct Rule {
    kind: Kind,
    ignore_case: bool,
    /// Value that `x-v` must have.
    header: Option<&'static str>,
    /// Value that `q` must have.
    query: Option<&'static str>,
    /// Percentage of the requests.
    share: Option<u32>,
}

/// One request.
#[derive(Debug, Clone)]
struct Asking {
    host: &'static str,
    /// None of one for `CONNECT`.
    path: Option<String>,
    header: Option<&'static str>,
    query: Option<&'static str>,
    random: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(String),
    Prefix(String),
    Segment(String),
    /// An expression, and what it means.
    Regex(&'static str, Test),
    /// A template, and what it means.
    Template(&'static str, Test),
    Connect,
}

type Test = fn(&str) -> bool;

const REGEXES: [(&str, Test); 4] = [
    ("/a.*", |path| path.starts_with("/a")),
    (".*b", |path| path.ends_with('b')),
    ("/[ab]+", |path| path.len() > 1 && path[1..].chars().all(|c| c == 'a' || c == 'b')),
    ("/", |path| path == "/"),
];

const TEMPLATES: [(&str, Test); 5] = [
    ("/a/{x}", |path| path.strip_prefix("/a/").is_some_and(|x| !x.is_empty() && !x.contains('/'))),
    ("/{x=**}", |path| path.starts_with('/')),
    ("/*/b", |path| {
        let first = path.strip_prefix('/').and_then(|path| path.strip_suffix("/b"));
        first.is_some_and(|first| !first.is_empty() && !first.contains('/'))
    }),
    ("/a/**b", |path| path.starts_with("/a/") && path.ends_with('b') && path.len() > 3),
    ("/ab", |path| path == "/ab"),
];

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["", "a", "b", "A", "ab", "aB", "abc", "b%61"]);
    prop::collection::vec(segment, 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = prop_oneof![
        path().prop_map(Kind::Exact),
        path().prop_map(Kind::Prefix),
        Just(Kind::Prefix(String::new())),
        path()
            .prop_filter("a separated prefix", |path| path.len() > 1 && !path.ends_with('/'))
            .prop_map(Kind::Segment),
        prop::sample::select(REGEXES.to_vec()).prop_map(|(text, test)| Kind::Regex(text, test)),
        prop::sample::select(TEMPLATES.to_vec()).prop_map(|(text, t)| Kind::Template(text, t)),
        Just(Kind::Connect),
    ];
    let share = prop::option::weighted(0.2, prop::sample::select(vec![0, 30, 100]));
    let value = || prop::option::weighted(0.3, prop::sample::select(vec!["1", "2"]));
    (kind, any::<bool>(), value(), value(), share).prop_map(
        |(kind, ignore_case, header, query, share)| Rule {
            kind,
            ignore_case,
            header,
            query,
            share,
        },
    )
}

fn asking() -> impl Strategy<Value = Asking> {
    let value = || prop::option::of(prop::sample::select(vec!["1", "2"]));
    let host = prop::sample::select(vec!["a.test", "b.test", "a.b", "c"]);
    let path = prop::option::weighted(0.9, path());
    (host, path, value(), value(), any::<u64>()).prop_map(|(host, path, header, query, random)| {
        // What is no path has no query either.
        let query = query.filter(|_| path.is_some());
        Asking { host, path, header, query, random }
    })
}

impl Asking {
    fn head(&self) -> RequestHead {
        let mut head = match (&self.path, self.query) {
            (Some(path), Some(value)) => get(self.host, &format!("{path}?q={value}")),
            (Some(path), None) => get(self.host, path),
            (None, _) => http::Request::connect(self.host).body(()).unwrap().into_parts().0,
        };
        if let Some(value) = self.header {
            head.headers.insert("x-v", http::HeaderValue::from_static(value));
        }
        head
    }
}

impl Rule {
    fn message(&self, cluster: String) -> proto::Route {
        let path_specifier = Some(match &self.kind {
            Kind::Exact(path) => PathSpecifier::Path(path.clone()),
            Kind::Prefix(path) => PathSpecifier::Prefix(path.clone()),
            Kind::Segment(path) => PathSpecifier::PathSeparatedPrefix(path.clone()),
            Kind::Regex(text, _) => PathSpecifier::SafeRegex(matcher::RegexMatcher {
                regex: (*text).into(),
                engine_type: None,
            }),
            Kind::Template(text, _) => PathSpecifier::PathMatchPolicy(core::TypedExtensionConfig {
                name: "template".into(),
                typed_config: Some(crate::proto::any::pack(&UriTemplateMatchConfig {
                    path_template: (*text).into(),
                })),
            }),
            Kind::Connect => PathSpecifier::ConnectMatcher(proto::route_match::ConnectMatcher {}),
        });
        let exact = |text: &str| matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(text.into())),
        };
        let header = |value: &str| proto::HeaderMatcher {
            name: "x-v".into(),
            header_match_specifier: Some(proto::header_matcher::HeaderMatchSpecifier::StringMatch(
                exact(value),
            )),
            ..Default::default()
        };
        let query = |value: &str| proto::QueryParameterMatcher {
            name: "q".into(),
            query_parameter_match_specifier: Some(
                proto::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(exact(
                    value,
                )),
            ),
        };
        let route_match = proto::RouteMatch {
            path_specifier,
            case_sensitive: Some(!self.ignore_case),
            headers: self.header.map(header).into_iter().collect(),
            query_parameters: self.query.map(query).into_iter().collect(),
            runtime_fraction: self.share.map(|numerator| core::RuntimeFractionalPercent {
                default_value: Some(FractionalPercent { numerator, denominator: 0 }),
                runtime_key: String::new(),
            }),
            grpc: None,
            tls_context: None,
        };
        let action = Some(ActionProto::Route(to_cluster(&cluster)));
        proto::Route { r#match: Some(route_match), action, ..Default::default() }
    }

    fn matches(&self, asking: &Asking) -> bool {
        let path = asking.path.as_deref().unwrap_or("");
        let fold = |text: &str| match self.ignore_case {
            true => text.to_lowercase(),
            false => text.to_owned(),
        };
        let path_matches = match &self.kind {
            Kind::Exact(text) => fold(path) == fold(text),
            Kind::Prefix(text) => fold(path).starts_with(&fold(text)),
            Kind::Segment(text) => {
                fold(path) == fold(text) || fold(path).starts_with(&(fold(text) + "/"))
            }
            Kind::Regex(_, test) | Kind::Template(_, test) => test(path),
            Kind::Connect => asking.path.is_none(),
        };
        path_matches
            && self.header.is_none_or(|value| asking.header == Some(value))
            && self.query.is_none_or(|value| asking.query == Some(value))
            && self.share.is_none_or(|share| asking.random % 100 < u64::from(share))
    }
}

const HOSTS: [&str; 4] = ["a.test", "*.test", "a.*", "*"];

/// The host by the rule of precedence, said for these names only.
fn scan_host(name: &str, count: usize) -> Option<usize> {
    let fits: [bool; 4] = [
        name == "a.test",
        name.len() > 5 && name.ends_with(".test"),
        name.len() > 2 && name.starts_with("a."),
        true,
    ];
    (0..count).find(|host| fits[*host])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_index_answers_as_a_scan(
        hosts in prop::collection::vec(prop::collection::vec(rule(), 0..24), 1..=4),
        requests in prop::collection::vec(asking(), 1..24),
    ) {
        let message = |(h, rules): (usize, &Vec<Rule>)| {
            let routes = rules.iter().enumerate();
            host(&[HOSTS[h]], routes.map(|(r, rule)| rule.message(format!("{h}-{r}"))).collect())
        };
        let compiled = compile(table(hosts.iter().enumerate().map(message).collect())).unwrap();
        for asking in requests {
            let expected = scan_host(asking.host, hosts.len()).and_then(|h| {
                let found = hosts[h].iter().position(|rule| rule.matches(&asking))?;
                Some(format!("{h}-{found}"))
            });
            let found = cluster(&compiled, &asking.head(), asking.random);
            prop_assert_eq!(found.map(|name| name.to_string()), expected, "{:?}", asking);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_compile_panic(
        rules in prop::collection::vec(rule(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        path in path(),
    ) {
        let routes = rules.iter().map(|rule| rule.message("c".into())).collect();
        let mut bytes = table(vec![host(&["*", "*.a", "a.*"], routes)]).encode_to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(message) = proto::RouteConfiguration::decode(bytes.as_slice())
            && let Ok(compiled) = compile(message)
        {
            compiled.find(&get("a.test", &path), || 0);
        }
    }
}

#[test]
fn ten_thousand_routes_compile_fast_and_are_not_scanned() {
    let routes = |count: usize| {
        let route = |n| forward(&format!("/x/{n:05}/"), &format!("cluster-{n}"));
        table(vec![host(&["*"], (0..count).map(route).collect())])
    };
    let message = routes(10_000);
    let begin = tokio::time::Instant::now();
    let large = compile(message).unwrap();
    let took = begin.elapsed();
    // Without optimisation and on a busy machine; the bench measures the real time.
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
    let small = compile(routes(10)).unwrap();
    let time = |table: &RouteTable, count: u64| {
        let heads: Vec<_> =
            (0..100).map(|n| get("a.test", &format!("/x/{:05}/y", n * 7919 % count))).collect();
        let round = || {
            let begin = tokio::time::Instant::now();
            let found = heads.iter().filter(|head| table.find(head, || 0).is_some()).count();
            assert_eq!(found, heads.len());
            begin.elapsed()
        };
        (0..20).map(|_| round()).min().unwrap()
    };
    // A scan would cost hundreds of times as much.
    let (large, small) = (time(&large, 10_000), time(&small, 10));
    assert!(large < small * 10, "{large:?} for 10,000 routes, {small:?} for 10");
}
