//! Cosignatures of a real witness: litewitness, of the witness network, built from its pinned module.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use chaperone_ledger::{
    checkpoint::{self, Origin},
    key::VerifierKey,
};

use crate::{
    go,
    world::{Folder, Ledger, Lines, ORIGIN, World, stream},
};

const NAME: &str = "witness.test/w1";
const PATIENCE: Duration = Duration::from_secs(60);

/// The built program.
fn litewitness() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| go::built("witness", "filippo.io/torchwood/cmd/litewitness"))
}

fn succeeds(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A witness with its own key, in an agent of its own, which knows no log yet.
struct Witness {
    folder: Folder,
    agent: Child,
    program: Option<Child>,
    port: u16,
    /// Once it has said it.
    key: Option<VerifierKey>,
}

impl Witness {
    fn new() -> Self {
        let folder = Folder::new("witness");
        // Longer paths than 107 bytes are no addresses of sockets.
        let socket =
            Path::new("/tmp").join(format!("chaperone-witness-{}.sock", std::process::id()));
        let _ = fs::remove_file(&socket);
        let key = folder.join("key");
        succeeds(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key),
        );
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        until("the agent listens", || socket.exists());
        succeeds(
            Command::new("ssh-add")
                .arg("-q")
                .arg(&key)
                .env("SSH_AUTH_SOCK", &socket),
        );
        fs::write(folder.join("socket"), socket.to_str().unwrap()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut witness = Self {
            folder,
            agent,
            program: None,
            port,
            key: None,
        };
        witness.key = Some(witness.start());
        witness
    }

    fn socket(&self) -> String {
        fs::read_to_string(self.folder.join("socket")).unwrap()
    }

    /// Its key, as it says itself.
    fn start(&mut self) -> VerifierKey {
        let listed = succeeds(
            Command::new("ssh-keygen")
                .arg("-lf")
                .arg(self.folder.join("key.pub")),
        );
        let fingerprint = listed.split(' ').nth(1).unwrap();
        let mut program = Command::new(litewitness())
            .args([
                "-name",
                NAME,
                "-key",
                fingerprint,
                "-ssh-agent",
                &self.socket(),
                "-db",
            ])
            .arg(self.folder.join("db"))
            .args(["-listen", &format!("127.0.0.1:{}", self.port)])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
        let line = lines
            .find(|line| line.as_ref().unwrap().contains("vkey="))
            .expect("the witness says its key")
            .unwrap();
        thread::spawn(move || lines.for_each(drop));
        self.program = Some(program);
        let port = self.port;
        until("the witness listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        line.split("vkey=").nth(1).unwrap().trim().parse().unwrap()
    }

    fn stop(&mut self) {
        let mut program = self.program.take().unwrap();
        program.kill().unwrap();
        program.wait().unwrap();
    }

    /// As its operator does: the log and its key.
    fn learn(&self, world: &World) {
        let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute('INSERT INTO log VALUES (?, 0, ?)', (sys.argv[2], '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='))\ndb.execute('INSERT INTO key VALUES (?, ?)', (sys.argv[2], sys.argv[3]))\ndb.commit()\n";
        let database = self.folder.join("db");
        succeeds(
            Command::new("python3")
                .args(["-c", script])
                .arg(database)
                .args([ORIGIN, &world.vkey]),
        );
    }

    /// Has the world's ledger ask it.
    fn told_to(&self, world: &World) {
        let policy = world.folder.join("policy");
        let (key, port) = (self.key.as_ref().unwrap(), self.port);
        fs::write(
            &policy,
            format!(
                "log {}\nwitness w1 {key} http://127.0.0.1:{port}\nquorum w1\n",
                world.vkey
            ),
        )
        .unwrap();
        let mut more = world.more.lock().unwrap();
        more.extend([
            "--witness-policy".to_owned(),
            policy.to_str().unwrap().to_owned(),
        ]);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for child in self.program.iter_mut().chain([&mut self.agent]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.socket());
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: not in time");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Records under the newest checkpoint that the witness has signed; 0 where there is none.
fn witnessed(world: &World, ledger: &Ledger, witness: &Witness) -> u64 {
    let (status, note) = ledger.curl("/checkpoint/witnessed", "reader", &[]);
    if status == 404 {
        return 0;
    }
    assert_eq!(status, 200, "{note}");
    let origin: Origin = ORIGIN.parse().unwrap();
    let keys = [world.vkey.parse().unwrap(), witness.key.clone().unwrap()];
    let signed = checkpoint::open(note.as_bytes(), &origin, &keys).unwrap();
    let by: Vec<_> = signed
        .signatures
        .iter()
        .map(|s| s.key.name().as_str())
        .collect();
    assert_eq!(by, [ORIGIN, NAME]);
    signed.checkpoint.size
}

/// So many times an exchange came to this.
fn came_to(ledger: &Ledger, result: &str) -> f64 {
    ledger.metric(&format!(
        "chaperone_ledger_witness_requests_total{{result=\"{result}\",witness=\"w1\"}}"
    ))
}

#[test]
fn checkpoints_are_cosigned_and_a_history_that_went_back_finds_no_witness() {
    let world = World::new("witnessed");
    let mut witness = Witness::new();
    witness.told_to(&world);
    let mut ledger = world.start();
    world.pin(ledger.api);
    until("a log that it does not know is refused", || {
        came_to(&ledger, "unknown-log") > 0.0
    });
    assert_eq!(witnessed(&world, &ledger, &witness), 0);

    // It is told of the log, and signs what comes.
    witness.learn(&world);
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    let mut more = |ledger: &Ledger, count| {
        let (status, body) = ledger.post("pod-a", &id, &lines.take(count));
        assert_eq!(status, 200, "{body}");
    };
    more(&ledger, 300);
    until("the witness signs", || {
        witnessed(&world, &ledger, &witness) > 300
    });

    // Killed at any time: what the witness knows is learnt from itself.
    ledger.kill();
    ledger = world.start();
    more(&ledger, 300);
    until("the witness goes on", || {
        witnessed(&world, &ledger, &witness) > 600
    });

    // While it is away nothing waits for it.
    witness.stop();
    more(&ledger, 10);
    until("it is away", || came_to(&ledger, "unreachable") > 0.0);
    let before = witnessed(&world, &ledger, &witness);
    witness.start();
    more(&ledger, 10);
    until("it is back", || {
        witnessed(&world, &ledger, &witness) > before
    });
    ledger.stop();

    // An older copy in the ledger's place: first there is less than was witnessed, then something else.
    let copy = world.folder.join("copy");
    succeeds(Command::new("cp").arg("-a").args([&world.data, &copy]));
    let ledger = world.start();
    more(&ledger, 300);
    until("it signs once more", || {
        witnessed(&world, &ledger, &witness) > 900
    });
    let signed = witnessed(&world, &ledger, &witness);
    ledger.stop();
    fs::remove_dir_all(&world.data).unwrap();
    fs::rename(&copy, &world.data).unwrap();
    let ledger = world.start();
    until("it knows more than there is", || {
        came_to(&ledger, "ahead") > 0.0
    });
    let mut other = Lines::new(stream(2));
    let (status, body) = ledger.post("pod-a", &stream(2), &other.take(600));
    assert_eq!(status, 200, "{body}");
    until("it knows another history", || {
        came_to(&ledger, "contradicted") > 0.0
    });
    assert!(witnessed(&world, &ledger, &witness) < signed);
    ledger.stop();
}
