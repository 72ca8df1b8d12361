//! Hosts that answer badly: taken out, shown, let back, and what a change of the cluster does to that.

use serde_json::{Value, json};

use crate::harness::resources::{
    assignment, bootstrap, eds_cluster, listener, static_cluster, table, to, with,
};
use crate::harness::scripted::Delta;
use crate::harness::{Http1, Kind, Origin, Proxy, Script, eventually, get};
use crate::xds_world::World;

fn detecting(fields: Value) -> Value {
    let base = json!({ "consecutive_5xx": 3, "interval": "0.1s", "max_ejection_percent": 100 });
    json!({ "outlier_detection": with(base, fields) })
}

#[tokio::test]
async fn a_failing_origin_is_out_after_three_failures_and_back_when_its_time_is_over() {
    let (good, bad) = (Origin::http1("good").await, Origin::http1("bad").await);
    bad.script(Script::status(500));
    let cluster = with(
        static_cluster("one", &[good.address, bad.address]),
        detecting(json!({ "base_ejection_time": "0.5s" })),
    );
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    let mut client = Http1::connect(address).await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(client.get("/").await.status == 500);
    }
    assert_eq!(failed, 3);
    assert_eq!(proxy.stat("cluster.one.outlier_detection.ejections_enforced_total").await, 1);
    assert_eq!(proxy.stat("cluster.one.membership_healthy").await, 1);
    let shown = proxy.admin_text("/clusters").await;
    let line = format!("one::{}::health_flags::/failed_outlier_check", bad.address);
    assert!(shown.contains(&line), "{shown}");
    bad.script(Script::default());
    eventually("the origin is let back", async || {
        (client.get("/").await.text() == "bad").then_some(())
    })
    .await;
    proxy.until_stat("cluster.one.outlier_detection.ejections_active", 0).await;
}

#[tokio::test]
async fn an_origin_that_is_gone_is_out_and_so_is_one_that_hangs() {
    let (good, slow, gone) =
        (Origin::http1("good").await, Origin::http1("slow").await, Origin::http1("gone").await);
    slow.script(Script::held());
    // With two of three out, the last one would not be enough without this.
    let never_panic =
        json!({ "common_lb_config": { "healthy_panic_threshold": { "value": 0.0 } } });
    let cluster = with(
        with(static_cluster("one", &[good.address, slow.address, gone.address]), never_panic),
        detecting(json!({ "split_external_local_origin_errors": true,
            "consecutive_local_origin_failure": 2 })),
    );
    drop(gone);
    let route =
        crate::harness::resources::route("/", json!({ "cluster": "one", "timeout": "0.1s" }));
    let proxy = Proxy::with(bootstrap(&[listener("in", &[route])], &[cluster])).await;
    let address = proxy.listener("in").await;
    eventually("both are out", async || {
        get(address, "/").await;
        (proxy.stat("cluster.one.outlier_detection.ejections_active").await == 2).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(get(address, "/").await.text(), "good");
    }
    let counted =
        "cluster.one.outlier_detection.ejections_enforced_consecutive_local_origin_failure";
    assert_eq!(proxy.stat(counted).await, 2);
}

#[tokio::test]
async fn a_changed_cluster_keeps_its_outliers_and_one_without_detection_lets_them_back() {
    let mut world = World::delta().await;
    let (good, bad) = (Origin::http1("good").await, Origin::http1("bad").await);
    bad.script(Script::status(500));
    let hosts = assignment("two", &[good.address, bad.address]);
    let push = async |world: &mut World<Delta>, version: &str, fields: Value| {
        world.push(Kind::Cluster, version, &[with(eds_cluster("two"), fields)], &[]).await;
        world.push(Kind::Endpoints, version, std::slice::from_ref(&hosts), &[]).await;
        world.proxy.until_stat("cluster_manager.warming_clusters", 0).await;
    };
    push(&mut world, "2", detecting(json!({}))).await;
    world.push(Kind::Routes, "2", &[table("table", &[to("two")])], &[]).await;
    eventually("the bad one is out", async || {
        get(world.address, "/").await;
        let active = "cluster.two.outlier_detection.ejections_active";
        (world.proxy.find_stat(active).await == Some(1)).then_some(())
    })
    .await;
    push(&mut world, "3", detecting(json!({ "consecutive_5xx": 4 }))).await;
    for _ in 0..10 {
        assert_eq!(get(world.address, "/").await.text(), "good");
    }
    push(&mut world, "4", json!({})).await;
    world.until_status("/", 500).await;
}

#[tokio::test]
async fn a_check_that_passes_lets_an_ejected_origin_back_unless_it_is_told_not_to() {
    for (lets_back, ejections_at_the_end) in [(true, 0), (false, 1)] {
        let (good, bad) = (Origin::http1("good").await, Origin::http1("bad").await);
        bad.script(Script::status(500));
        let checks = json!({ "health_checks": [{ "timeout": "1s", "interval": "0.1s",
            "no_traffic_interval": "0.1s",
            "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {} }] });
        let cluster = with(
            with(static_cluster("one", &[good.address, bad.address]), checks),
            detecting(json!({ "base_ejection_time": "3600s", "max_ejection_time": "3600s",
                "successful_active_health_check_uneject_host": lets_back })),
        );
        let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
        let address = proxy.listener("in").await;
        let ejected = "cluster.one.outlier_detection.ejections_enforced_total";
        eventually("the bad one is out", async || {
            get(address, "/").await;
            (proxy.stat(ejected).await == 1).then_some(())
        })
        .await;
        // Both were asked once more since.
        let checked = proxy.stat("cluster.one.health_check.success").await;
        eventually("it was checked again", async || {
            let success = proxy.stat("cluster.one.health_check.success").await;
            (success >= checked + 4).then_some(())
        })
        .await;
        let active = "cluster.one.outlier_detection.ejections_active";
        assert_eq!(proxy.stat(active).await, ejections_at_the_end, "{lets_back}");
    }
}
