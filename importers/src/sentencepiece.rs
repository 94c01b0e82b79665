//! SentencePiece's model files: `sentencepiece.bpe.model`, `spiece.model`, `spm.model`, `tokenizer.model`.
//!
//! The messages are those of `src/sentencepiece_model.proto` of google/sentencepiece 0.2.

use crate::protobuf::{Refusal, Slice, Wire};

/// What [`SentencePieceModel::parse`] could not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SentencePiece model: {reason} (at byte {offset})")]
pub struct SentencePieceError {
    /// Where in the file, in bytes.
    pub offset: usize,
    /// What is wrong there.
    pub reason: String,
}

impl From<Refusal> for SentencePieceError {
    fn from((offset, reason): Refusal) -> Self {
        Self { offset, reason }
    }
}

/// How a text is segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The likeliest segmentation by the scores of the pieces.
    Unigram,
    /// Merges in the order of the scores.
    Bpe,
    /// Words.
    Word,
    /// Characters.
    Char,
}

/// What a piece stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Byte,
    Unused,
}

/// A piece of the vocabulary. Its id is its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The text, with spaces as `\u{2581}`.
    pub text: String,
    /// Its logarithmic probability, or the rank of its merge.
    pub score: f32,
    /// What it stands for.
    pub kind: PieceKind,
}

/// A SentencePiece model: its vocabulary and how it normalises a text.
#[derive(Debug, Clone, PartialEq)]
pub struct SentencePieceModel {
    /// The vocabulary.
    pub pieces: Vec<Piece>,
    /// How a text is segmented.
    pub algorithm: Algorithm,
    /// The id of the piece for what is unknown.
    pub unknown: i32,
    /// The id and the text of the piece that begins a text, if there is one.
    pub begin: Option<(i32, String)>,
    /// The id and the text of the piece that ends a text, if there is one.
    pub end: Option<(i32, String)>,
    /// The text of the piece for what is unknown.
    pub unknown_text: String,
    /// Whether what is unknown becomes the pieces of its bytes.
    pub byte_fallback: bool,
    /// Whether spaces are at the end of words.
    pub space_as_suffix: bool,
    /// The compiled map of characters; empty if characters stay as they are.
    pub charsmap: Vec<u8>,
    /// Whether a space is put before a text.
    pub add_dummy_prefix: bool,
    /// Whether spaces around a text are removed and those within are made one.
    pub remove_extra_whitespaces: bool,
    /// Whether spaces become `\u{2581}`.
    pub escape_whitespaces: bool,
}

impl SentencePieceModel {
    /// Reads a model file.
    ///
    /// # Errors
    /// The file is not a SentencePiece model, or a field of it is unknown.
    pub fn parse(bytes: &[u8]) -> Result<Self, SentencePieceError> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            unknown: 0,
            begin: None,
            end: None,
            unknown_text: "<unk>".to_owned(),
            byte_fallback: false,
            space_as_suffix: false,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let (mut begin, mut end) = ((1, "<s>".to_owned()), (2, "</s>".to_owned()));
        for field in Slice::whole(bytes).fields() {
            match field? {
                (1, Wire::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Wire::Bytes(trainer)) => model.trainer(trainer, &mut begin, &mut end)?,
                (3, Wire::Bytes(normalizer)) => model.normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err((0, "it has no pieces".to_owned()).into());
        }
        model.begin = Some(begin).filter(|(id, _)| *id >= 0);
        model.end = Some(end).filter(|(id, _)| *id >= 0);
        Ok(model)
    }

    fn trainer(
        &mut self,
        spec: Slice<'_>,
        begin: &mut (i32, String),
        end: &mut (i32, String),
    ) -> Result<(), Refusal> {
        let at = spec.at;
        for field in spec.fields() {
            match field? {
                (3, Wire::Varint(kind)) => {
                    self.algorithm = match kind {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => Algorithm::Word,
                        4 => Algorithm::Char,
                        other => return Err((at, format!("{other} is not a known algorithm"))),
                    };
                }
                (24, Wire::Varint(flag)) => self.space_as_suffix = flag != 0,
                (35, Wire::Varint(flag)) => self.byte_fallback = flag != 0,
                (40, Wire::Varint(id)) => self.unknown = id as i32,
                (41, Wire::Varint(id)) => begin.0 = id as i32,
                (42, Wire::Varint(id)) => end.0 = id as i32,
                (45, Wire::Bytes(text)) => self.unknown_text = text.text()?.to_owned(),
                (46, Wire::Bytes(text)) => begin.1 = text.text()?.to_owned(),
                (47, Wire::Bytes(text)) => end.1 = text.text()?.to_owned(),
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, spec: Slice<'_>) -> Result<(), Refusal> {
        for field in spec.fields() {
            match field? {
                (2, Wire::Bytes(map)) => self.charsmap = map.bytes.to_vec(),
                (3, Wire::Varint(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Wire::Varint(flag)) => self.remove_extra_whitespaces = flag != 0,
                (5, Wire::Varint(flag)) => self.escape_whitespaces = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse_piece(message: Slice<'_>) -> Result<Piece, Refusal> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: PieceKind::Normal,
    };
    let at = message.at;
    for field in message.fields() {
        match field? {
            (1, Wire::Bytes(text)) => piece.text = text.text()?.to_owned(),
            (2, Wire::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
            (3, Wire::Varint(kind)) => {
                piece.kind = match kind {
                    1 => PieceKind::Normal,
                    2 => PieceKind::Unknown,
                    3 => PieceKind::Control,
                    4 => PieceKind::UserDefined,
                    5 => PieceKind::Unused,
                    6 => PieceKind::Byte,
                    other => return Err((at, format!("{other} is not a known type of a piece"))),
                };
            }
            _ => {}
        }
    }
    if piece.score.is_nan() {
        return Err((at, format!("the score of `{}` is not a number", piece.text)));
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, PieceKind, SentencePieceModel};
    use crate::protobuf::{put_bytes, put_fixed32, put_number};

    fn piece(text: &str, score: f32, kind: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, text.as_bytes());
        put_fixed32(&mut bytes, 2, score.to_bits());
        put_number(&mut bytes, 3, kind);
        bytes
    }

    #[test]
    fn fields_that_are_absent_have_the_defaults_of_the_message() {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, &piece("<unk>", 0.0, 2));
        put_bytes(&mut bytes, 1, &piece("\u{2581}a", -1.5, 0));
        let model = SentencePieceModel::parse(&bytes).unwrap();
        assert_eq!(model.pieces[1].score, -1.5);
        assert_eq!(model.pieces[1].kind, PieceKind::Normal);
        assert_eq!(model.algorithm, Algorithm::Unigram);
        assert_eq!(model.begin, Some((1, "<s>".to_owned())));
        assert!(model.add_dummy_prefix && model.remove_extra_whitespaces);

        let mut trainer = Vec::new();
        put_number(&mut trainer, 3, 2);
        put_number(&mut trainer, 41, (-1_i64) as u64);
        put_bytes(&mut bytes, 2, &trainer);
        // A false flag is written, unlike in the third version of the language.
        put_bytes(&mut bytes, 3, &[3 << 3, 0]);
        let model = SentencePieceModel::parse(&bytes).unwrap();
        assert_eq!(model.algorithm, Algorithm::Bpe);
        assert_eq!(model.begin, None);
        assert!(!model.add_dummy_prefix);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [
            &b""[..],
            b"{\"a\": 1}",
            b"\x0a\xff",
            &piece("a", f32::NAN, 1),
        ] {
            assert!(SentencePieceModel::parse(bytes).is_err(), "{bytes:?}");
        }
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, &piece("a", f32::NAN, 1));
        let error = SentencePieceModel::parse(&bytes).unwrap_err();
        assert!(error.reason.contains("score of `a`"), "{error}");
    }
}
