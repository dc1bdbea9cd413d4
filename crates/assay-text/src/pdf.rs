//! PDF: the text layer, page by page.
//!
//! hayro interprets the pages as a renderer does, so fonts, encodings, forms and rotations are its work;
//! ours is to put glyphs together to words, lines, paragraphs and tables (`layout.rs`). Glyphs are taken in
//! the order in which the page draws them, which in practice is the order of reading.

mod layout;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hayro_interpret::font::{Glyph as DrawnGlyph, GlyphRun};
use hayro_interpret::hayro_cmap::BfString;
use hayro_interpret::hayro_syntax::{DecryptionError, LoadPdfError, Pdf, page::Page};
use hayro_interpret::kurbo::{Affine, BezPath, Point, Rect};
use hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, InterpreterWarning, SoftMask, TransformExt as _,
    interpret_page,
};
use unicode_normalization::UnicodeNormalization as _;

use crate::write::Writer;
use crate::{Limits, ParseError, Parsed};
use layout::Glyph;

pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let damaged = |what: &str| ParseError::Damaged { format: "PDF", what: what.to_owned() };
    let pdf = Pdf::new(bytes.to_vec()).map_err(|e| match e {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => ParseError::Password,
        LoadPdfError::Decryption(_) => damaged("its encryption is damaged or unknown"),
        LoadPdfError::Invalid => damaged("no page tree could be read"),
    })?;
    let pages = pdf.pages();
    if pages.len() > limits.pages {
        return Err(ParseError::Limit { what: "pages", limit: limits.pages as u64 });
    }
    let cache = InterpreterCache::new();
    // Lines take far less than glyphs, and their sizes have to be known before the first page is written.
    let pages: Vec<Lines> = pages.iter().map(|page| draw(&pdf, page, &cache).lines()).collect();

    let mut writer = Writer::default();
    let sizes = layout::Sizes::of(pages.iter().flat_map(|page| &page.lines));
    let (all, mut blank) = (pages.len(), 0);
    for page in pages {
        writer.begin_page();
        if page.unknown > 0 {
            let (unknown, glyphs) = (page.unknown, page.unknown + page.glyphs);
            writer.fail_page(format!(
                "{unknown} of {glyphs} glyphs do not say which characters they are"
            ));
        } else if page.glyphs == 0 && page.unsupported_font {
            writer.fail_page("a font could not be read");
        }
        blank += usize::from(page.glyphs + page.unknown == 0);
        layout::write(&page.lines, &sizes, &mut writer);
        writer.end_page();
    }
    let title = pdf.metadata().title.as_deref().map(pdf_string);
    let mut parsed = writer.finish(title);
    if blank > 0 {
        parsed.notes.push(format!("{blank} of {all} pages have no text layer: scans need OCR"));
    }
    Ok(parsed)
}

/// A text string of the document's information: UTF-16 with a byte order mark, UTF-8 with one, or else
/// PDFDocEncoding, of which only the part it shares with Latin-1 is read.
fn pdf_string(bytes: &[u8]) -> String {
    match bytes {
        [0xfe, 0xff, rest @ ..] => {
            let units: Vec<u16> =
                rest.as_chunks::<2>().0.iter().map(|b| u16::from_be_bytes(*b)).collect();
            String::from_utf16_lossy(&units)
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => bytes.iter().map(|&b| char::from(b)).filter(|c| !c.is_control()).collect(),
    }
}

fn draw<'a>(pdf: &'a Pdf, page: &Page<'a>, cache: &InterpreterCache<'a>) -> Drawn {
    let unsupported_font = Arc::new(AtomicBool::new(false));
    let sink = unsupported_font.clone();
    let settings = InterpreterSettings {
        warning_sink: Arc::new(move |warning| {
            if matches!(warning, InterpreterWarning::UnsupportedFont) {
                sink.store(true, Ordering::Relaxed);
            }
        }),
        ..InterpreterSettings::default()
    };
    let (width, height) = page.render_dimensions();
    let bounds = Rect::new(0.0, 0.0, f64::from(width), f64::from(height));
    let transform = page.initial_transform(true).to_kurbo();
    let mut context = Context::new(transform, bounds, cache, pdf.xref(), settings);
    let mut drawn = Drawn::default();
    interpret_page(page, &mut context, &mut drawn);
    drawn.unsupported_font = unsupported_font.load(Ordering::Relaxed);
    drawn
}

/// What a page shows as text.
#[derive(Default)]
struct Drawn {
    glyphs: Vec<Glyph>,
    /// Glyphs without a Unicode value.
    unknown: usize,
    unsupported_font: bool,
}

/// The same in lines, with the number of glyphs.
struct Lines {
    lines: Vec<layout::Line>,
    glyphs: usize,
    unknown: usize,
    unsupported_font: bool,
}

impl Drawn {
    fn lines(self) -> Lines {
        let Drawn { glyphs, unknown, unsupported_font } = self;
        Lines { lines: layout::lines(&glyphs), glyphs: glyphs.len(), unknown, unsupported_font }
    }
}

impl Device<'_> for Drawn {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        for glyph in run.glyphs() {
            let text = match glyph.as_unicode() {
                Some(BfString::Char(c)) => c.to_string(),
                Some(BfString::String(s)) => s,
                None => String::new(),
            };
            // Ligatures and Arabic presentation forms become the letters they stand for.
            let presentation =
                |c: char| matches!(c, '\u{fb00}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}');
            let text = if text.chars().any(presentation) { text.nfkc().collect() } else { text };
            let text: String = text.chars().filter(|c| !c.is_control() && *c != '\u{ad}').collect();
            if text.is_empty() || text.contains('\u{fffd}') {
                self.unknown += 1;
                continue;
            }
            let advance = match &**glyph {
                DrawnGlyph::Outline(g) => g.advance_width(),
                DrawnGlyph::Type3(g) => g.advance_width(),
            };
            let transform: Affine = props.transform * glyph.transform();
            let from = transform * Point::ZERO;
            let to = transform * Point::new(f64::from(advance.unwrap_or(500.0)), 0.0);
            let along = transform * Point::new(1000.0, 0.0) - from;
            let size = (transform * Point::new(0.0, 1000.0) - from).hypot();
            if let Some(glyph) = Glyph::new(text, from, to, along, size) {
                self.glyphs.push(glyph);
            }
        }
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {}

    fn push_clip_path(&mut self, _: &ClipPath) {}

    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}

    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {}

    fn pop_clip(&mut self) {}

    fn pop_transparency_group(&mut self) {}
}
