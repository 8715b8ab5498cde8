//! What WebSocket clients send: nothing is expected of it, but control frames are answered (RFC 6455).

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

/// Largest message taken from a WebSocket client.
const MAX_MESSAGE: usize = 4_096;
/// Largest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// What a client's frames ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Send this.
    Answer(Bytes),
    /// Send this, and close the connection.
    Close(Bytes),
}

/// A client's frames, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// How long the message is so far whose end is still to come.
    message: Option<usize>,
}

/// A message from the server, as it is sent.
pub(super) fn text_frame(text: String) -> Bytes {
    formatted(Frame::message(text, OpCode::Data(Data::Text), true))
}

/// A close frame of the server.
pub(super) fn close_frame(code: CloseCode) -> Bytes {
    formatted(Frame::close(Some(CloseFrame { code, reason: Default::default() })))
}

fn formatted(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing to memory cannot fail.
    let _ = frame.format(&mut bytes);
    bytes.into()
}

impl Input {
    /// Takes bytes of a client, and gives to `ask` what its whole frames ask for, in order.
    pub(super) fn take(&mut self, bytes: &[u8], mut ask: impl FnMut(Ask)) {
        let mut kept = std::mem::take(&mut self.partial);
        let whole = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let mut at = 0;
        loop {
            match self.frame(&whole[at..]) {
                Ok(Some((length, asked))) => {
                    at += length;
                    let ends = matches!(asked, Some(Ask::Close(_)));
                    asked.into_iter().for_each(&mut ask);
                    if ends {
                        return;
                    }
                }
                Ok(None) => break,
                Err(code) => return ask(Ask::Close(close_frame(code))),
            }
        }
        if at < whole.len() {
            self.partial = whole[at..].to_vec();
        }
    }

    /// The first frame's length and what it asks for; none while it is not whole.
    fn frame(&mut self, bytes: &[u8]) -> Result<Option<(usize, Option<Ask>)>, CloseCode> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let mask = header.mask.ok_or(CloseCode::Protocol)?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(CloseCode::Protocol);
        }
        // Too long is told before it has come.
        let length = usize::try_from(length).map_err(|_| CloseCode::Size)?;
        self.check(&header, length)?;
        let start = usize::try_from(cursor.position()).map_err(|_| CloseCode::Size)?;
        let Some(payload) = bytes.get(start..start + length) else { return Ok(None) };
        let asked = match header.opcode {
            OpCode::Data(_) => {
                let message = self.message.unwrap_or(0) + length;
                self.message = (!header.is_final).then_some(message);
                None
            }
            OpCode::Control(control) => {
                let clear = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
                answer(control, clear.collect())?
            }
        };
        Ok(Some((start + length, asked)))
    }

    fn check(&self, header: &FrameHeader, length: usize) -> Result<(), CloseCode> {
        match (header.opcode, self.message) {
            (OpCode::Control(_), _) if !header.is_final || length > MAX_CONTROL => Err(CloseCode::Protocol),
            (OpCode::Control(_), _) => Ok(()),
            (OpCode::Data(Data::Continue), None) => Err(CloseCode::Protocol),
            (OpCode::Data(Data::Text | Data::Binary), Some(_)) => Err(CloseCode::Protocol),
            (OpCode::Data(_), before) if before.unwrap_or(0) + length > MAX_MESSAGE => Err(CloseCode::Size),
            (OpCode::Data(_), _) => Ok(()),
        }
    }
}

fn answer(control: Control, payload: Vec<u8>) -> Result<Option<Ask>, CloseCode> {
    match control {
        Control::Ping => Ok(Some(Ask::Answer(formatted(Frame::pong(payload))))),
        Control::Close => {
            let code = match payload.as_slice() {
                [] => return Ok(Some(Ask::Close(formatted(Frame::close(None))))),
                [high, low, ..] => CloseCode::from(u16::from_be_bytes([*high, *low])),
                [_] => return Err(CloseCode::Protocol),
            };
            if !code.is_allowed() {
                return Err(CloseCode::Protocol);
            }
            Ok(Some(Ask::Close(close_frame(code))))
        }
        Control::Pong | Control::Reserved(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a client sends it: masked.
    fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(length) if length < 126 => bytes.push(0x80 | length),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn asked(input: &mut Input, bytes: &[u8]) -> Vec<Ask> {
        let mut asked = Vec::new();
        input.take(bytes, |ask| asked.push(ask));
        asked
    }

    fn closed(code: CloseCode) -> Vec<Ask> {
        vec![Ask::Close(close_frame(code))]
    }

    #[test]
    fn pings_and_closes_are_answered_wherever_the_bytes_are_cut() {
        let frames =
            [sent(0x89, b"are you there"), sent(0x81, b"words"), sent(0x88, b"\x03\xe8bye")].concat();
        let pong = [&[0x8a, 13][..], b"are you there"].concat();
        let expected = [Ask::Answer(pong.into()), Ask::Close(Bytes::from_static(b"\x88\x02\x03\xe8"))];
        for cut in 0..=frames.len() {
            let mut input = Input::default();
            let mut all = asked(&mut input, &frames[..cut]);
            all.extend(asked(&mut input, &frames[cut..]));
            assert_eq!(all, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_message_has_a_limit_also_in_parts() {
        let mut input = Input::default();
        assert_eq!(asked(&mut input, &sent(0x81, &[0; MAX_MESSAGE])), []);
        assert!(input.partial.is_empty() && input.message.is_none());
        let long = sent(0x82, &[0; MAX_MESSAGE + 1]);
        assert_eq!(asked(&mut input, &long[..8]), closed(CloseCode::Size), "before it has come");
        let mut input = Input::default();
        assert_eq!(asked(&mut input, &sent(0x01, &[0; 3_000])), []);
        assert_eq!(asked(&mut input, &sent(0x89, b"")).len(), 1, "a ping between the parts");
        assert_eq!(asked(&mut input, &sent(0x80, &[0; 1_097])), closed(CloseCode::Size));
    }

    #[test]
    fn what_is_against_the_protocol_ends_the_connection() {
        let unmasked = vec![0x81, 0];
        let bad: [Vec<u8>; 8] = [
            unmasked,
            sent(0xc1, b"compressed"),
            sent(0x83, b"unknown"),
            sent(0x09, b"a ping in parts"),
            sent(0x89, &[0; 126]),
            sent(0x80, b"a part of nothing"),
            sent(0x88, b"x"),
            sent(0x88, &999u16.to_be_bytes()),
        ];
        for frame in bad {
            assert_eq!(asked(&mut Input::default(), &frame), closed(CloseCode::Protocol), "{frame:?}");
        }
    }
}
