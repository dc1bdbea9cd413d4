//! From text to terms: words, lower-cased, stemmed in the language of the document.
//!
//! The language of a document is detected, so a query, whose few words say little about theirs, is analysed in
//! every language that documents of the index have, and finds what any of these analyses finds. All languages
//! share one space of terms: a stem that two of them have in common is one term. The stems that one word of a query
//! has in several languages are as rare as all of them together, and a stop word is in every text of its language:
//! else a single text in another language, or taken for one, would hold the rarest word of every query.

use frostem::{Algorithm, Stemmer};
use unicode_normalization::char::is_combining_mark;
use whatlang::{Detector, Lang, Script};

/// Changes with the terms of any text.
pub(crate) const VERSION: u32 = 3;
/// Longer words are not words: encoded data, paths, hashes.
const MAX_WORD_BYTES: usize = 100;
/// A language is clear from this much of a text.
const DETECTED_BYTES: usize = 400;
/// Languages of one script are not told apart by less: a wrong stemmer makes other terms of the same words.
const LEAST_BYTES: usize = 64;

/// How a text is analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Language {
    /// Words as they are.
    Plain,
    /// One that has a stemmer, by its place in [`LANGUAGES`].
    Stemmed(u8),
}

/// Languages that are told apart and stemmed. The order is part of stored indexes.
const LANGUAGES: &[(Lang, Algorithm)] = &[
    (Lang::Eng, Algorithm::English),
    (Lang::Deu, Algorithm::German),
    (Lang::Fra, Algorithm::French),
    (Lang::Spa, Algorithm::Spanish),
    (Lang::Ita, Algorithm::Italian),
    (Lang::Por, Algorithm::Portuguese),
    (Lang::Nld, Algorithm::Dutch),
    (Lang::Dan, Algorithm::Danish),
    (Lang::Swe, Algorithm::Swedish),
    (Lang::Nob, Algorithm::Norwegian),
    (Lang::Fin, Algorithm::Finnish),
    (Lang::Hun, Algorithm::Hungarian),
    (Lang::Ron, Algorithm::Romanian),
    (Lang::Tur, Algorithm::Turkish),
    (Lang::Rus, Algorithm::Russian),
    (Lang::Ell, Algorithm::Greek),
    (Lang::Ara, Algorithm::Arabic),
    (Lang::Tam, Algorithm::Tamil),
];

const ENGLISH: Language = Language::Stemmed(0);

/// The stop words of Lucene's English analyzer; sorted.
const ENGLISH_STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

impl Language {
    /// The language that the `chunks` of a document are written in. Where that is not clear, as in lists of names
    /// and in code, it is taken for English.
    pub(crate) fn detect<'t>(chunks: impl IntoIterator<Item = &'t str>) -> Self {
        let mut text = String::new();
        for chunk in chunks {
            let most = DETECTED_BYTES.saturating_sub(text.len());
            text.push_str(&chunk[..chunk.floor_char_boundary(most)]);
            text.push('\n');
            if text.len() >= DETECTED_BYTES {
                break;
            }
        }
        let Some(found) = Detector::new().detect(&text) else { return ENGLISH };
        let known = LANGUAGES.iter().position(|(lang, _)| *lang == found.lang());
        let clear = found.is_reliable() && text.len() >= LEAST_BYTES;
        match known {
            // Elsewhere the script says almost all.
            Some(n) if clear || found.script() != Script::Latin => Language::Stemmed(n as u8),
            None if clear || found.script() != Script::Latin => Language::Plain,
            _ => ENGLISH,
        }
    }

    pub(crate) fn to_code(self) -> u32 {
        match self {
            Language::Plain => 0,
            Language::Stemmed(n) => 1 + u32::from(n),
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        match code.checked_sub(1) {
            None => Some(Language::Plain),
            Some(n) => ((n as usize) < LANGUAGES.len()).then_some(Language::Stemmed(n as u8)),
        }
    }

    /// The term of a word that [`words`] gave, unless it is a stop word.
    pub(crate) fn term(self, word: &str) -> Option<String> {
        match self {
            Language::Plain => Some(word.to_owned()),
            ENGLISH if ENGLISH_STOP_WORDS.binary_search(&word).is_ok() => None,
            Language::Stemmed(n) => {
                Some(Stemmer::new(LANGUAGES[usize::from(n)].1).stem(word).into_owned())
            }
        }
    }
}

/// Calls `each` with every word of `text`, lower-cased, in order. Scripts without spaces between words give each
/// pair of neighbouring characters.
pub(crate) fn words(text: &str, mut each: impl FnMut(&str)) {
    let mut word = String::new();
    // Of a run of unspaced characters: the last one, and whether it was in a pair.
    let mut last: Option<(char, bool)> = None;
    let end_run = |last: &mut Option<(char, bool)>, each: &mut dyn FnMut(&str)| {
        if let Some((c, false)) = last.take() {
            each(c.encode_utf8(&mut [0; 4]));
        }
    };
    let end_word = |word: &mut String, each: &mut dyn FnMut(&str)| {
        if !word.is_empty() && word.len() <= MAX_WORD_BYTES {
            each(word);
        }
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii() {
            end_run(&mut last, &mut each);
            if c.is_ascii_alphanumeric() {
                word.push(c.to_ascii_lowercase());
            } else {
                end_word(&mut word, &mut each);
            }
        } else if is_unspaced(c) {
            end_word(&mut word, &mut each);
            if let Some((before, _)) = last {
                each(&String::from_iter([before, c]));
            }
            last = Some((c, last.is_some()));
        } else {
            end_run(&mut last, &mut each);
            if c.is_alphanumeric() || is_combining_mark(c) {
                word.extend(c.to_lowercase());
            } else {
                end_word(&mut word, &mut each);
            }
        }
    }
    end_word(&mut word, &mut each);
    end_run(&mut last, &mut each);
}

/// Chinese, Japanese, Korean and Thai letters.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0e7f}' | '\u{1100}'..='\u{11ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
        && (c.is_alphanumeric() || is_combining_mark(c))
}

/// What is looked for.
pub(crate) struct QueryTerms {
    /// In the order in which they first come; how often each does in the language in which it is most frequent.
    pub(crate) terms: Vec<(String, u32)>,
    /// The words, each once.
    pub(crate) words: Vec<QueryWord>,
}

/// What became of a word of a query.
pub(crate) struct QueryWord {
    /// Its terms, by their places.
    pub(crate) terms: Vec<usize>,
    /// Languages in which it is a stop word, by their places.
    pub(crate) stopped: Vec<usize>,
}

/// The terms of a query in `languages`.
pub(crate) fn query_terms(query: &str, languages: &[Language]) -> QueryTerms {
    let mut counts: Vec<(String, u32)> = Vec::new();
    words(query, |word| match counts.iter_mut().find(|(w, _)| w == word) {
        Some((_, count)) => *count += 1,
        None => counts.push((word.to_owned(), 1)),
    });
    let mut terms: Vec<(String, u32)> = Vec::new();
    let none = || QueryWord { terms: Vec::new(), stopped: Vec::new() };
    let mut words: Vec<QueryWord> = counts.iter().map(|_| none()).collect();
    for (place, language) in languages.iter().enumerate() {
        let mut own: Vec<(usize, u32)> = Vec::new();
        for ((word, count), found) in counts.iter().zip(&mut words) {
            let Some(term) = language.term(word) else {
                found.stopped.push(place);
                continue;
            };
            let number = terms.iter().position(|(t, _)| *t == term).unwrap_or_else(|| {
                terms.push((term, 0));
                terms.len() - 1
            });
            if !found.terms.contains(&number) {
                found.terms.push(number);
            }
            match own.iter_mut().find(|(n, _)| *n == number) {
                Some((_, times)) => *times += count,
                None => own.push((number, *count)),
            }
        }
        for (number, times) in own {
            terms[number].1 = times.max(terms[number].1);
        }
    }
    QueryTerms { terms, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        words(text, |w| all.push(w.to_owned()));
        all
    }

    #[test]
    fn words_end_where_letters_and_digits_do() {
        assert_eq!(
            of("Don't PANIC_now, x86-64; Ünï 12.5"),
            ["don", "t", "panic", "now", "x86", "64", "ünï", "12", "5"]
        );
        assert_eq!(of(&format!("a {} b", "x".repeat(101))), ["a", "b"]);
        // Vowel signs belong to their words.
        assert_eq!(of("हिन्दी भाषा"), ["हिन्दी", "भाषा"]);
    }

    #[test]
    fn scripts_without_spaces_give_pairs() {
        assert_eq!(of("東京都 abc 京"), ["東京", "京都", "abc", "京"]);
        assert_eq!(of("RAGとは何"), ["rag", "とは", "は何"]);
        assert_eq!(of("한국어"), ["한국", "국어"]);
    }

    #[test]
    fn languages_are_told_apart_and_stemmed() {
        let check = |text: &str, word: &str, term: &str| {
            let language = Language::detect([text]);
            assert_eq!(language.term(word).as_deref(), Some(term), "{language:?}");
            assert_eq!(Language::from_code(language.to_code()), Some(language));
        };
        check("The warranty lasts two years and covers all damage by lightning.", "years", "year");
        check(
            "Das Lager ist heute geschlossen, weil die Fenster und Dächer vor dem Winter geprüft werden.",
            "fenster",
            "fenst",
        );
        check(
            "Nous avons ouvert la fenêtre parce que la chambre était trop chaude pendant la nuit.",
            "chambres",
            "chambr",
        );
        check("Гарантия действует два года и покрывает ущерб от молнии.", "года", "год");
        // Nothing can be told about these.
        assert_eq!(Language::detect(["w17 w2 w9"]), ENGLISH);
        assert_eq!(Language::detect([""]), ENGLISH);
        assert_eq!(ENGLISH.term("the"), None);
        assert!(ENGLISH_STOP_WORDS.is_sorted());
        assert_eq!(Language::from_code(99), None);
    }

    #[test]
    fn a_query_is_analysed_in_every_language() {
        let german = Language::Stemmed(1);
        let found = query_terms("the Häuser houses house", &[ENGLISH, german]);
        let expected = [("häuser", 1), ("hous", 2), ("the", 1), ("haus", 1)];
        assert_eq!(found.terms, expected.map(|(t, n)| (t.to_owned(), n)));
        let words: Vec<_> = found.words.iter().map(|w| (&w.terms[..], &w.stopped[..])).collect();
        assert_eq!(words, [(&[2][..], &[0][..]), (&[0, 3], &[]), (&[1], &[]), (&[1], &[])]);
    }
}
