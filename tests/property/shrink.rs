//! The smallest list that still fails.

/// Takes steps out, by halves, quarters, …, one by one, as long as what is left still fails and there is time. Gives
/// the smallest list that was seen to fail; the given one is taken to fail.
///
/// A history that fails only sometimes shrinks less: what is left out and then passes by luck stays in.
pub(super) async fn shrink<T: Clone>(all: Vec<T>, in_time: impl Fn() -> bool, mut fails: impl AsyncFnMut(&[T]) -> bool) -> Vec<T> {
    let mut smallest = all;
    let mut size = smallest.len().div_ceil(2);
    while size > 0 {
        let before = smallest.len();
        let mut from = 0;
        // The end first: what came behind the failure goes at once.
        while from < smallest.len() && in_time() {
            let end = smallest.len() - from;
            let fewer = [&smallest[..end.saturating_sub(size)], &smallest[end..]].concat();
            if fails(&fewer).await {
                smallest = fewer;
            } else {
                from += size;
            }
        }
        if !in_time() {
            break;
        }
        // Single steps are tried again until none can go.
        size = if size == 1 && smallest.len() < before { 1 } else { size / 2 };
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::shrink;
    use std::cell::Cell;

    /// Fails where 3 stands somewhere before 50, and 51 anywhere.
    #[tokio::test]
    async fn a_failure_shrinks_to_what_it_needs() {
        let fails = async |list: &[u32]| {
            let at = |n: u32| list.iter().position(|other| *other == n);
            at(3).zip(at(50)).is_some_and(|(three, fifty)| three < fifty) && at(51).is_some()
        };
        assert_eq!(shrink((0..100).collect(), || true, fails).await, [3, 50, 51]);
        assert_eq!(shrink(vec![51, 3, 50], || true, fails).await, [51, 3, 50]);
    }

    #[tokio::test]
    async fn what_depends_on_a_pair_goes_in_a_further_round() {
        // Nothing may go but from the end.
        let fails = async |list: &[u32]| list.contains(&0) && list.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert_eq!(shrink((0..37).collect(), || true, fails).await, [0]);
    }

    #[tokio::test]
    async fn when_time_is_up_the_smallest_so_far_is_given() {
        let tried = Cell::new(0);
        let fails = async |list: &[u32]| {
            tried.set(tried.get() + 1);
            list.contains(&1)
        };
        let smallest = shrink((0..64).collect(), || tried.get() < 3, fails).await;
        assert_eq!(tried.get(), 3);
        assert!(smallest.contains(&1) && smallest.len() == 16, "{smallest:?}");
    }
}
