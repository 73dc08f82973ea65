//! What the tests stand on: folders, certificates, the ledger's process.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use chaperone_crds::chain::StreamId;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::api_server::api_server;
pub(crate) use super::{
    api_server::Cluster,
    client::{Client, Lines, stream},
};

pub(crate) const ORIGIN: &str = "ledger.test/log";
const PROGRAM: &str = env!("CARGO_BIN_EXE_chaperone-ledger");
/// How long the program may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port to come back to: below those that the system gives to connections, of which one could have it while the ledger is dead.
fn free_port() -> u16 {
    loop {
        let random = RandomState::new().build_hasher().finish() % 20_000;
        let port = 10_000 + u16::try_from(random).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

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

/// Everything around one ledger.
pub(crate) struct World {
    pub(crate) folder: Arc<Folder>,
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
            folder: Arc::new(folder),
            cluster,
            listen: Mutex::new(format!("127.0.0.1:{}", free_port())),
            more: Mutex::default(),
        }
    }

    /// Another process of the same ledger, with a directory and a port of its own.
    pub(crate) fn replica(&self, name: &str) -> Self {
        let mut more = self.more.lock().unwrap().clone();
        more.extend(["--pod-name".to_owned(), name.to_owned()]);
        Self {
            folder: self.folder.clone(),
            cluster: self.cluster.clone(),
            vkey: self.vkey.clone(),
            data: self.folder.join(name),
            listen: Mutex::new(format!("127.0.0.1:{}", free_port())),
            more: Mutex::new(more),
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
            .args(self.pods_arguments())
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

    fn pods_arguments(&self) -> &[&str] {
        match self.cluster.pods.is_watched.load(Ordering::Relaxed) {
            true => &["--watch-pods", "--namespace", "chaperone"],
            false => &[],
        }
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
    pub(crate) fn start_as(&self, command: Command) -> Ledger {
        self.start_until(command, "the ledger takes records")
    }

    /// Starts the program and waits until it says this, with its address.
    pub(crate) fn start_until(&self, mut command: Command, message: &str) -> Ledger {
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
        let api = address(message);
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

    /// The same question, for a thread of its own.
    pub(crate) fn asking(
        &self,
        path: &str,
        token: &str,
    ) -> impl Fn() -> (u16, String) + Send + 'static {
        let url = format!("https://{}{path}", self.api);
        let arguments = [
            "-sS".to_owned(),
            "-w".to_owned(),
            "\n%{http_code}".to_owned(),
            "--cacert".to_owned(),
            self.ca.display().to_string(),
            "-H".to_owned(),
            format!("Authorization: Bearer {token}"),
            url,
        ];
        move || {
            let output = Command::new("curl").args(&arguments).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let (body, status) = text.rsplit_once('\n').unwrap();
            (status.parse().unwrap(), body.to_owned())
        }
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

    /// The status code of a batch; 0 of one that was not answered.
    pub(crate) fn curl_batch(&self, token: &str, stream: &StreamId, batch: &[u8]) -> u16 {
        let folder = Folder::new("batch");
        let file = folder.join("batch");
        fs::write(&file, batch).unwrap();
        let data = format!("@{}", file.display());
        let kind = "Content-Type: application/x-ndjson";
        let path = format!("/v1/streams/{stream}/records");
        self.curl(&path, token, &["-H", kind, "--data-binary", &data])
            .0
    }

    /// How it ended by itself.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        wait(&mut self.child)
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
