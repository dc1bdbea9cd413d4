//! Chunks that touch each other are one source: in a prompt they stand as they do in the document, under one number.

use crate::spec::Source;

/// The sources, those joined between which nothing but white space stands in the document; `text` gives its stored text.
/// A joined source has the place of the first of its parts, and the headings of the part that begins it. Beside them:
/// the place of each given source among the joined ones.
///
/// # Errors
/// Those of `text`.
pub fn join_adjacent<E>(
    sources: &[Source],
    text: &dyn Fn(&str) -> Result<Option<String>, E>,
) -> Result<(Vec<Source>, Vec<usize>), E> {
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&i| (&sources[i].document, sources[i].start));
    // Runs of sources that touch, each in the order of the document.
    let mut runs: Vec<(Source, Vec<usize>)> = Vec::new();
    for i in order {
        let next = &sources[i];
        if let Some((run, parts)) = runs.last_mut().filter(|(run, _)| run.document == next.document)
            && let Some(both) = text(&next.document)?.and_then(|text| together(run, next, &text))
        {
            run.text = both;
            parts.push(i);
        } else {
            runs.push((next.clone(), vec![i]));
        }
    }
    runs.sort_by_key(|(_, parts)| parts.iter().copied().min());
    let mut places = vec![0; sources.len()];
    for (place, (_, parts)) in runs.iter().enumerate() {
        parts.iter().for_each(|&i| places[i] = place);
    }
    Ok((runs.into_iter().map(|(source, _)| source).collect(), places))
}

/// The text from the beginning of `first` to the end of `second`, if they touch.
fn together(first: &Source, second: &Source, text: &str) -> Option<String> {
    let gap = text.get(first.start + first.text.len()..second.start)?;
    let both = text.get(first.start..second.start + second.text.len())?;
    gap.trim().is_empty().then(|| both.to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const TEXT: &str = "One.\n\nTwo.\n\nThree. Four.";

    fn source(document: &str, text: &str) -> Source {
        let start = TEXT.find(text).expect("a part of the text");
        Source { document: document.into(), start, headings: vec![text.into()], text: text.into() }
    }

    #[track_caller]
    fn check(sources: &[Source], expected: &[(&str, &str, &str)], places: &[usize]) {
        let stored = |_: &str| Ok::<_, Infallible>(Some(TEXT.to_owned()));
        let Ok((joined, got)) = join_adjacent(sources, &stored);
        let plain: Vec<_> = joined
            .iter()
            .map(|s| (s.document.as_str(), s.text.as_str(), s.headings[0].as_str()))
            .collect();
        assert_eq!(plain, expected);
        assert_eq!(got, places);
        for s in &joined {
            assert_eq!(&TEXT[s.start..][..s.text.len()], s.text);
        }
    }

    #[test]
    fn what_touches_is_joined_at_the_better_place() {
        check(
            &[source("a", "Three."), source("b", "One."), source("a", "Two.")],
            &[("a", "Two.\n\nThree.", "Two."), ("b", "One.", "One.")],
            &[0, 1, 0],
        );
    }

    #[test]
    fn one_closes_the_gap_between_two() {
        check(
            &[source("a", "One."), source("a", "Three."), source("a", "Two.")],
            &[("a", "One.\n\nTwo.\n\nThree.", "One.")],
            &[0, 0, 0],
        );
    }

    #[test]
    fn what_lies_apart_or_elsewhere_stays() {
        let apart = [source("a", "Three."), source("a", "One."), source("b", "Two.")];
        check(
            &apart,
            &[("a", "Three.", "Three."), ("a", "One.", "One."), ("b", "Two.", "Two.")],
            &[0, 1, 2],
        );
        check(&[], &[], &[]);
        // The document is gone: nothing is known about what lies between.
        let gone = |_: &str| Ok::<_, Infallible>(None);
        let Ok((joined, _)) = join_adjacent(&[source("a", "One."), source("a", "Two.")], &gone);
        assert_eq!(joined.len(), 2);
    }
}
