//! Elections, dead members and frozen ones, on either side: nobody has to do anything.

mod real {
    use crate::support::{Ferry, Pair, no_slowness, reached, slowness};
    use serde_json::Value;
    use std::time::Duration;
    use testbed::{DataSet, Load, LoadOptions, Options, ReplicaSet, fill};
    use tokio::time::sleep;

    /// Longer than any time-out of a driver that a frozen server is noticed by.
    const FROZEN: Duration = Duration::from_secs(12);

    /// Many nodes share this machine: the load is no more than makes every moment interesting.
    async fn begin(nodes_of_source: usize, nodes_of_target: usize) -> (Pair, Load, Ferry) {
        let source = Options { nodes: nodes_of_source, oplog_mb: 1024, ..Options::default() };
        let pair = Pair::with(source, Options { nodes: nodes_of_target, ..Options::default() }).await;
        fill(&pair.from, DataSet { documents: 12_000, ..DataSet::default() }).await.unwrap();
        let load = Load::start(pair.from.clone(), LoadOptions { ops_per_second: 500, ..LoadOptions::default() });
        // Also where another member is the primary by then.
        for n in 0..nodes_of_target {
            pair.target.admin(n, slowness(&["insert"], Duration::from_millis(300))).await.unwrap();
        }
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "2"]);
        let copying = |s: &Value| reached(s, "copying") && s["copy"]["documents"].as_u64() > Some(0);
        let status = ferry.wait_for("some of the copy", copying).await;
        assert_eq!(status["phase"], "copying", "{status:#}");
        (pair, load, ferry)
    }

    async fn no_longer_slow(set: &ReplicaSet) {
        for n in 0..set.addresses().len() {
            set.admin(n, no_slowness()).await.unwrap();
        }
    }

    /// Waits until what the source did meanwhile is on the target, by itself.
    async fn goes_on(pair: &Pair, ferry: &mut Ferry, behind: &str) {
        ferry.wait_until_caught_up(&pair.from).await;
        let status = ferry.status().await;
        eprintln!("{behind}: {} with {} retries", status["phase"], status["retries"]);
        assert_eq!(status["activity"], "running", "{status:#}");
    }

    async fn hand_over(pair: Pair, load: Load, mut ferry: Ferry) {
        ferry.cutover_and_end().await;
        let counts = load.stop().await;
        assert_eq!(counts.errors, 0, "{counts:?}");
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn elections_on_the_source_need_nobody() {
        let (pair, load, mut ferry) = begin(3, 1).await;
        pair.source.step_down().await.unwrap();
        goes_on(&pair, &mut ferry, "stepped down while copying").await;
        no_longer_slow(&pair.target).await;
        ferry.wait_for_phase("tailing").await;
        let primary = pair.source.step_down().await.unwrap();
        goes_on(&pair, &mut ferry, "stepped down while tailing").await;
        pair.source.kill(primary);
        pair.source.primary().await.unwrap();
        goes_on(&pair, &mut ferry, "its primary killed").await;
        pair.source.restart(primary).await.unwrap();
        pair.source.all_members_ready().await.unwrap();
        hand_over(pair, load, ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn elections_on_the_target_need_nobody() {
        let (pair, load, mut ferry) = begin(1, 3).await;
        pair.target.step_down().await.unwrap();
        goes_on(&pair, &mut ferry, "stepped down while copying").await;
        no_longer_slow(&pair.target).await;
        ferry.wait_for_phase("tailing").await;
        let primary = pair.target.step_down().await.unwrap();
        goes_on(&pair, &mut ferry, "stepped down while tailing").await;

        let secondary = (primary + 1) % 3;
        pair.target.kill(secondary);
        goes_on(&pair, &mut ferry, "a secondary killed").await;
        pair.target.restart(secondary).await.unwrap();
        pair.target.all_members_ready().await.unwrap();

        let primary = pair.target.primary().await.unwrap();
        pair.target.pause(primary).unwrap();
        // The length of the fault, not a wait for anything.
        sleep(FROZEN).await;
        pair.target.unpause(primary).unwrap();
        goes_on(&pair, &mut ferry, "the primary frozen").await;
        pair.target.all_members_ready().await.unwrap();
        hand_over(pair, load, ferry).await;
    }
}
