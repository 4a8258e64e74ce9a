//! Pages of lists.

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page<T, P> {
    pub rows: Vec<T>,
    /// The next page begins after this position; `None` on the last page.
    pub next: Option<P>,
}

impl<T, P> Page<T, P> {
    /// Cuts off what is not on the page. `fetched` has one row more than `limit` if there is a next page, which begins
    /// after the `position` of the last row.
    pub(crate) fn new(fetched: impl IntoIterator<Item = T>, limit: u32, position: impl FnOnce(&T) -> P) -> Self {
        let limit = limit as usize;
        let mut rows: Vec<T> = fetched.into_iter().collect();
        let has_next = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_next).map(position);
        Self { rows, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_next_one_only_if_more_rows_were_fetched() {
        let page = |fetched: u32| Page::new(0..fetched, 3, |row| *row);
        for (fetched, rows, next) in [(0, vec![], None), (3, vec![0, 1, 2], None), (4, vec![0, 1, 2], Some(2))] {
            let page = page(fetched);
            assert_eq!((page.rows, page.next), (rows, next), "{fetched}");
        }
    }
}
