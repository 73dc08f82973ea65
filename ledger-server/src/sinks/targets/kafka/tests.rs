use super::*;

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
