use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers each connection with the next of `answers`; an empty one is a connection that breaks off.
async fn server(answers: Vec<&'static str>) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let serve = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let n = stream.read(&mut bytes).await.unwrap();
            requests.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (client.patience(Duration::from_secs(5)), serve)
}

const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 409 Conflict\r\ncontent-length: 47\r\nconnection: close\r\n\r\n\
                       {\"code\":\"already-voted\",\"record\":\"votes-1-2-3\"}";

#[tokio::test]
async fn a_lost_connection_and_a_busy_server_are_asked_again_with_the_same_key() {
    let (client, serve) = server(vec!["", BUSY, CREATED]).await;
    let start = Instant::now();
    let answer = client.send(&Request::post("/x", "key-7", &"body")).await.unwrap();
    assert_eq!(answer.status, 201);
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
    let requests = serve.await.unwrap();
    assert_eq!(requests.len(), 3);
    assert!(
        requests.iter().all(|r| r.contains("idempotency-key: key-7") && *r == requests[0]),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_refusal_is_final() {
    let (client, serve) = server(vec![REFUSED]).await;
    let error = client.post::<serde_json::Value>("/x", "k", &"body").await.unwrap_err();
    let Error::Refused { status, problem, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (*status, problem.code.as_str(), problem.record.as_deref()),
        (409, "already-voted", Some("votes-1-2-3"))
    );
    serve.await.unwrap();
}

#[tokio::test]
async fn patience_ends_in_one_line_that_says_what_to_do() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{unused}")).unwrap().patience(Duration::from_millis(100));
    let error = client.send(&Request::get("/")).await.unwrap_err().to_string();
    assert!(
        error.contains("start the server and run the same command again") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn addresses_are_checked() {
    assert_eq!(Client::new("http://127.0.0.1:80/").unwrap().authority(), "127.0.0.1:80");
    for bad in ["", "127.0.0.1:80", "https://a:1", "http://a", "http://:80", "http://a:99999", "http://a:1/b"]
    {
        assert!(Client::new(bad).is_err(), "{bad}");
    }
}
