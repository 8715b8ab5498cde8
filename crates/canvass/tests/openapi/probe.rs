//! Sends requests to a server and holds each answer against the document.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::document::{Document, Operation, Shown};
use crate::support::{Raw, raw};

/// Knows what has been seen of the document.
pub(crate) struct Probe {
    pub(crate) document: Document,
    pub(crate) address: String,
    /// Operation and status, or operation and problem code.
    seen: BTreeSet<(String, String)>,
    shown: Shown,
    keys: usize,
}

impl Probe {
    pub(crate) fn new(address: &str) -> Self {
        let document = Document::checked_in();
        Probe {
            document,
            address: address.to_owned(),
            seen: BTreeSet::new(),
            shown: Shown::default(),
            keys: 0,
        }
    }

    /// Sends a request; `expected` is the status of the answer, with the code if it is a problem.
    pub(crate) fn send(
        &mut self,
        expected: &str,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Raw {
        let answer = raw(&self.address, method, path, headers, body);
        let code = if answer.status >= 400 { answer.code() } else { String::new() };
        let found = format!("{} {code}", answer.status);
        assert_eq!(found.trim(), expected, "{method} {path}: {}", answer.body);
        self.check(method, path, &answer);
        self.check_request((method, path), headers, body, &answer);
        answer
    }

    pub(crate) fn get(&mut self, expected: &str, path: &str) -> Raw {
        self.send(expected, ("GET", path), &[], b"")
    }

    pub(crate) fn get_as(&mut self, expected: &str, path: &str, bearer: &str) -> Raw {
        self.send(expected, ("GET", path), &[("authorization", &format!("Bearer {bearer}"))], b"")
    }

    /// Posts JSON, as a key or a voter or nobody, under an idempotency key or none; `new` is one never used.
    pub(crate) fn post(
        &mut self,
        expected: &str,
        path: &str,
        bearer: &str,
        key: &str,
        body: &Value,
    ) -> Value {
        let bearer = format!("Bearer {bearer}");
        self.keys += 1;
        let key = if key == "new" { format!("new {}", self.keys) } else { key.to_owned() };
        let mut headers = vec![("content-type", "application/json")];
        headers.extend((bearer != "Bearer ").then_some(("authorization", bearer.as_str())));
        headers.extend((!key.is_empty()).then_some(("idempotency-key", key.as_str())));
        self.send(expected, ("POST", path), &headers, body.to_string().as_bytes()).json()
    }

    /// Posts a batch, and returns the lines of the answer.
    pub(crate) fn batch(&mut self, path: &str, bearer: &str, lines: &[Value]) -> Vec<Value> {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let bearer = format!("Bearer {bearer}");
        let headers = [("content-type", "application/x-ndjson"), ("authorization", bearer.as_str())];
        let answer = self.send("200", ("POST", path), &headers, body.as_bytes());
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn check(&mut self, method: &str, path: &str, answer: &Raw) {
        let operation = self.document.operation(method, path);
        let id = operation.id().to_owned();
        let responses = &operation.value["responses"];
        let status = answer.status.to_string();
        let response = responses.get(&status);
        let response = response.unwrap_or_else(|| panic!("{id} may not answer {status}: {}", answer.body));
        let response = self.document.resolve(response);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.document.resolve(header);
            let value = answer.header(&name.to_lowercase());
            let value = value.unwrap_or_else(|| panic!("{id} {status} has no {name}"));
            let faults = self.document.faults(&header["schema"], &value.into());
            assert!(faults.is_empty(), "{id} {status} {name}: {faults:?}");
        }
        let media_type = answer.header("content-type");
        match response.get("content").and_then(Value::as_object) {
            None => assert!(answer.body.is_empty() && media_type.is_none(), "{id} {status} has a body"),
            Some(content) => {
                let media_type = media_type.unwrap_or_else(|| panic!("{id} {status} has no media type"));
                let content = content.get(media_type);
                let content = content.unwrap_or_else(|| panic!("{id} {status} is of type {media_type}"));
                let content = content.clone();
                self.check_content(&id, media_type, &content, &answer.body);
                self.seen.insert((id.clone(), media_type.to_owned()));
            }
        }
        let code = if answer.status >= 400 { answer.code() } else { status };
        self.seen.insert((id, code));
    }

    fn check_content(&mut self, id: &str, media_type: &str, content: &Value, body: &str) {
        let parse = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        match content.get("x-item-schema") {
            Some(item) => body.lines().for_each(|line| self.check_instance(id, item, &parse(line))),
            None if media_type.ends_with("json") => self.check_instance(id, &content["schema"], &parse(body)),
            None => self.check_instance(id, &content["schema"], &body.into()),
        }
    }

    pub(crate) fn check_instance(&mut self, id: &str, schema: &Value, instance: &Value) {
        let faults = self.document.faults(schema, instance);
        assert!(faults.is_empty(), "{id}: {faults:#?} in {instance:#}");
        self.shown.note(&self.document, id, schema, instance);
    }

    /// A body that was taken fits its schema, and one that has the wrong form does not.
    fn check_request(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        answer: &Raw,
    ) {
        let operation = self.document.operation(method, path);
        let content_type = headers.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| *value);
        let Some(content) = content_type.and_then(|t| operation.value["requestBody"]["content"].get(t))
        else {
            return;
        };
        let text = String::from_utf8_lossy(body);
        let faults =
            |schema: &Value, text: &str| self.document.faults(schema, &serde_json::from_str(text).unwrap());
        if let Some(item) = content.get("x-item-schema").filter(|_| answer.status == 200) {
            for (line, answer) in text.lines().zip(answer.body.lines()) {
                let answer: Value = serde_json::from_str(answer).unwrap();
                if answer.get("problem").is_none() {
                    assert_eq!(faults(item, line), Vec::<String>::new(), "{line}");
                }
            }
        } else if answer.status < 300 {
            assert_eq!(faults(&content["schema"], &text), Vec::<String>::new(), "{text}");
        } else if answer.code() == "bad-body" {
            assert!(!faults(&content["schema"], &text).is_empty(), "{text} fits the document");
        }
    }

    /// What no answer has shown: good statuses, problem codes, properties and words of the schemas.
    pub(crate) fn not_seen(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut possible = Shown::default();
        for operation in self.document.operations() {
            let mut expected = self.document.codes_of(&operation);
            for (status, response) in operation.value["responses"].as_object().unwrap() {
                let response = self.document.resolve(response);
                if status == "default" {
                    continue;
                }
                for (media_type, content) in response["content"].as_object().into_iter().flatten() {
                    let schema = content.get("x-item-schema").unwrap_or(&content["schema"]);
                    possible.note_all(&self.document, "", schema);
                    expected.push(media_type.clone());
                }
                expected.extend((status.as_str() < "400").then(|| status.clone()));
            }
            let id = operation.id();
            let unseen = expected.into_iter().filter(|what| !self.seen.contains(&(id.into(), what.clone())));
            missing.extend(unseen.map(|what| format!("{id} {what}")));
        }
        let (possible, shown) = (possible.in_components(), self.shown.in_components());
        // The codes are looked at for each operation.
        let unseen = possible.difference(&shown).filter(|place| !place.contains("Problem/code="));
        missing.extend(unseen.map(|place| (*place).to_owned()));
        missing.sort();
        missing.dedup();
        missing
    }

    fn operation(&self, path: &str) -> Operation<'_> {
        self.document.operation("GET", path)
    }

    fn connect(&self, path: &str, more: &str) -> (BufReader<TcpStream>, String) {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: {}\r\n{more}\r\n", self.address).unwrap();
        let mut socket = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(socket.read_line(&mut head).unwrap(), 0, "{head}");
        }
        (socket, head.to_lowercase())
    }

    /// Follows server-sent events.
    pub(crate) fn events(&mut self, path: &str, last: Option<&str>) -> Events {
        let more = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let (socket, head) = self.connect(path, &more);
        let operation = self.operation(path);
        let (id, response) = (operation.id().to_owned(), &operation.value["responses"]["200"]);
        let item = response["content"]["text/event-stream"]["x-item-schema"].clone();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        self.seen.insert((id.clone(), "200".to_owned()));
        self.seen.insert((id.clone(), "text/event-stream".to_owned()));
        Events { id, item, socket }
    }

    /// Follows over WebSocket.
    pub(crate) fn socket(&mut self, path: &str) -> Events {
        let more = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        let (socket, head) = self.connect(path, more);
        let operation = self.operation(path);
        let (id, response) = (operation.id().to_owned(), &operation.value["responses"]["101"]);
        let item = response["x-item-schema"].clone();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        self.seen.insert((id.clone(), "101".to_owned()));
        Events { id, item, socket }
    }
}

/// A stream of frames.
pub(crate) struct Events {
    id: String,
    item: Value,
    socket: BufReader<TcpStream>,
}

impl Events {
    /// The next server-sent event's data; its name and the frame's type must be the same.
    pub(crate) fn event(&mut self, probe: &mut Probe) -> Value {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.socket.read_line(&mut line).unwrap(), 0, "the stream ended");
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let frame: Value = serde_json::from_str(data).unwrap();
                assert_eq!(frame["type"], name.as_str());
                probe.check_instance(&self.id, &self.item, &frame);
                return frame;
            }
        }
    }

    /// The next text message; short ones and those of up to 64 KiB are enough here.
    pub(crate) fn message(&mut self, probe: &mut Probe) -> Value {
        loop {
            let mut head = [0; 2];
            self.socket.read_exact(&mut head).unwrap();
            let mut length = u16::from(head[1]);
            assert!(length < 127, "a server masks nothing, and sends nothing so long here");
            if length == 126 {
                let mut long = [0; 2];
                self.socket.read_exact(&mut long).unwrap();
                length = u16::from_be_bytes(long);
            }
            let mut payload = vec![0; usize::from(length)];
            self.socket.read_exact(&mut payload).unwrap();
            if head[0] == 0x81 {
                let frame: Value = serde_json::from_slice(&payload).unwrap();
                probe.check_instance(&self.id, &self.item, &frame);
                return frame;
            }
        }
    }
}
