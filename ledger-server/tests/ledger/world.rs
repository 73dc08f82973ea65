//! What the tests stand on: folders, certificates, an API server, the ledger's process, clients.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use chaperone_crds::{
    chain::{Chain, StreamId},
    pod::SIDECAR_NAME,
    record::{AgentRef, Event, EventKind},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::sinks::api::{self, Api};

pub(crate) const ORIGIN: &str = "ledger.test/log";
const PROGRAM: &str = env!("CARGO_BIN_EXE_chaperone-ledger");
/// How long the program may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a test kills: a campaign asks for more than the usual.
pub(crate) fn kills(usual: u64) -> u64 {
    let asked = std::env::var("CHAPERONE_KILLS").ok();
    asked.map_or(usual, |asked| {
        asked.parse().expect("CHAPERONE_KILLS is a number")
    })
}

/// A folder, gone with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the API server knows. The token of pod NAME is `pod-NAME`; `reader` may read all, `team` records and sessions of namespace `agents`, `stranger` nothing.
#[derive(Default)]
pub(crate) struct Cluster {
    /// No answers at all.
    pub(crate) down: AtomicBool,
    /// Image IDs that the kubelet has reported.
    pub(crate) image_ids: Mutex<Vec<String>>,
    /// TokenReviews asked for.
    pub(crate) reviews: AtomicU32,
    /// AuditSinks and Secrets.
    pub(crate) sinks: Api,
}

/// An API server on loopback, for as long as the test's process.
fn api_server(cluster: Arc<Cluster>) -> SocketAddr {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let router = Router::new()
                .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
                .route(
                    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                    post(access),
                )
                .route("/api/v1/namespaces/agents/pods/{name}", get(pod))
                .merge(api::router())
                .with_state(cluster);
            axum::serve(listener, router).await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

async fn review(State(cluster): State<Arc<Cluster>>, Json(review): Json<Value>) -> Response {
    cluster.reviews.fetch_add(1, Ordering::Relaxed);
    if cluster.down.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let token = review["spec"]["token"].as_str().unwrap();
    assert_eq!(review["spec"]["audiences"], json!(["chaperone.dev/ledger"]));
    let user = match token.strip_prefix("pod-") {
        Some(pod) => json!({
            "username": "system:serviceaccount:agents:coder", "extra": {
                "authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [format!("uid-{pod}")]
            }
        }),
        None => json!({"username": token, "groups": ["system:authenticated"]}),
    };
    let status = match token {
        "forged" => json!({"authenticated": false}),
        _ => {
            json!({"authenticated": true, "audiences": review["spec"]["audiences"], "user": user})
        }
    };
    Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status}))
        .into_response()
}

async fn access(Json(review): Json<Value>) -> Response {
    let spec = &review["spec"];
    let resource = &spec["resourceAttributes"];
    let allowed = match spec["user"].as_str().unwrap() {
        "reader" => {
            resource["group"] == "chaperone.dev" || spec["nonResourceAttributes"]["verb"] == "get"
        }
        "team" => resource["group"] == "chaperone.dev" && resource["namespace"] == "agents",
        _ => false,
    };
    Json(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {}, "status": {"allowed": allowed}
    }))
    .into_response()
}

async fn pod(State(cluster): State<Arc<Cluster>>, UrlPath(name): UrlPath<String>) -> Response {
    let statuses: Vec<_> = cluster
        .image_ids
        .lock()
        .unwrap()
        .iter()
        .map(|id| json!({"name": "agent", "image": "claude:1", "imageID": id, "ready": true, "restartCount": 0}))
        .collect();
    if name.starts_with("gone") {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404});
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    }
    Json(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "agents", "uid": format!("uid-{name}")},
        "spec": {
            "serviceAccountName": "coder", "nodeName": "node-1",
            "initContainers": [{"name": SIDECAR_NAME}], "containers": [{"name": "agent", "image": "claude:1"}]
        },
        "status": {"containerStatuses": statuses}
    }))
    .into_response()
}

/// Everything around one ledger.
pub(crate) struct World {
    pub(crate) folder: Folder,
    pub(crate) cluster: Arc<Cluster>,
    /// The log's public key.
    pub(crate) vkey: String,
    /// Where the ledger keeps its records.
    pub(crate) data: PathBuf,
    /// Where it listens.
    listen: Mutex<String>,
    /// What else its command line says.
    pub(crate) more: Mutex<Vec<String>>,
}

/// The running program.
pub(crate) struct Ledger {
    child: Child,
    pub(crate) api: SocketAddr,
    pub(crate) status: SocketAddr,
    ca: PathBuf,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        let cluster = Arc::new(Cluster::default());
        let server = api_server(cluster.clone());
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
            "users": [{"name": "u", "user": {}}]
        });
        fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let made = Command::new(PROGRAM)
            .args(["generate-key", "--origin", ORIGIN, "--out"])
            .arg(folder.join("skey"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self {
            data: folder.join("data"),
            vkey: String::from_utf8(made.stdout).unwrap().trim().to_owned(),
            folder,
            cluster,
            listen: Mutex::new("127.0.0.1:0".to_owned()),
            more: Mutex::default(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        let file = |name| self.folder.join(name);
        command
            .args(["serve", "--origin", ORIGIN, "--listen"])
            .arg(&*self.listen.lock().unwrap())
            .args([
                "--status-listen",
                "127.0.0.1:0",
                "--checkpoint-seconds",
                "1",
            ])
            .arg("--dir")
            .arg(&self.data)
            .arg("--key-file")
            .arg(file("skey"))
            .arg("--certificate")
            .arg(file("tls.crt"))
            .arg("--certificate-key")
            .arg(file("tls.key"))
            .env("KUBECONFIG", file("kubeconfig"))
            .args(self.sinks_arguments())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(&*self.more.lock().unwrap())
            .stdout(Stdio::piped());
        command
    }

    /// From its next start on, and a few seconds later where it runs, the ledger feeds these AuditSinks.
    pub(crate) fn set_sinks(&self, yaml: &str) {
        let (new, file) = (
            self.folder.join("sinks.new"),
            self.folder.join("sinks.yaml"),
        );
        fs::write(&new, yaml).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// A key of a Secret that sinks may name.
    pub(crate) fn set_secret(&self, secret: &str, key: &str, value: &str) {
        let folder = self.folder.join("secrets").join(secret);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(key), value).unwrap();
    }

    fn sinks_arguments(&self) -> Vec<std::ffi::OsString> {
        if self.cluster.sinks.is_watched.load(Ordering::Relaxed) {
            return ["--watch-sinks", "--namespace", "chaperone"]
                .map(Into::into)
                .into();
        }
        let (file, secrets) = (self.folder.join("sinks.yaml"), self.folder.join("secrets"));
        match file.exists() {
            true => vec![
                "--sinks".into(),
                file.into(),
                "--sinks-secrets".into(),
                secrets.into(),
            ],
            false => Vec::new(),
        }
    }

    /// Starts the program and waits until it takes records.
    pub(crate) fn start(&self) -> Ledger {
        self.start_as(self.command())
    }

    /// The same, started in another way.
    pub(crate) fn start_as(&self, mut command: Command) -> Ledger {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |message: &str| loop {
            let line = lines.next().expect("the ledger ended").unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["fields"]["message"] == message {
                let listen = line["fields"]["listen"].as_str().unwrap();
                break listen.parse().unwrap();
            }
        };
        let status = address("health and metrics are served");
        let api = address("the ledger takes records");
        // A full pipe would stop the program.
        thread::spawn(move || lines.for_each(drop));
        Ledger {
            child,
            api,
            status,
            ca: self.folder.join("tls.crt"),
        }
    }

    /// From now on the ledger listens there.
    pub(crate) fn pin(&self, address: SocketAddr) {
        *self.listen.lock().unwrap() = address.to_string();
    }

    /// All that is in the ledger, in the order of the leaves.
    pub(crate) fn records(&self) -> Vec<u8> {
        let mut files: Vec<_> = fs::read_dir(self.data.join("records"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .iter()
            .flat_map(|file| fs::read(file).unwrap())
            .collect()
    }
}

impl Ledger {
    /// curl, with its status code and body. An empty token is none.
    pub(crate) fn curl(&self, path: &str, token: &str, arguments: &[&str]) -> (u16, String) {
        let output = self.curl_output(path, token, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn curl_output(&self, path: &str, token: &str, arguments: &[&str]) -> Output {
        Command::new("curl")
            .args([
                "-sS",
                "--path-as-is",
                "--max-time",
                "60",
                "-w",
                "\n%{http_code}",
            ])
            .arg("--cacert")
            .arg(&self.ca)
            .args(match token {
                "" => vec![],
                token => vec!["-H".to_owned(), format!("Authorization: Bearer {token}")],
            })
            .args(arguments)
            .arg(format!("https://{}{path}", self.api))
            .output()
            .unwrap()
    }

    /// Sends a batch with curl.
    pub(crate) fn post(&self, token: &str, stream: &StreamId, batch: &[u8]) -> (u16, Value) {
        let folder = Folder::new("batch");
        let file = folder.join("batch");
        fs::write(&file, batch).unwrap();
        let data = format!("@{}", file.display());
        let arguments = [
            "-H",
            "Content-Type: application/x-ndjson",
            "--data-binary",
            &data,
        ];
        let path = format!("/v1/streams/{stream}/records");
        let (status, body) = self.curl(&path, token, &arguments);
        (status, serde_json::from_str(&body).unwrap())
    }

    /// A metric, 0 where it has not counted.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |rest| rest.trim().parse().unwrap())
    }

    /// All metrics, as they are served.
    pub(crate) fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.status);
        let output = Command::new("curl").args(["-sS", &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A client for many requests.
    pub(crate) async fn client(&self, token: &str) -> Client {
        Client::connect(self.api, &self.ca, token).await.unwrap()
    }

    /// What a client needs, for those that outlive this process of the ledger.
    pub(crate) fn ca(&self) -> PathBuf {
        self.ca.clone()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// SIGTERM; the program must end well.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(wait(&mut self.child).success());
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Gone already where the test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process to end by itself.
pub(crate) fn wait(child: &mut Child) -> std::process::ExitStatus {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(std::time::Instant::now() < until, "the ledger did not end");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a process that must fail says on standard error.
pub(crate) fn fails(mut command: Command) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    assert!(!wait(&mut child).success());
    let mut text = String::new();
    child.stderr.unwrap().read_to_string(&mut text).unwrap();
    text
}

/// One connection.
pub(crate) struct Client {
    requests: http1::SendRequest<Full<Bytes>>,
    token: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub(crate) async fn connect(
        address: SocketAddr,
        ca: &Path,
        token: &str,
    ) -> Result<Self, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = tokio::net::TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        let (requests, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self {
            requests,
            token: token.to_owned(),
        })
    }

    pub(crate) async fn post(
        &mut self,
        stream: &StreamId,
        batch: Vec<u8>,
    ) -> Result<(u16, Value), Failure> {
        let request = self
            .request("POST", &format!("/v1/streams/{stream}/records"))
            .header("content-type", "application/x-ndjson")
            .body(Full::from(batch))?;
        self.send(request).await
    }

    pub(crate) async fn next(&mut self, stream: &StreamId) -> Result<u64, Failure> {
        let request = self
            .request("GET", &format!("/v1/streams/{stream}"))
            .body(Full::default())?;
        let (_, body) = self.send(request).await?;
        body["nextSeq"]
            .as_u64()
            .ok_or_else(|| body.to_string().into())
    }

    fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "ledger")
            .header("authorization", format!("Bearer {}", self.token))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(u16, Value), Failure> {
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

pub(crate) fn stream(number: u8) -> StreamId {
    StreamId::from_random([number; 16])
}

/// Writes the records of a stream, one after the other.
pub(crate) struct Lines(Chain);

impl Lines {
    pub(crate) fn new(stream: StreamId) -> Self {
        Self(Chain::new(stream))
    }

    /// The next so many, the first of a stream being its open.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..count {
            self.append(&mut out);
        }
        out
    }

    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        let kind = match self.0.next_seq() {
            0 => EventKind::StreamOpen,
            _ => EventKind::Dns,
        };
        let event = Event::new(kind, AgentRef::default());
        self.0.append(&event, jiff::Timestamp::now(), out);
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.0.next_seq()
    }
}
