//! Segment files: the projections of some documents, written once and mapped into memory.
//!
//! A file is a table of sections, the checksum of all that follows the header, and the sections. It is made aside
//! and renamed into place, so a file under a segment's name is whole; on opening, its checksum and every length
//! and reference in it are checked all the same, and a file that fails is deleted and made again from the record.
//! Numbers are in the byte order of the machine, which the magic number tells.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use assay_kernels::{Coded, Mapped, SCAN_ROWS, coarse_bytes, fine_bytes};
use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use fs_err as fs;

/// "asxseg" and the version of the format, which changes with the meaning of any section.
const MAGIC: u64 = u64::from_be_bytes(*b"asxseg\0\x01");
/// Sections start at multiples of this, so that they can be read as numbers and vectors.
const ALIGNMENT: usize = 64;

/// What a file holds, in this order in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Section {
    /// [`Document`]s, in the order of their chunks.
    Documents,
    /// `f32` vectors of the chunks; here and below nothing where a server holds them.
    Rows,
    /// Their codes in four bits, in blocks of [`SCAN_ROWS`].
    Coarse,
    /// [`Coded::step`] of each, then [`Coded::error`] of each, padded to whole blocks.
    CoarseScales,
    /// Their codes in eight bits.
    Fine,
    /// As [`Section::CoarseScales`].
    FineScales,
    /// Words of each chunk, `u32`, padded to whole blocks.
    Lengths,
    /// All terms, sorted, one after the other.
    TermText,
    /// [`Term`]s in the same order.
    Terms,
    /// Chunks of the rarer terms, `u32`, ascending for each term.
    Chunks,
    /// How often a term is in a chunk, 255 at most: for rarer terms beside `Chunks`, for others of every chunk.
    Counts,
}

const SECTIONS: usize = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Document {
    /// In the record.
    pub(crate) id: i64,
    /// Names its content and the settings it was indexed with.
    pub(crate) key: [u8; 32],
    pub(crate) chunks: u32,
    /// See [`crate::analysis::Language::to_code`].
    pub(crate) language: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Term {
    /// Where it ends in [`Section::TermText`]; it begins where the one before ends.
    pub(crate) text_end: u64,
    /// First place in [`Section::Counts`].
    pub(crate) counts: u64,
    /// First place in [`Section::Chunks`], or [`Term::EVERY_CHUNK`].
    pub(crate) chunks: u64,
    /// Chunks that have it.
    pub(crate) frequency: u64,
}

impl Term {
    /// Counts are of every chunk, so that no chunks need be named.
    pub(crate) const EVERY_CHUNK: u64 = u64::MAX;
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u64,
    dims: u64,
    chunks: u64,
    /// At least the norm of every row, as the bits of an `f32`.
    norm: u64,
    /// At least the norms that four and eight bits stand for.
    coarse_norm: u64,
    fine_norm: u64,
    /// Start and length in bytes.
    sections: [[u64; 2]; SECTIONS],
    checksum: [u8; 32],
}

/// The largest norms of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Norms {
    pub(crate) exact: f32,
    pub(crate) coarse: f32,
    pub(crate) fine: f32,
}

impl Norms {
    pub(crate) fn include(&mut self, coarse: Coded, fine: Coded) {
        self.coarse = self.coarse.max(coarse.norm);
        self.fine = self.fine.max(fine.norm);
        self.exact = self.exact.max(fine.norm + fine.error);
    }
}

/// An open segment.
pub(crate) struct Segment {
    path: PathBuf,
    file: Mapped,
    header: Header,
    /// Chunks, padded to whole blocks.
    slots: usize,
}

impl Segment {
    /// Opens a file, unless anything about it is wrong; with vectors of `dims` values, if that is asked for.
    pub(crate) fn open(path: &Path, dims: Option<usize>) -> Option<Segment> {
        let file = Mapped::new(fs::File::open(path).ok()?.file()).ok()?;
        let header: Header = bytemuck::pod_read_unaligned(file.get(..size_of::<Header>())?);
        if header.magic != MAGIC || dims.is_some_and(|dims| header.dims != dims as u64) {
            return None;
        }
        let body = file.get(size_of::<Header>()..)?;
        if checksum(&Header { checksum: [0; 32], ..header }, body) != header.checksum {
            return None;
        }
        let slots = usize::try_from(header.chunks).ok()?.next_multiple_of(SCAN_ROWS);
        let segment = Segment { path: path.to_owned(), file, header, slots };
        segment.is_sound().then_some(segment)
    }

    fn is_sound(&self) -> bool {
        let sections = [
            self.checked::<Document>(Section::Documents).is_some(),
            self.checked::<Term>(Section::Terms).is_some(),
        ];
        let (chunks, dims, slots) = (self.chunks(), self.dims(), self.slots);
        // Without vectors there are no codes of them.
        let coded = if dims == 0 { 0 } else { slots };
        let lengths = [
            (Section::Rows, self.checked::<f32>(Section::Rows).map(<[f32]>::len), chunks * dims),
            (
                Section::Coarse,
                self.bytes(Section::Coarse).map(<[u8]>::len),
                slots / SCAN_ROWS * coarse_bytes(dims),
            ),
            (
                Section::CoarseScales,
                self.checked::<f32>(Section::CoarseScales).map(<[f32]>::len),
                2 * coded,
            ),
            (Section::Fine, self.bytes(Section::Fine).map(<[u8]>::len), chunks * fine_bytes(dims)),
            (
                Section::FineScales,
                self.checked::<f32>(Section::FineScales).map(<[f32]>::len),
                2 * coded,
            ),
            (Section::Lengths, self.checked::<u32>(Section::Lengths).map(<[u32]>::len), slots),
        ];
        sections.iter().all(|ok| *ok)
            && lengths.iter().all(|(_, got, expected)| *got == Some(*expected))
            && self.documents().iter().map(|d| u64::from(d.chunks)).sum::<u64>() == chunks as u64
            && self.terms_are_sound()
    }

    fn terms_are_sound(&self) -> bool {
        let (Some(text), Some(chunks), Some(counts)) = (
            self.bytes(Section::TermText),
            self.checked::<u32>(Section::Chunks),
            self.bytes(Section::Counts),
        ) else {
            return false;
        };
        let within = |start: u64, length: u64, all: usize| {
            start.checked_add(length).is_some_and(|end| end <= all as u64)
        };
        let mut begin = 0;
        chunks.iter().all(|c| (*c as usize) < self.chunks())
            && self.terms().iter().all(|term| {
                let counted = if term.chunks == Term::EVERY_CHUNK {
                    self.slots as u64
                } else {
                    term.frequency
                };
                let ok = term.text_end >= begin
                    && term.text_end <= text.len() as u64
                    && within(term.counts, counted, counts.len())
                    && (term.chunks == Term::EVERY_CHUNK
                        || within(term.chunks, counted, chunks.len()));
                begin = term.text_end;
                ok
            })
    }

    fn bytes(&self, section: Section) -> Option<&[u8]> {
        let [start, length] =
            self.header.sections[section as usize].map(|n| usize::try_from(n).ok());
        let (start, length) = (start?, length?);
        self.file.get(start..start.checked_add(length)?)
    }

    fn checked<T: AnyBitPattern>(&self, section: Section) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.bytes(section)?).ok()
    }

    /// A section whose length and alignment were checked when the file was opened.
    fn section<T: AnyBitPattern>(&self, section: Section) -> &[T] {
        self.checked(section).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dims(&self) -> usize {
        self.header.dims as usize
    }

    pub(crate) fn chunks(&self) -> usize {
        self.header.chunks as usize
    }

    /// Chunks, padded to whole blocks of [`SCAN_ROWS`].
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn documents(&self) -> &[Document] {
        self.section(Section::Documents)
    }

    pub(crate) fn norms(&self) -> Norms {
        let [exact, coarse, fine] =
            [self.header.norm, self.header.coarse_norm, self.header.fine_norm]
                .map(|bits| f32::from_bits(bits as u32));
        Norms { exact, coarse, fine }
    }

    pub(crate) fn row(&self, chunk: usize) -> &[f32] {
        &self.section(Section::Rows)[chunk * self.dims()..][..self.dims()]
    }

    /// Codes in four bits of `blocks`, and the steps of their rows.
    pub(crate) fn coarse(&self, blocks: std::ops::Range<usize>) -> (&[u8], &[f32]) {
        let bytes = coarse_bytes(self.dims());
        let codes = &self.section(Section::Coarse)[blocks.start * bytes..blocks.end * bytes];
        let steps =
            &self.section(Section::CoarseScales)[blocks.start * SCAN_ROWS..blocks.end * SCAN_ROWS];
        (codes, steps)
    }

    /// [`Coded::error`] of each row's codes in four bits.
    pub(crate) fn coarse_errors(&self) -> &[f32] {
        &self.section(Section::CoarseScales)[self.slots..]
    }

    /// Codes in eight bits of all rows, and their steps.
    pub(crate) fn fine(&self) -> (&[u8], &[f32]) {
        (self.section(Section::Fine), self.section(Section::FineScales))
    }

    /// [`Coded::error`] of each row's codes in eight bits.
    pub(crate) fn fine_errors(&self) -> &[f32] {
        &self.section(Section::FineScales)[self.slots..]
    }

    pub(crate) fn lengths(&self) -> &[u32] {
        self.section(Section::Lengths)
    }

    fn terms(&self) -> &[Term] {
        self.section(Section::Terms)
    }

    /// The entry of a term that some chunk has.
    pub(crate) fn term(&self, text: &str) -> Option<Term> {
        let (terms, all): (_, &[u8]) = (self.terms(), self.section(Section::TermText));
        let own = |i: usize| {
            let start = if i == 0 { 0 } else { terms[i - 1].text_end };
            &all[start as usize..terms[i].text_end as usize]
        };
        let (mut low, mut high) = (0, terms.len());
        while low < high {
            let middle = low.midpoint(high);
            match own(middle).cmp(text.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(terms[middle]),
            }
        }
        None
    }

    /// The chunks that have a term, if they are named, and its counts beside them or of every slot.
    pub(crate) fn postings(&self, term: &Term) -> (Option<&[u32]>, &[u8]) {
        let counts = &self.section(Section::Counts)[term.counts as usize..];
        if term.chunks == Term::EVERY_CHUNK {
            return (None, &counts[..self.slots]);
        }
        let n = term.frequency as usize;
        (Some(&self.section(Section::Chunks)[term.chunks as usize..][..n]), &counts[..n])
    }
}

/// Of a header without one, and what follows.
fn checksum(header: &Header, body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(bytemuck::bytes_of(header)).update(body).finalize().as_bytes()
}

/// Writes a segment's file, section by section.
pub(crate) struct SegmentWriter {
    path: PathBuf,
    aside: PathBuf,
    file: fs::File,
    sections: [[u64; 2]; SECTIONS],
    length: u64,
}

impl SegmentWriter {
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        // Two threads may be making the same segment.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let aside = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&aside)?;
        file.write_all(&[0; size_of::<Header>()])?;
        let length = size_of::<Header>() as u64;
        Ok(SegmentWriter {
            path: path.to_owned(),
            aside,
            file,
            sections: [[0; 2]; SECTIONS],
            length,
        })
    }

    /// Appends to a section; only the last one begun can grow.
    pub(crate) fn write<T: NoUninit>(
        &mut self,
        section: Section,
        values: &[T],
    ) -> std::io::Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if self.sections[section as usize][0] == 0 {
            let padding = self.length.next_multiple_of(ALIGNMENT as u64) - self.length;
            self.file.write_all(&[0; ALIGNMENT][..padding as usize])?;
            self.length += padding;
            self.sections[section as usize][0] = self.length;
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.sections[section as usize][1] += bytes.len() as u64;
        Ok(())
    }

    /// Writes the header, and gives the file its name.
    pub(crate) fn finish(
        mut self,
        dims: usize,
        chunks: usize,
        norms: Norms,
    ) -> std::io::Result<()> {
        let bits = |norm: f32| u64::from(norm.to_bits());
        let mut header = Header {
            magic: MAGIC,
            dims: dims as u64,
            chunks: chunks as u64,
            norm: bits(norms.exact),
            coarse_norm: bits(norms.coarse),
            fine_norm: bits(norms.fine),
            sections: self.sections,
            checksum: [0; 32],
        };
        self.file.flush()?;
        let written = Mapped::new(self.file.file())?;
        header.checksum = checksum(&header, &written[size_of::<Header>()..]);
        drop(written);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytemuck::bytes_of(&header))?;
        self.file.flush()?;
        drop(self.file);
        fs::rename(&self.aside, &self.path)
    }
}
