//! The formats against another implementation: Go's checksum database (`golang.org/x/mod/sumdb`) and a client of the witness network (`filippo.io/torchwood`), in `peer/`.
//!
//! Each side reads what the other wrote. The program is built here, from pinned modules; without Go these tests fail and say so.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use chaperone_crds::chain::{RecordHash, StreamId};
use chaperone_ledger::{
    checkpoint::{self, Checkpoint, Origin},
    cosignature::Time,
    key::{Algorithm, SigningKey, VerifierKey},
    leaf::Leaf,
    merkle::{
        Hash, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency,
        verify_inclusion,
    },
    note,
    tile::{Builder, Row, Source, Tile, TileTree, WIDTH, read_entries, write_entry, write_hashes},
};

const ORIGIN: &str = "ledger.chaperone.example/team";
const WITNESS: &str = "witness.example/w1";
const WITNESS_SEED: [u8; 32] = [9; 32];

/// The built program.
fn peer() -> &'static Path {
    static PEER: OnceLock<PathBuf> = OnceLock::new();
    PEER.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ledger-peer");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer");
        let mut build = Command::new(go());
        build
            .current_dir(folder)
            .args(["build", "-o"])
            .arg(&program)
            .arg(".");
        run(&mut build);
        program
    })
}

/// Go from the path, or from where its own installer puts it.
fn go() -> PathBuf {
    let usual = Path::new("/usr/local/go/bin/go");
    let in_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join("go"))
            .find(|file| file.is_file())
    });
    in_path
        .or_else(|| usual.is_file().then(|| usual.to_owned()))
        .expect("Go is missing: the ledger's formats are tested against a program in Go; install Go 1.26 or later from https://go.dev/dl/")
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A killed run may have left it.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: impl ToString, content: impl AsRef<[u8]>) {
        let path = self.0.join(name.to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Source for Folder {
    type Error = Infallible;

    fn read(&self, tile: Tile) -> Result<Vec<u8>, Infallible> {
        let path = self.0.join(tile.to_string());
        Ok(fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }
}

fn leaf(number: u64) -> Leaf {
    Leaf {
        stream: StreamId::from_random([1; 16]),
        seq: number,
        record: RecordHash::of(&number.to_be_bytes()),
    }
}

/// Writes a log of this many leaves; its checkpoint is signed by the log and a witness.
fn write(folder: &Folder, size: u64, log: &SigningKey) -> Hash {
    let mut builder = Builder::default();
    for number in 0..size {
        for full in builder.push(leaf(number).hash()) {
            folder.put(full.tile, write_hashes(&full.hashes));
        }
    }
    for tile in Tile::partial(size) {
        if let Row::Hashes(level) = tile.row {
            folder.put(tile, write_hashes(builder.edge(level).unwrap()));
        }
    }
    for index in 0..size.div_ceil(u64::from(WIDTH)) {
        let tile = Tile::within(Row::Entries, index, size).unwrap();
        let first = index * u64::from(WIDTH);
        let mut bundle = Vec::new();
        for number in first..first + u64::from(tile.width.get()) {
            write_entry(&mut bundle, leaf(number).to_string().as_bytes()).unwrap();
        }
        folder.put(tile, bundle);
    }
    let root = root(&TileTree::new(folder, size), size).unwrap();
    let checkpoint = Checkpoint::new(ORIGIN.parse().unwrap(), size, root);
    let note = checkpoint.sign(&[log], Time::default()).unwrap();
    let witness = SigningKey::from_seed(
        WITNESS.parse().unwrap(),
        Algorithm::CosignatureV1,
        WITNESS_SEED,
    );
    let now = Time::new(1_800_000_000).unwrap();
    folder.put(
        "checkpoint",
        note::countersign(&note, &witness, now).unwrap(),
    );
    root
}

fn line(kind: &str, a: u64, b: u64, x: Hash, y: Hash, proof: &[Hash]) -> String {
    let mut line = format!("{kind} {a} {b} {x} {y}");
    for hash in proof {
        line.push_str(&format!(" {hash}"));
    }
    line.push('\n');
    line
}

/// Proofs of some leaves and of all older trees, each by the tiles of the whole tree.
fn proofs(folder: &Folder, size: u64, whole: Hash) -> String {
    let tree = TileTree::new(folder, size);
    let mut proofs = String::new();
    for number in (0..size).step_by(7) {
        let proof = inclusion_proof(&tree, number, size).unwrap();
        let leaf = leaf(number).hash();
        proofs += &line("inclusion", number, size, leaf, whole, &proof);
        let older = number + 1;
        let proof = consistency_proof(&tree, older, size).unwrap();
        let older_root = root(&tree, older).unwrap();
        proofs += &line("consistency", older, size, older_root, whole, &proof);
    }
    proofs
}

#[test]
fn go_reads_what_we_write() {
    let log = SigningKey::generate(ORIGIN.parse().unwrap(), Algorithm::Ed25519).unwrap();
    for size in [1, 2, 255, 256, 257, 700] {
        let folder = Folder::new(&format!("peer-reads-{size}"));
        let root = write(&folder, size, &log);
        folder.put("proofs", proofs(&folder, size, root));
        let output = run(Command::new(peer())
            .arg("read")
            .arg(&folder.0)
            .arg(ORIGIN)
            .arg(log.verifier().to_string())
            .arg(format!("{WITNESS}={}", hex::encode(WITNESS_SEED))));
        let wanted: String = (0..size).map(|n| format!("{n} {}\n", leaf(n))).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    }
}

#[test]
fn go_refuses_what_was_damaged() {
    let log = SigningKey::generate(ORIGIN.parse().unwrap(), Algorithm::Ed25519).unwrap();
    for name in ["checkpoint", "tile/0/000", "tile/entries/000", "proofs"] {
        let folder = Folder::new(&format!("peer-refuses-{}", name.replace('/', "-")));
        let root = write(&folder, 300, &log);
        folder.put("proofs", proofs(&folder, 300, root));
        let mut bytes = fs::read(folder.0.join(name)).unwrap();
        let middle = bytes.len() / 2;
        // A letter or a digit stays one.
        bytes[middle] ^= 1;
        folder.put(name, &bytes);
        let mut read = Command::new(peer());
        let read = read.arg("read").arg(&folder.0).arg(ORIGIN);
        let output = read.arg(log.verifier().to_string()).output().unwrap();
        assert!(!output.status.success(), "{name} was altered and believed");
    }
}

#[test]
fn we_read_what_go_writes() {
    for size in [1, 2, 256, 300, 515] {
        let folder = Folder::new(&format!("peer-writes-{size}"));
        let mut write = Command::new(peer());
        run(write
            .arg("write")
            .arg(&folder.0)
            .args([ORIGIN, &size.to_string()]));
        let vkeys = folder.text("vkeys");
        let known: Vec<VerifierKey> = vkeys.lines().map(|k| k.parse().unwrap()).collect();
        let note = fs::read(folder.0.join("checkpoint")).unwrap();
        let origin: Origin = ORIGIN.parse().unwrap();
        let signed = checkpoint::open(&note, &origin, &known).unwrap();
        let [by_log, by_witness] = signed.signatures[..] else {
            panic!("{signed:?}");
        };
        assert_eq!((by_log.key, by_log.time), (&known[0], None));
        assert!(by_witness.time.unwrap().seconds() > 1_700_000_000);

        let tree = TileTree::new(&folder, size);
        let head = &signed.checkpoint;
        assert_eq!(head.size, size);
        assert_eq!(root(&tree, size), Ok(head.root));
        check_entries(&folder, &tree, size);
        let mut count = 0;
        for line in folder.text("proofs").lines() {
            check_proof(line, &tree);
            count += 1;
        }
        assert_eq!(count, 2 * size);
        // The key of Go's makes the same signature here: Ed25519 has one for each text.
        let key: SigningKey = folder.text("skey").trim_end().parse().unwrap();
        let ours = head.sign(&[&key], Time::default()).unwrap();
        assert!(note.starts_with(&ours));
    }
}

fn check_entries(folder: &Folder, tree: &TileTree<'_, Folder>, size: u64) {
    for index in 0..size.div_ceil(u64::from(WIDTH)) {
        let tile = Tile::within(Row::Entries, index, size).unwrap();
        let bundle = folder.read(tile).unwrap();
        let entries = read_entries(&bundle, tile.width).unwrap();
        let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(tree.hashes(0, index), Ok(hashes));
    }
}

/// Go's proof verifies, and ours is the same.
fn check_proof(line: &str, tree: &TileTree<'_, Folder>) {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let hash = |word: &str| word.parse::<Hash>().unwrap();
    let (a, b, x, y) = (number(1), number(2), hash(words[3]), hash(words[4]));
    let proof: Vec<Hash> = words[5..].iter().map(|word| hash(word)).collect();
    if words[0] == "inclusion" {
        verify_inclusion(&x, a, b, &y, &proof).unwrap();
        assert_eq!(inclusion_proof(tree, a, b), Ok(proof));
    } else {
        verify_consistency(a, b, &x, &y, &proof).unwrap();
        assert_eq!(consistency_proof(tree, a, b), Ok(proof));
    }
}
