//! Answers over HTTP/1.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::Fault;
use super::drive::Answers;

const MAX_HEADERS: usize = 32;
/// One more than the largest status.
const STATUSES: usize = 600;

/// Answers by their status.
#[derive(Debug)]
pub(crate) struct Statuses {
    counts: Vec<u64>,
}

impl Default for Statuses {
    fn default() -> Self {
        Statuses { counts: vec![0; STATUSES] }
    }
}

impl Statuses {
    pub(crate) fn add(&mut self, status: u16) -> Result<(), Fault> {
        let count = self.counts.get_mut(usize::from(status));
        *count.ok_or_else(|| Fault(format!("{status} is no status")))? += 1;
        Ok(())
    }

    /// Each status that was answered, and how often.
    fn all(&self) -> Vec<(usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
    }

    /// Holds what was answered against what must have been: statuses, and how often.
    pub(crate) fn check(&self, expected: &[(usize, u64)]) -> Result<(), Fault> {
        let expected: Vec<(usize, u64)> = expected.iter().copied().filter(|(_, n)| *n > 0).collect();
        if self.all() == expected {
            return Ok(());
        }
        Err(Fault(format!("the answers must be {expected:?} (status, number), they are {:?}", self.all())))
    }
}

impl AsRef<Statuses> for Statuses {
    fn as_ref(&self) -> &Statuses {
        self
    }
}

/// The first answer in these bytes.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    /// Of the whole answer, head and body.
    pub(crate) length: usize,
}

/// The first answer in these bytes, once it is whole.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Answer<'_>>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|e| Fault(format!("an answer is no HTTP: {e}")))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let length = length.ok_or_else(|| Fault("an answer does not tell its length".to_owned()))?;
    let length = head + length;
    let Some(body) = bytes.get(head..length) else { return Ok(None) };
    Ok(Some(Answer { status: response.code.unwrap_or(0), body, length }))
}

/// Sends one request, and returns the body of its answer, which must be a success.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(request)?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = socket.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(answer) = first(&bytes)? {
            if (200..300).contains(&answer.status) {
                return Ok(answer.body.to_vec());
            }
            return Err(Fault(format!("{}: {}", answer.status, String::from_utf8_lossy(answer.body))));
        }
        if read == 0 {
            return Err(Fault("the server closed the connection".to_owned()));
        }
    }
}

/// Counts answers that must all be the same bytes.
#[derive(Debug)]
pub(crate) struct Same<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) count: u64,
}

impl Answers for Same<'_> {
    fn take(&mut self, _: usize, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(answer) = first(bytes)? else { return Ok(None) };
        if answer.status != 200 || answer.body != self.body {
            return Err(Fault(format!(
                "{} with {} bytes is another answer",
                answer.status,
                answer.body.len()
            )));
        }
        self.count += 1;
        Ok(Some(answer.length))
    }
}

/// Counts answers, one a vote.
impl Answers for Statuses {
    fn take(&mut self, _: usize, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(answer) = first(bytes)? else { return Ok(None) };
        self.add(answer.status)?;
        Ok(Some(answer.length))
    }
}

/// Counts the lines of answers to batches.
#[derive(Debug, Default)]
pub(crate) struct LineStatuses(Statuses);

impl AsRef<Statuses> for LineStatuses {
    fn as_ref(&self) -> &Statuses {
        &self.0
    }
}

impl Answers for LineStatuses {
    fn take(&mut self, _: usize, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some(answer) = first(bytes)? else { return Ok(None) };
        if answer.status != 200 {
            let said = String::from_utf8_lossy(answer.body);
            return Err(Fault(format!("a batch was answered with {}: {said}", answer.status)));
        }
        for (line, number) in answer.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()).zip(1u64..) {
            let status = line_status(line, number);
            let status = status.ok_or_else(|| {
                Fault(format!(
                    "line {number} of an answer is not as expected: {}",
                    String::from_utf8_lossy(line)
                ))
            })?;
            self.0.add(status)?;
        }
        Ok(Some(answer.length))
    }
}

/// The status in `{"line":7,"status":201,…`.
fn line_status(line: &[u8], number: u64) -> Option<u16> {
    let (own, rest) = leading_number(line.strip_prefix(br#"{"line":"#)?)?;
    let (status, _) = leading_number(rest.strip_prefix(br#","status":"#)?)?;
    (own == number).then_some(u16::try_from(status).ok()?)
}

fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at_checked(digits)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_by_one_and_only_whole() {
        let both = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let mut statuses = Statuses::default();
        assert_eq!(statuses.take(0, &both[..43]).unwrap(), None);
        let first = statuses.take(0, both).unwrap().unwrap();
        assert_eq!(first, 46);
        assert_eq!(statuses.take(0, &both[first..]).unwrap(), Some(both.len() - first));
        assert_eq!(statuses.all(), [(200, 1), (201, 1)]);
        assert!(statuses.take(0, b"oops").is_err());
        assert!(statuses.take(0, b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn lines_of_a_batch_are_counted_by_their_own_status() {
        let body = "{\"line\":1,\"status\":201,\"receipt\":{}}\n{\"line\":2,\"status\":409,\"problem\":{\"status\":409}}\n";
        let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut lines = LineStatuses::default();
        let good = answer(body);
        assert_eq!(lines.take(0, good.as_bytes()).unwrap(), Some(good.len()));
        assert_eq!(lines.0.all(), [(201, 1), (409, 1)]);
        assert!(lines.take(0, answer("{\"line\":2,\"status\":201}\n").as_bytes()).is_err());
    }
}
