//! Elections cost time and nothing else: step-downs and lost members on either side, under load, without a manual step.

mod real {
    use crate::support::{Ferry, Pair, seed};
    use std::time::Duration;
    use testbed::{DataSet, Load, LoadOptions, Options, ReplicaSet, connect, fill};

    const THREE: usize = 3;

    fn nodes(nodes: usize) -> Options {
        Options { nodes, ..Options::default() }
    }

    async fn loaded(pair: &Pair, rate: u32) -> Load {
        fill(&pair.from, DataSet { documents: 30_000, ..DataSet::default() }).await.unwrap();
        let client = connect(&pair.source.uri()).await.unwrap();
        Load::start(client, LoadOptions { seed: seed("election"), ops_per_second: rate, ..LoadOptions::default() })
    }

    /// Small partitions, so that the copy takes its time.
    fn ferry(pair: &Pair) -> Ferry {
        pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "2", "--copy-writers", "2"])
    }

    /// Ends the load, hands over, and compares.
    async fn finish(pair: Pair, mut ferry: Ferry, load: Load) {
        let counts = load.stop().await;
        assert!(counts.operations > 1_000, "the load did next to nothing: {counts:?}");
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    async fn stepped_down(pair: Pair, set: impl Fn(&Pair) -> &ReplicaSet) {
        let load = loaded(&pair, 1_000).await;
        let mut ferry = ferry(&pair);
        ferry.wait_for("some of the copy", |s| s["phase"] == "copying" && s["copy"]["documents"].as_u64() > Some(1_000)).await;
        set(&pair).step_down().await.unwrap();
        ferry.wait_for_phase("tailing").await;
        set(&pair).step_down().await.unwrap();
        ferry.wait_until_caught_up(&pair.from).await;
        finish(pair, ferry, load).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_source_may_elect_another_primary_during_copy_and_tail() {
        let pair = Pair::with(nodes(THREE), nodes(1)).await;
        stepped_down(pair, |pair| &pair.source).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_target_may_elect_another_primary_during_copy_and_tail() {
        let pair = Pair::with(nodes(1), nodes(THREE)).await;
        stepped_down(pair, |pair| &pair.target).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_target_may_lose_a_member_and_its_primary_may_stop_answering() {
        let pair = Pair::with(nodes(1), nodes(THREE)).await;
        let load = loaded(&pair, 500).await;
        let mut ferry = ferry(&pair);
        ferry.wait_for_phase("tailing").await;
        let primary = pair.target.primary().await.unwrap();
        let other = (primary + 1) % THREE;
        pair.target.kill(other);
        ferry.wait_until_caught_up(&pair.from).await;
        pair.target.restart(other).await.unwrap();
        pair.target.all_members_ready().await.unwrap();
        // Silent rather than gone: nobody closes its connections. The others elect another.
        let primary = pair.target.primary().await.unwrap();
        pair.target.pause(primary).unwrap();
        tokio::time::sleep(Duration::from_secs(12)).await;
        pair.target.unpause(primary).unwrap();
        pair.target.all_members_ready().await.unwrap();
        ferry.wait_until_caught_up(&pair.from).await;
        finish(pair, ferry, load).await;
    }
}
