//! A session on a screen: what a key does, and what is drawn. Functions of its state; the terminal is [`super::terminal`]'s.
//!
//! Invariant: all text of records is drawn as [`super::text`] and `observe` clean it.

use std::time::Duration;

use chaperone_crds::{
    record::Record,
    summary::{Verdict, foremost},
};
use chaperone_index::{
    query::Query,
    timeline::{Offset, Place},
};
use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Borders, Clear, Paragraph, Wrap},
};

use super::{
    pace::Pace,
    player::{Move, Player},
    text::{Look, cut, entry, heading, mark},
    wants,
};
use crate::{observe::render, output::clean};

/// Longest words that are typed, in characters.
const MAX_TYPED: usize = 200;
/// Lowest body that is parted into a list and a record.
const MIN_PARTED: u16 = 8;
const KEYS: &str = "space play  ↑↓ step  ←→ turn  +- speed  / search  f filter  ? help  q quit";
const HELP: &str = "\
space      play, or pause
↓ j  ↑ k   next record, the one before
→ l  ← h   next turn, the one before
g  G       first record, last
+  -       twice as fast, half as fast
i          skip idle time, or not
/          search words; n again, N backwards
f          show only records with these words
           (none: all again)
PgDn PgUp  scroll the record
q          quit

! denied   ~ would be   ? gap
any key closes this";

/// Whether it goes on after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Quit,
}

/// A session, and what of it is on the screen.
pub(super) struct Screen {
    title: String,
    items: Vec<Item>,
    player: Player,
    look: Look,
    prompt: Option<Prompt>,
    searched: Option<Query>,
    filtered: String,
    /// Said until the next key.
    message: String,
    is_help: bool,
    scroll: u16,
}

struct Item {
    place: Place,
    line: Vec<u8>,
    verdict: Option<Verdict>,
    summary: String,
}

struct Prompt {
    asks: Asks,
    typed: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Search,
    Filter,
}

impl Item {
    fn new(place: Place, line: Vec<u8>, look: Look) -> Self {
        // A record of a later version is shown as it stands.
        let (verdict, text) = match Record::read(&line) {
            Ok(record) => (foremost(&record), render(&record, false)),
            Err(_) => (None, cut(&String::from_utf8_lossy(&line), look.body_chars)),
        };
        let summary = format!("{} {} {text}", mark(verdict), Offset(place.at));
        Self {
            place,
            line,
            verdict,
            summary,
        }
    }

    fn style(&self) -> Style {
        match self.verdict {
            Some(Verdict::Deny) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            Some(Verdict::WouldDeny) => Style::new().fg(Color::Yellow),
            Some(Verdict::Gap) => Style::new().fg(Color::Magenta),
            Some(Verdict::Allow) | None => Style::new(),
        }
    }
}

impl Screen {
    /// None where there is no record.
    pub(super) fn new(
        session: &str,
        records: Vec<(Place, Vec<u8>)>,
        pace: Option<Pace>,
        look: Look,
    ) -> Option<Self> {
        let player = Player::new(records.iter().map(|(place, _)| *place), pace)?;
        // Colours are the screen's here.
        let look = Look {
            color: false,
            ..look
        };
        let records = records.into_iter();
        Some(Self {
            title: clean(session).into_owned(),
            items: records
                .map(|(place, line)| Item::new(place, line, look))
                .collect(),
            player,
            look,
            prompt: None,
            searched: None,
            filtered: String::new(),
            message: String::new(),
            is_help: false,
            scroll: 0,
        })
    }

    /// The clock says `now`. Whether that changes what is drawn.
    pub(super) fn tick(&mut self, now: Duration) -> bool {
        let before = self.player.current();
        let was_playing = self.player.is_playing();
        self.player.tick(now);
        if self.player.current() != before {
            self.scroll = 0;
        }
        was_playing
    }

    pub(super) fn is_playing(&self) -> bool {
        self.player.is_playing()
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::GoOn;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                _ => Next::GoOn,
            };
        }
        self.message.clear();
        if self.is_help {
            self.is_help = false;
            return Next::GoOn;
        }
        match self.prompt.take() {
            Some(prompt) => self.typed(prompt, key.code),
            None => return self.pressed(key.code),
        }
        Next::GoOn
    }

    fn pressed(&mut self, code: KeyCode) -> Next {
        let step = match code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char(' ') => Move::PlayOrPause,
            KeyCode::Down | KeyCode::Char('j') => Move::Next,
            KeyCode::Up | KeyCode::Char('k') => Move::Back,
            KeyCode::Right | KeyCode::Char('l') => Move::NextTurn,
            KeyCode::Left | KeyCode::Char('h') => Move::PreviousTurn,
            KeyCode::Home | KeyCode::Char('g') => Move::First,
            KeyCode::End | KeyCode::Char('G') => Move::Last,
            KeyCode::Char('+' | '=') => Move::Faster,
            KeyCode::Char('-') => Move::Slower,
            KeyCode::Char('i') => Move::SkipIdle,
            other => {
                self.asked(other);
                return Next::GoOn;
            }
        };
        let before = self.player.current();
        self.player.go(step);
        if self.player.current() != before {
            self.scroll = 0;
        }
        Next::GoOn
    }

    fn asked(&mut self, code: KeyCode) {
        let prompt = |asks| {
            let typed = String::new();
            Some(Prompt { asks, typed })
        };
        match code {
            KeyCode::Char('/') => self.prompt = prompt(Asks::Search),
            KeyCode::Char('f') => self.prompt = prompt(Asks::Filter),
            KeyCode::Char('n') => self.again(false),
            KeyCode::Char('N') => self.again(true),
            KeyCode::Char('?') => self.is_help = true,
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(5),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(5),
            _ => {}
        }
    }

    fn typed(&mut self, mut prompt: Prompt, code: KeyCode) {
        match code {
            KeyCode::Esc => return,
            KeyCode::Enter => return self.answer(&prompt),
            KeyCode::Backspace => {
                prompt.typed.pop();
            }
            KeyCode::Char(c) if prompt.typed.chars().count() < MAX_TYPED => prompt.typed.push(c),
            _ => {}
        }
        self.prompt = Some(prompt);
    }

    fn answer(&mut self, prompt: &Prompt) {
        let is_all = prompt.typed.trim().is_empty();
        match (prompt.asks, is_all) {
            (Asks::Search, true) => self.again(false),
            (Asks::Filter, true) => {
                self.player.filter(|_| true);
                self.filtered.clear();
            }
            (asks, false) => match Query::parse([("q", prompt.typed.as_str())]) {
                Err(error) => self.message = clean(&error.to_string()).into_owned(),
                Ok(query) if asks == Asks::Search => {
                    self.searched = Some(query);
                    self.again(false);
                }
                Ok(query) => self.filter(&query, &prompt.typed),
            },
        }
    }

    fn filter(&mut self, query: &Query, typed: &str) {
        let items = &self.items;
        let matches = |entry: usize| items.get(entry).is_some_and(|item| has(item, query));
        match self.player.filter(matches) {
            true => self.filtered = clean(typed).into_owned(),
            false => self.message = "no record has these words".to_owned(),
        }
        self.scroll = 0;
    }

    fn again(&mut self, back: bool) {
        let Some(query) = &self.searched else {
            self.message = "nothing was searched for; / asks".to_owned();
            return;
        };
        let items = &self.items;
        let matches = |entry: usize| items.get(entry).is_some_and(|item| has(item, query));
        if !self.player.find(back, matches) {
            self.message = "no record that is shown has these words".to_owned();
        }
        self.scroll = 0;
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let [head, body, foot] = parts(area);
        let head_style = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Paragraph::new(self.head()).style(head_style), head);
        let is_parted = body.height >= MIN_PARTED;
        let list_height = match is_parted {
            true => body.height.saturating_mul(3) / 5,
            false => body.height,
        };
        let list = Rect {
            height: list_height,
            ..body
        };
        frame.render_widget(Paragraph::new(self.rows(list.height.into())), list);
        if is_parted {
            let rest = Rect {
                y: body.y.saturating_add(list_height),
                height: body.height.saturating_sub(list_height),
                ..body
            };
            frame.render_widget(self.record(), rest);
        }
        frame.render_widget(Paragraph::new(self.foot()), foot);
        if self.is_help {
            let block = Block::new().borders(Borders::ALL).title(" keys ");
            let help = Rect::new(area.x, area.y, 50, 16).intersection(area);
            frame.render_widget(Clear, help);
            frame.render_widget(Paragraph::new(HELP).block(block), help);
        }
    }

    /// Where it stands.
    fn head(&self) -> String {
        let (shown, at) = self.player.shown();
        let turn = |item: Option<&Item>| item.map_or(0, |item| item.place.turn.number);
        let state = match self.player.is_playing() {
            true => "playing",
            false => "paused",
        };
        let idle = match self.player.longest() {
            Some(longest) => format!(" idle≤{}s", longest.as_secs_f64()),
            None => String::new(),
        };
        let filtered = match self.filtered.is_empty() {
            true => String::new(),
            false => format!("  only {}", self.filtered),
        };
        format!(
            "{state} x{}{idle}  {}  turn {}/{}  {}/{}{filtered}  {}",
            self.player.speed(),
            Offset(Some(self.player.position())),
            turn(self.items.get(self.player.current())),
            turn(self.items.last()),
            at.saturating_add(1),
            shown.len(),
            self.title,
        )
    }

    /// As many rows as there is room for, the current record among them; what is yet to come is dim.
    fn rows(&self, height: usize) -> Vec<Line<'_>> {
        let (shown, at) = self.player.shown();
        let from = at.saturating_sub(height);
        let mut rows = Vec::new();
        let mut current = 0;
        let mut turn = None;
        for (index, entry) in shown.iter().enumerate().skip(from).take(height * 2 + 1) {
            let Some(item) = self.items.get(*entry) else {
                continue;
            };
            let is_to_come = index > at;
            let dim = |style: Style| match is_to_come {
                true => style.add_modifier(Modifier::DIM),
                false => style,
            };
            if turn.replace(item.place.turn.number) != Some(item.place.turn.number) {
                let style = dim(Style::new().fg(Color::Green));
                rows.push(Line::styled(heading(item.place.turn, self.look), style));
            }
            let mut style = dim(item.style());
            if index == at {
                current = rows.len();
                style = style.add_modifier(Modifier::REVERSED);
            }
            rows.push(Line::styled(item.summary.as_str(), style));
        }
        let least = rows.len().saturating_sub(height);
        let start = current.saturating_sub(height / 2).min(least);
        rows.into_iter().skip(start).take(height).collect()
    }

    /// The current record with what it has of bodies.
    fn record(&self) -> Paragraph<'_> {
        let item = self.items.get(self.player.current());
        let text = item.map(|item| entry(&item.line, item.place, self.look));
        Paragraph::new(text.unwrap_or_default())
            .wrap(Wrap { trim: false })
            .scroll((self.scroll, 0))
            .block(Block::new().borders(Borders::TOP))
    }

    fn foot(&self) -> String {
        match &self.prompt {
            Some(prompt) => {
                let asks = match prompt.asks {
                    Asks::Search => "/",
                    Asks::Filter => "only: ",
                };
                format!("{asks}{}_", clean(&prompt.typed))
            }
            None if self.message.is_empty() => KEYS.to_owned(),
            None => self.message.clone(),
        }
    }
}

fn has(item: &Item, query: &Query) -> bool {
    let record = serde_json::from_slice(&item.line);
    record.is_ok_and(|record| wants(query, &record))
}

/// The first line, the last, and what is between.
fn parts(area: Rect) -> [Rect; 3] {
    let head = Rect {
        height: area.height.min(1),
        ..area
    };
    let foot = Rect {
        y: area.y.saturating_add(area.height.saturating_sub(1)),
        ..head
    };
    let body = Rect {
        y: area.y.saturating_add(1),
        height: area.height.saturating_sub(2),
        ..area
    };
    [head, body, foot]
}

#[cfg(test)]
mod tests;
