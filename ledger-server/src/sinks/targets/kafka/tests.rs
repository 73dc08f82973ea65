use super::*;

fn record(leaf: u64, bytes: usize) -> Outgoing {
    Outgoing {
        leaf,
        about: crate::sinks::target::About {
            stream: "s".to_owned(),
            seq: leaf,
            ..Default::default()
        },
        line: "x".repeat(bytes),
    }
}

#[test]
fn records_are_batches_that_a_topic_takes_and_a_longer_one_is_alone() {
    let batch: Vec<_> = [10, 10, 5_000, 10, 10, 10]
        .into_iter()
        .zip(0..)
        .map(|(bytes, leaf)| record(leaf, bytes))
        .collect();
    let places: Vec<_> = (0..batch.len()).collect();
    let found = chunks(&places, &batch, 2 * (10 + AROUND));
    assert_eq!(found, [vec![0, 1], vec![2], vec![3, 4], vec![5]]);
    assert!(chunks(&[], &batch, 1).is_empty());
}

#[test]
fn numbers_of_messages_go_on_with_zero_after_the_last() {
    assert_eq!(after(0, 3), 3);
    assert_eq!(after(i32::MAX, 1), 0);
    assert_eq!(after(i32::MAX - 1, 5), 3);
}

#[test]
fn a_batch_in_doubt_keeps_its_number_unless_it_is_there() {
    let doubted = Producer {
        id: 7,
        epoch: 0,
        sequence: 10,
    };
    let settled = |has_doubted, producer| {
        let mut partition = Partition {
            end: Some(3),
            sequence: 10,
            doubt: Some((doubted, 5)),
        };
        let held = held::Held {
            end: 8,
            has_doubted,
            ..Default::default()
        };
        partition.settle(&held, Some(producer));
        assert_eq!((partition.end, partition.doubt), (Some(8), None));
        partition.sequence
    };
    assert_eq!(settled(true, (7, 0)), 15);
    assert_eq!(settled(false, (7, 0)), 10);
    assert_eq!(settled(true, (8, 0)), 10, "of another producer");
}
