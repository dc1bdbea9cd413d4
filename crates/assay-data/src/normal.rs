//! When two texts count as the same, and when nearly.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

/// The form in which two texts are compared: NFKC, lower case, single spaces, and words without
/// the punctuation around them. Signs within or standing for words stay: `C++` is not `C#`.
pub fn normalise(text: &str) -> String {
    let folded: String = text.nfkc().flat_map(char::to_lowercase).collect();
    let words = folded.split_whitespace().map(|w| w.trim_matches(is_punctuation));
    words.filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '.' | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '"'
            | '\''
            | '`'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '…'
            | '“'
            | '”'
            | '„'
            | '‘'
            | '’'
            | '«'
            | '»'
            | '¿'
            | '¡'
            | '。'
            | '、'
            | '「'
            | '」'
            | '-'
            | '–'
            | '—'
    )
}

/// Characters in a shingle. Five tell words apart in alphabetic scripts and phrases in Chinese.
const SHINGLE: usize = 5;

/// Hashes of all runs of [`SHINGLE`] characters of a normalised text, sorted, each once.
fn shingles(text: &str) -> Vec<u64> {
    let bounds: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
    let runs = bounds.len().saturating_sub(SHINGLE).max(1);
    let mut hashes: Vec<u64> = (0..runs)
        .map(|i| hash(&text[bounds[i]..bounds[(i + SHINGLE).min(bounds.len() - 1)]]))
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

fn hash(text: &str) -> u64 {
    let bytes = *blake3::hash(text.as_bytes()).as_bytes();
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// For each text of `queries` the most similar text of `among` whose sets of shingles have a Jaccard
/// similarity of at least `threshold`, with that similarity; ties go to the first. Texts are normalised.
///
/// Exact, by prefix filtering: two sets that are this similar share one of their few rarest members
/// (R. Bayardo, Y. Ma, R. Srikant, "Scaling up all pairs similarity search", 2007).
pub(crate) fn near_duplicates(
    queries: &[String],
    among: &[String],
    threshold: f64,
) -> Vec<Option<(usize, f64)>> {
    let mut among: Vec<Vec<u64>> = among.iter().map(|t| shingles(t)).collect();
    let mut queries: Vec<Vec<u64>> = queries.iter().map(|t| shingles(t)).collect();
    let mut frequency: HashMap<u64, u32> = HashMap::new();
    among.iter().chain(&queries).flatten().for_each(|s| *frequency.entry(*s).or_default() += 1);
    for set in among.iter_mut().chain(&mut queries) {
        set.sort_unstable_by_key(|s| (frequency[s], *s));
    }
    // The small term keeps a product like 27.000000000000004 from being rounded up.
    let needed = |set: &[u64]| (threshold * set.len() as f64 - 1e-9).ceil() as usize;
    let prefix = |set: &[u64]| set.len() + 1 - needed(set).max(1);
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, set) in among.iter().enumerate() {
        set[..prefix(set)].iter().for_each(|s| index.entry(*s).or_default().push(i));
    }
    let best = |query: &Vec<u64>| {
        let mut candidates: Vec<usize> = query[..prefix(query)]
            .iter()
            .flat_map(|s| index.get(s).map_or(&[][..], Vec::as_slice))
            .copied()
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        let similar = candidates.into_iter().map(|i| (i, jaccard(query, &among[i], &frequency)));
        similar
            .filter(|(_, j)| *j >= threshold)
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    };
    queries.iter().map(best).collect()
}

/// Jaccard similarity of two sets that are sorted by frequency and value.
fn jaccard(a: &[u64], b: &[u64], frequency: &HashMap<u64, u32>) -> f64 {
    let rank = |s: &u64| (frequency[s], *s);
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match rank(&a[i]).cmp(&rank(&b[j])) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                (i, j, both) = (i + 1, j + 1, both + 1);
            }
        }
    }
    f64::from(both) / (a.len() + b.len() - both as usize) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn brute_force(queries: &[String], among: &[String], threshold: f64) -> Vec<Option<usize>> {
        let overlap = |a: &[u64], b: &[u64]| a.iter().filter(|s| b.contains(s)).count() as f64;
        let best = |q: &String| {
            let q = shingles(q);
            let scored = among.iter().enumerate().map(|(i, t)| {
                let t = shingles(t);
                let both = overlap(&q, &t);
                (i, both / ((q.len() + t.len()) as f64 - both))
            });
            scored
                .filter(|(_, j)| *j >= threshold)
                .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
                .map(|(i, _)| i)
        };
        queries.iter().map(best).collect()
    }

    proptest! {
        #[test]
        fn the_filter_misses_nothing(
            queries in prop::collection::vec("[ab]{0,14}", 0..8),
            among in prop::collection::vec("[ab]{0,14}", 0..8),
            threshold in 0.3..1.0_f64,
        ) {
            let found = near_duplicates(&queries, &among, threshold);
            let found: Vec<_> = found.into_iter().map(|f| f.map(|(i, _)| i)).collect();
            prop_assert_eq!(found, brute_force(&queries, &among, threshold));
        }
    }
}
