//! `chaperone replay` in a terminal.

use super::replay::session_log;
use super::*;

/// Plays a session in a real pseudo-terminal of 80 columns and 24 rows, of which it knows what is to be seen.
const PLAYER: &str = r#"
import atexit, codecs, fcntl, os, pty, re, select, signal, struct, sys, termios, time

SEQUENCE = re.compile("\x1b\\[([?0-9;]*)([A-Za-z])|([^\x1b])", re.S)

class Player:
    def __init__(self, *more, told=True):
        self.ours, self.theirs = pty.openpty()
        self.size(24, 80)
        self.before = termios.tcgetattr(self.theirs)
        self.decoder, self.unread = codecs.getincrementaldecoder("utf-8")(), ""
        self.cells, self.row, self.column, self.modes = {}, 1, 1, {"?25": True}
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.ours)
            os.setsid()
            fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(self.theirs, fd)
            os.environ["TERM"] = "xterm-256color"
            if not told:
                # The kernel tells the session's leader alone when a terminal hangs up.
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                player = os.fork()
                if player != 0:
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(player, 0)[1]))
            os.execv(sys.argv[1], [sys.argv[1], "replay", "--dir", sys.argv[2], "s1", *more])

        self.status = None
        atexit.register(self.kill)

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def size(self, rows, columns):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        if not select.select([self.ours], [], [], seconds)[0]:
            return
        text = self.unread + self.decoder.decode(os.read(self.ours, 65536))
        begin = text.rfind("\x1b")
        is_whole = begin < 0 or SEQUENCE.match(text, begin)
        text, self.unread = (text, "") if is_whole else (text[:begin], text[begin:])
        for numbers, final, char in SEQUENCE.findall(text):
            if char:
                self.cells[self.row, self.column] = char
                self.column += 1
            elif final == "H":
                self.row, self.column = (int(n) for n in (numbers or "1;1").split(";"))
            elif final == "J":
                self.cells.clear()
            elif final in "hl":
                self.modes[numbers] = final == "h"

    def seen(self):
        line = lambda row: "".join(self.cells.get((row, column), " ") for column in range(1, 81))
        return "\n".join(line(row) for row in range(1, 25))

    def until(self, text):
        end = time.monotonic() + 20
        while text not in self.seen():
            assert time.monotonic() < end, f"{text!r} is not in:\n{self.seen()}"
            self.read(0.1)

    def press(self, keys):
        os.write(self.ours, keys.encode())

    def abandoned(self):
        """The exit status after the terminal is gone, of a player that nobody tells."""
        os.close(self.ours)
        end, done = time.monotonic() + 20, (0, 0)
        while done[0] == 0:
            assert time.monotonic() < end, "it does not end"
            time.sleep(0.05)
            done = os.waitpid(self.pid, os.WNOHANG)
        self.status = os.waitstatus_to_exitcode(done[1])
        return self.status

    def end(self):
        """The exit status. The terminal must be as it was."""
        assert self.modes["?1049"]
        end, done = time.monotonic() + 20, (0, 0)
        while done[0] == 0:
            assert time.monotonic() < end, "it does not end"
            self.read(0.05)
            done = os.waitpid(self.pid, os.WNOHANG)
        self.read(0)
        assert not self.modes["?1049"], "another screen than before"
        assert self.modes["?25"], "the cursor is hidden"
        assert termios.tcgetattr(self.theirs) == self.before, "the terminal is not as it was"
        self.status = os.waitstatus_to_exitcode(done[1])
        return self.status
"#;

fn in_a_terminal(dir: &std::path::Path, steps: &str) -> Output {
    Command::new("python3")
        .arg("-c")
        .arg(format!("{PLAYER}\n{steps}"))
        .arg(env!("CARGO_BIN_EXE_chaperone"))
        .arg(dir)
        .output()
        .unwrap()
}

#[test]
fn replay_is_a_player_in_a_terminal_and_leaves_it_as_it_was() {
    let folder = std::env::temp_dir().join(format!("chaperone-replay-pty-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    ledger_of(&folder, &StreamId::from_random([9; 16]), &session_log());
    let dir = folder.join("ledger");
    for (name, steps, status) in [
        (
            "keys",
            r#"
p = Player()
p.until("paused x1  +0:00:00.000  turn 0/2  1/5  s1")
p.until("q quit")
p.press("\x1b[B\x1b[B")
p.until("turn 1/2  3/5")
p.until("agents/coding no-delete: Ask a")
p.press("/refused\r")
p.until("turn 2/2  5/5")
p.until("request   tool_result: refused")
p.press("/nothing here\r")
p.until("no record that is shown has these words")
p.press("\x1b[D")
p.until("turn 1/2  2/5")
p.until("response  tool_use \\u{1b}[2Jdelete")
p.press(" ")
p.until("playing")
p.until("turn 1/2  3/5")
p.press(" ")
p.until("paused")
p.press("?")
p.until("any key closes this")
p.press("qq")
print(p.end())"#,
            "0",
        ),
        (
            "a speed plays at once and stands at the end",
            r#"
p = Player("--speed", "64", "--skip-idle", "100ms")
p.until("paused x64 idle≤0.1s  +0:01:03.000  turn 2/2  5/5")
p.press("\x03")
print(p.end())"#,
            "0",
        ),
        (
            "SIGTERM",
            r#"
p = Player()
p.until("q quit")
os.kill(p.pid, signal.SIGTERM)
print(p.end())"#,
            "143",
        ),
        (
            "a terminal that goes away",
            r#"
p = Player(told=False)
p.until("q quit")
print(p.abandoned())"#,
            "129",
        ),
        (
            "another size",
            r#"
p = Player()
p.until("q quit")
p.size(3, 10)
p.until("space play" + " " * 70)
p.press("q")
print(p.end())"#,
            "0",
        ),
    ] {
        let output = in_a_terminal(&dir, steps);
        let stderr = text(&output.stderr);
        assert_eq!(text(&output.stdout).trim(), status, "{name}: {stderr}");
        assert!(output.status.success(), "{name}: {stderr}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
