//! Server-sent events, as far as chat completions use them: the data of each event.

use std::io::{self, BufRead};

/// Longest line that is taken for one.
const LINE_BYTES: u64 = 4 << 20;

/// The data of every event of a stream, in order; comments and other fields are left out.
pub(crate) struct Events<R>(R);

impl<R: BufRead> Events<R> {
    pub(crate) fn new(stream: R) -> Self {
        Events(stream)
    }

    /// The data of the next event; `None` when the stream has ended.
    ///
    /// An event that the end of the stream cuts off is none.
    pub(crate) fn next(&mut self) -> io::Result<Option<String>> {
        let mut data: Option<String> = None;
        loop {
            let mut line = Vec::new();
            let n = io::Read::take(&mut self.0, LINE_BYTES).read_until(b'\n', &mut line)?;
            if n == 0 {
                return Ok(None);
            }
            let Some(line) = line.strip_suffix(b"\n") else {
                let cut =
                    if n as u64 == LINE_BYTES { "a line is too long" } else { return Ok(None) };
                return Err(io::Error::new(io::ErrorKind::InvalidData, cut));
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                match data.take() {
                    Some(data) => return Ok(Some(data)),
                    None => continue,
                }
            }
            let Some(value) = line.strip_prefix(b"data:") else { continue };
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let value = std::str::from_utf8(value)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let mut events = Events::new(text.as_bytes());
        std::iter::from_fn(|| events.next().expect("text")).collect()
    }

    #[test]
    fn data_come_event_by_event() {
        assert_eq!(
            all("data: a\n\ndata:b\r\n\r\n: ping\n\nevent: x\ndata: c\ndata: d\n\n"),
            ["a", "b", "c\nd"]
        );
    }

    #[test]
    fn an_event_cut_off_is_none() {
        assert_eq!(all("data: a\n\ndata: b"), ["a"]);
        assert_eq!(all("data: a\n\ndata: b\n"), ["a"]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes: Vec<u8>) {
            let mut events = Events::new(bytes.as_slice());
            while let Ok(Some(_)) = events.next() {}
        }
    }
}
