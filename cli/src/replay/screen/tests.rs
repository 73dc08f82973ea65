use ratatui::{Terminal, backend::TestBackend};

use super::*;
use chaperone_index::timeline::Turn;

fn record(resource: &str) -> Vec<u8> {
    let action = if resource.contains("/no") {
        "Deny"
    } else {
        "Allow"
    };
    format!(
        r#"{{"v":"chaperone.dev/v1","stream":"s","seq":7,"prev":"00","time":"2026-11-24T10:11:12.345678Z","kind":"http","agent":{{"namespace":"agents","pod":"claude"}},
        "operation":{{"protocol":"http","verb":"GET","resource":"{resource}"}},"http":{{"status":200,"responseBody":{{"text":"body of {resource} \u001b[2J"}}}},
        "decision":{{"action":"{action}","mode":"Enforce","revision":"00","reason":"default"}}}}"#
    )
    .into_bytes()
}

fn screen() -> Screen {
    let records = ["a/one", "a/two", "a/no", "b/four"]
        .iter()
        .zip([0, 1, 1, 2]);
    let records = records.enumerate().map(|(index, (resource, number))| {
        let at = Some(index as i64 * 1_000_000);
        let turn = Turn { number, at };
        (Place { at, turn }, record(&format!("https://{resource}")))
    });
    let look = Look {
        color: true,
        body_chars: 500,
    };
    Screen::new("s\u{1b}1", records.collect(), None, look).unwrap()
}

/// What is on the screen, line by line.
fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let lines = cells.chunks(usize::from(width.max(1)));
    lines
        .map(|line| line.concat().trim_end().to_owned())
        .collect()
}

fn press(screen: &mut Screen, keys: &str) -> Next {
    let mut next = Next::GoOn;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{8}' => KeyCode::Backspace,
            '\u{1b}' => KeyCode::Esc,
            '→' => KeyCode::Right,
            '↓' => KeyCode::Down,
            other => KeyCode::Char(other),
        };
        next = screen.key(KeyEvent::from(code));
    }
    next
}

#[test]
fn a_session_fits_a_terminal_of_80_columns() {
    let mut screen = screen();
    press(&mut screen, "↓↓");
    let lines = drawn(&screen, 80, 24);
    assert_eq!(
        lines[0],
        "paused x1  +0:00:02.000  turn 1/2  3/4  s\\u{1b}1"
    );
    assert_eq!(lines[1], "== before the first turn ==");
    assert_eq!(lines[3], "== turn 1  +0:00:01.000 ==");
    let denied = "! +0:00:02.000 10:11:12.345 agents/claude DENY       GET https://a/no  200 ↑0 ↓0";
    assert_eq!(lines[5], denied);
    assert_eq!(lines[6], "== turn 2  +0:00:03.000 ==");
    assert_eq!(lines[15], denied, "the record itself, below the list");
    assert_eq!(lines[16], "      response  body of https://a/no \\u{1b}[2J");
    assert_eq!(lines[23], KEYS);
    assert!(KEYS.chars().count() <= 80);
}

#[test]
fn no_size_is_too_small() {
    let mut screen = screen();
    for (width, height) in [(0, 0), (1, 1), (3, 2), (20, 5), (40, 10), (300, 100)] {
        for keys in ["", "↓", "?", " ", "/x"] {
            press(&mut screen, keys);
            let lines = drawn(&screen, width, height);
            let has_control = lines.iter().any(|l| l.contains(|c: char| c.is_control()));
            assert!(!has_control, "{lines:?}");
        }
        press(&mut screen, "\u{1b}");
    }
    let lines = drawn(&screen, 20, 5);
    assert!(lines[0].starts_with("paused x1"), "{lines:?}");
    assert!(lines[4].starts_with("space play"), "{lines:?}");
}

#[test]
fn the_current_record_is_always_in_sight() {
    let look = Look {
        color: false,
        body_chars: 0,
    };
    let records = (0..200).map(|number| {
        let at = Some(0);
        let turn = Turn { number, at };
        let resource = format!("https://a/{number}.");
        (Place { at, turn }, record(&resource))
    });
    let mut screen = Screen::new("s", records.collect(), None, look).unwrap();
    for number in 0..200 {
        let lines = drawn(&screen, 120, 7);
        let current = format!("/{number}.");
        assert!(lines.iter().any(|l| l.contains(&current)), "{lines:?}");
        press(&mut screen, "↓");
    }
}

#[test]
fn words_are_searched_and_filtered_by() {
    let mut screen = screen();
    let at = |screen: &Screen| screen.player.current();
    assert_eq!(press(&mut screen, "/fouur\u{8}\u{8}r"), Next::GoOn);
    assert_eq!(drawn(&screen, 80, 24)[23], "/four_");
    press(&mut screen, "\n");
    assert_eq!(at(&screen), 3);
    press(&mut screen, "/body\n");
    assert_eq!(at(&screen), 0, "round the end");
    press(&mut screen, "N");
    assert_eq!(at(&screen), 3);
    press(&mut screen, "/nowhere\n");
    assert_eq!(at(&screen), 3);
    assert_eq!(
        drawn(&screen, 80, 24)[23],
        "no record that is shown has these words"
    );
    press(&mut screen, "fa*\n");
    assert!(screen.message.contains("3 letters"), "{}", screen.message);
    press(&mut screen, "f\"a two\"\n");
    assert_eq!(at(&screen), 1);
    assert!(drawn(&screen, 80, 24)[0].contains("turn 1/2  1/1  only \"a two\""));
    press(&mut screen, "fq\u{1b}f\n");
    assert_eq!(screen.player.shown().0.len(), 4, "q was typed, not pressed");
    press(&mut screen, "fxyzzy\n");
    assert_eq!(screen.player.shown().0.len(), 4);
    assert_eq!(screen.message, "no record has these words");
}

#[test]
fn time_and_keys_move_it_and_q_ends_it() {
    let mut screen = screen();
    assert!(!screen.tick(Duration::from_secs(1)), "nothing to draw");
    press(&mut screen, " +i");
    assert!(screen.tick(Duration::from_secs(2)));
    let head = drawn(&screen, 80, 24)[0].clone();
    assert!(
        head.starts_with("playing x2 idle≤2s  +0:00:02.000"),
        "{head}"
    );
    press(&mut screen, " →");
    assert_eq!(screen.player.current(), 3);
    press(&mut screen, "?");
    assert!(drawn(&screen, 80, 24)[1].contains("play, or pause"));
    assert_eq!(press(&mut screen, "q"), Next::GoOn, "it closes the help");
    assert_eq!(press(&mut screen, "q"), Next::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut screen, "/");
    assert_eq!(screen.key(interrupt), Next::Quit);
}
