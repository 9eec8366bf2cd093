//! Reads jute values. Every length is checked against the bytes that are there.

/// Bytes that are not the expected record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record: {0}")]
pub(in super::super) struct Malformed(pub(super) &'static str);

impl Malformed {
    /// An answer to another request than the oldest one.
    pub(in super::super) const ORDER: Self = Self("an answer without a request");
}

/// The unread part of a record.
pub(in super::super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(in super::super) fn new(record: &'a [u8]) -> Self {
        Self { left: record }
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A byte string. Null, which has the length -1, is read as an empty one.
    pub(super) fn buffer(&mut self) -> Result<&'a [u8], Malformed> {
        match self.int()? {
            -1 => Ok(&[]),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed("negative length"))?;
                self.bytes(length)
            }
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.buffer()?).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// A list of strings.
    pub(super) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        // A null list has the length -1.
        let count = usize::try_from(self.int()?).unwrap_or(0);
        // Each string takes four bytes or more, so a false count does not allocate.
        if count > self.left.len() / 4 {
            return Err(Malformed("the list is longer than its record"));
        }
        (0..count).map(|_| Ok(self.text()?.to_owned())).collect()
    }

    /// The bytes that were not read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.left
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, left) = self.left.split_first_chunk().ok_or(TOO_SHORT)?;
        self.left = left;
        Ok(*array)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, left) = self.left.split_at_checked(length).ok_or(TOO_SHORT)?;
        self.left = left;
        Ok(bytes)
    }
}

const TOO_SHORT: Malformed = Malformed("the record is too short");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_false_length_is_an_error() {
        for record in [
            &[0, 0, 0][..],
            &[0, 0, 0, 2, b'a'],
            &[0xff, 0xff, 0xff, 0xfe],
            &[0x7f, 0xff, 0xff, 0xff],
        ] {
            assert!(Reader::new(record).buffer().is_err(), "{record:?} was read");
        }
        assert!(
            Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])
                .texts()
                .is_err()
        );
        assert!(Reader::new(&[0, 0, 0, 1, 0xff]).text().is_err());
    }

    #[test]
    fn null_is_empty() {
        let null = [0xff; 4];
        assert_eq!(Reader::new(&null).buffer(), Ok(&[][..]));
        assert_eq!(Reader::new(&null).texts(), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_record_ends_the_program(record in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _any = Reader::new(&record).texts();
            let _any = Reader::new(&record).text();
        }
    }
}
