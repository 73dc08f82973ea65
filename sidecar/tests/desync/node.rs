//! Node's HTTP server with its lenient parser: an upstream that takes much of what it should not.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

const PROGRAM: &str = "
const server = require('http').createServer({insecureHTTPParser: true, requireHostHeader: false}, (request, response) => {
  console.log(request.url);
  request.resume();
  response.end('ok');
});
server.on('connect', (request, socket) => { console.log(request.url); socket.end('HTTP/1.1 200 OK\\r\\n\\r\\n'); });
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
";

/// A server, gone with the value.
pub(crate) struct Node {
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Node {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let mut child = Command::new("node")
            .args(["-e", PROGRAM])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is there: hack/setup installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        Self {
            port,
            lines,
            _child: child,
        }
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// URLs of what it served since it was asked last.
    pub(crate) async fn served(&mut self) -> Vec<String> {
        let mut last = self.connect().await;
        let ask = "GET /that-was-all HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        last.write_all(ask.as_bytes()).await.unwrap();
        last.read_to_end(&mut Vec::new()).await.unwrap();
        let mut urls = Vec::new();
        loop {
            match self.lines.next_line().await.unwrap().unwrap() {
                line if line == "/that-was-all" => return urls,
                line => urls.push(line),
            }
        }
    }
}
