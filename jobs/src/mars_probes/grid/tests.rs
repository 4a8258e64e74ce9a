//! Property tests of the rules: commands apply completely or not at all, and a probe stays on its grid.

use proptest::prelude::*;

use super::*;

fn commands(text: &str) -> Commands {
    Commands::parse(text).expect("commands")
}

fn position(x: i32, y: i32, direction: Direction) -> Position {
    Position { x, y, direction }
}

#[test]
fn the_documented_examples_hold() {
    let (grid, start) = (Grid { x: 5, y: 5 }, position(0, 0, Direction::North));
    assert_eq!(apply(grid, start, &commands("MRM")), Ok(position(1, 1, Direction::East)));
    assert_eq!(apply(grid, start, &commands(" mmMrMMm\n")), Ok(position(3, 3, Direction::East)));
    let line = Grid { x: 3, y: 0 };
    assert_eq!(apply(line, start, &commands("M")), Err(OutOfGrid(line)));
    assert_eq!(apply(line, start, &commands("RMMM")), Ok(position(3, 0, Direction::East)));
    assert_eq!(apply(line, start, &commands("RMMMM")), Err(OutOfGrid(line)));
    assert_eq!(apply(line, start, &commands("LM")), Err(OutOfGrid(line)));
    let vast = Grid { x: i32::MAX, y: i32::MAX };
    let corner = position(i32::MAX, i32::MAX, Direction::East);
    assert_eq!(apply(vast, corner, &commands("M")), Err(OutOfGrid(vast)), "no overflow");
}

#[test]
fn the_first_invalid_command_is_named_in_upper_case() {
    for (text, first) in [
        ("MXZ", 'X'),
        ("mxm", 'X'),
        ("MMé", 'É'),
        ("M M", ' '),
        ("Mß", 'S'),
        ("ﬂ", 'F'),
        ("ŉ", 'ʼ'),
        ("M\0", '\0'),
        ("🚀M", '🚀'),
        ("М", 'М'),
        ("日本", '日'),
        ("M\u{301}", '\u{301}'),
    ] {
        assert_eq!(Commands::parse(text), Err(InvalidCommand(first)), "{text:?}");
    }
    assert_eq!(commands("\u{a0} mLr\u{2003}").to_string(), "MLR");
}

fn a_direction() -> impl Strategy<Value = Direction> {
    prop::sample::select(vec![Direction::North, Direction::South, Direction::East, Direction::West])
}

fn a_grid_with_a_probe() -> impl Strategy<Value = (Grid, Position)> {
    (0..12_i32, 0..12_i32, a_direction()).prop_flat_map(|(x, y, direction)| {
        (0..=x, 0..=y).prop_map(move |(at_x, at_y)| (Grid { x, y }, position(at_x, at_y, direction)))
    })
}

proptest! {
    #[test]
    fn a_probe_never_leaves_its_grid((grid, from) in a_grid_with_a_probe(), text in "[MLRmlr]{0,60}") {
        if let Ok(to) = apply(grid, from, &commands(&text)) {
            prop_assert!((0..=grid.x).contains(&to.x) && (0..=grid.y).contains(&to.y), "{to:?}");
        }
    }

    #[test]
    fn four_turns_change_nothing((grid, from) in a_grid_with_a_probe()) {
        for turns in ["LLLL", "RRRR", "LR", "RL"] {
            prop_assert_eq!(apply(grid, from, &commands(turns)), Ok(from));
        }
    }

    /// A command string succeeds if and only if its commands succeed one by one, with the same result.
    #[test]
    fn commands_apply_completely_or_not_at_all(
        (grid, from) in a_grid_with_a_probe(),
        text in "[MLR]{0,40}",
        cut in 0..40_usize,
    ) {
        let one_by_one = text.chars().try_fold(from, |at, c| apply(grid, at, &commands(&c.to_string())));
        prop_assert_eq!(apply(grid, from, &commands(&text)), one_by_one);
        let (first, rest) = text.split_at(cut.min(text.len()));
        let in_two = apply(grid, from, &commands(first)).and_then(|at| apply(grid, at, &commands(rest)));
        prop_assert_eq!(in_two, one_by_one);
    }

    #[test]
    fn commands_are_displayed_in_upper_case(text in "[MLRmlr]{0,40}") {
        prop_assert_eq!(commands(&text).to_string(), text.to_uppercase());
    }

    #[test]
    fn every_text_is_parsed_or_refused(text in any::<String>()) {
        let expected = text.trim().to_uppercase().chars().find(|c| !"MLR".contains(*c));
        prop_assert_eq!(Commands::parse(&text).err().map(|InvalidCommand(first)| first), expected);
    }
}

#[test]
fn hostile_commands_are_refused_by_their_first_character() -> Result<(), hostile::Failure> {
    hostile::check_text(include_str!("../../../../tests/corpora/probe_commands.txt"), "[MLRmlr]{0,60}", |text| {
        let expected = text.trim().to_uppercase().chars().find(|c| !"MLR".contains(*c));
        let parsed = Commands::parse(text);
        prop_assert_eq!(parsed.as_ref().err().map(|InvalidCommand(first)| *first), expected);
        if let Ok(parsed) = parsed {
            prop_assert_eq!(parsed.len(), text.trim().len());
            prop_assert_eq!(Commands::parse(&parsed.to_string()), Ok(parsed.clone()));
            let (grid, from) = (Grid { x: 3, y: 3 }, position(1, 1, Direction::North));
            let on_grid = |at: Position| (0..=3).contains(&at.x) && (0..=3).contains(&at.y);
            prop_assert!(apply(grid, from, &parsed).is_ok_and(on_grid) || parsed.to_string().contains('M'));
        }
        Ok(())
    })
}

/// The largest body, on a stack of 64 KiB. It takes 0.1 s unoptimised; a quadratic algorithm would take hours.
#[test]
fn a_mebibyte_of_commands_takes_linear_time_and_little_stack() {
    let run = || {
        let (grid, from) = (Grid { x: 1, y: 1 }, position(0, 0, Direction::North));
        let round = "MRMRMRMR".repeat(1 << 17);
        assert_eq!(apply(grid, from, &commands(&round)), Ok(from));
        assert_eq!(apply(grid, from, &commands(&format!("{round}LM"))), Err(OutOfGrid(grid)));
    };
    let started = std::time::Instant::now();
    std::thread::Builder::new().stack_size(1 << 16).spawn(run).expect("a thread").join().expect("no overflow");
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}
