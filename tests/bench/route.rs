//! Finding a route among 10 and among 10,000, and compiling as many.

#![expect(missing_docs, reason = "criterion's macros make public items without documentation")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nuncio::config::runtime::Runtime;
use nuncio::config::{Errors, Fault};
use nuncio::proto::any::pack;
use nuncio::proto::envoy::config::core::v3::TypedExtensionConfig;
use nuncio::proto::envoy::config::route::v3 as proto;
use nuncio::proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use nuncio::route::{CompileContext, RouteTable};
use nuncio::telemetry::Telemetry;
use proto::route_match::PathSpecifier;

fn table(routes: usize, path: PathOf) -> proto::RouteConfiguration {
    let route = |n: usize| proto::Route {
        r#match: Some(proto::RouteMatch { path_specifier: Some(path(n)), ..Default::default() }),
        action: Some(proto::route::Action::Route(proto::RouteAction {
            cluster_specifier: Some(proto::route_action::ClusterSpecifier::Cluster(format!(
                "cluster-{n:05}"
            ))),
            ..Default::default()
        })),
        ..Default::default()
    };
    proto::RouteConfiguration {
        name: "routes".into(),
        virtual_hosts: vec![proto::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: (0..routes).map(route).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn compile(table: proto::RouteConfiguration) -> RouteTable {
    let compile_filter_override = |_: &str, any: &prost_types::Any| {
        Err(Errors::from(Fault::UnknownExtension(any.type_url.clone())))
    };
    let runtime = Runtime::default();
    let cx = CompileContext {
        compile_filter_override: &compile_filter_override,
        runtime: &runtime,
        telemetry: &Telemetry::default(),
    };
    RouteTable::compile(table, &cx).expect("the table is well formed")
}

/// The path that a route of this number matches.
type PathOf = fn(usize) -> PathSpecifier;

fn prefix(n: usize) -> PathSpecifier {
    PathSpecifier::Prefix(format!("/x/{n:05}/"))
}

fn template(n: usize) -> PathSpecifier {
    let path_template = format!("/x/{n:05}/{{name}}/**");
    PathSpecifier::PathMatchPolicy(TypedExtensionConfig {
        name: "template".into(),
        typed_config: Some(pack(&UriTemplateMatchConfig { path_template })),
    })
}

fn bench(criterion: &mut Criterion) {
    let kinds: [(&str, PathOf); 2] = [("prefixes", prefix), ("templates", template)];
    for (kind, path) in kinds {
        for routes in [10, 10_000] {
            find(criterion, &format!("find among {routes} {kind}"), table(routes, path), routes);
        }
        let message = table(10_000, path);
        criterion.bench_function(&format!("compile 10000 {kind}"), |bencher| {
            bencher.iter_batched(|| message.clone(), compile, BatchSize::LargeInput);
        });
    }
}

fn find(criterion: &mut Criterion, name: &str, table: proto::RouteConfiguration, routes: usize) {
    let compiled = Arc::new(compile(table));
    let heads: Vec<_> = (0..1024)
        .map(|n| {
            let path = format!("/x/{:05}/some/resource?query=1", n * 7919 % routes);
            let request = http::Request::get(path).header("host", "bench.test").body(());
            request.expect("the path is a path").into_parts().0
        })
        .collect();
    let mut next = 0;
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            next = (next + 1) % heads.len();
            black_box(compiled.find(&heads[next], || 0))
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
