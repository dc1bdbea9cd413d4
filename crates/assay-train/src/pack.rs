//! Several rows in one forward pass: the step's rows, cut into packed micro-batches.

use assay_model::PackedBatch;

use crate::Example;

/// Packs `rows`, in their order, into batches of at most `budget` tokens. A row longer than the
/// budget gets a batch of its own. Each row is a segment: attention and positions start anew.
///
/// Returns each batch with its rows.
pub(crate) fn pack<'r, 'a>(
    rows: &'r [&'a Example],
    budget: usize,
) -> impl Iterator<Item = (PackedBatch, &'r [&'a Example])> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = rest.iter().take_while(|row| {
            used += row.tokens.len();
            used <= budget
        });
        let count = fits.count().max(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        rest = later;
        let batch = now.iter().map(|r| (r.tokens.as_slice(), r.supervised.as_slice()));
        (!now.is_empty()).then(|| (PackedBatch::pack(batch), now))
    })
}
