//! A volume takes no more bytes of values than it was told to, and takes as many.

use super::*;

const CAPACITY: u64 = 2 << 20;

fn volume() -> Volume {
    let mut volume = Volume::new();
    volume.options.capacity_bytes = CAPACITY;
    volume
}

fn is_refused(result: &Result<Prepared, StoreError>) -> bool {
    matches!(result, Err(StoreError::NoSpace { .. }))
}

#[test]
fn values_fill_the_capacity_to_the_last_byte_and_a_removal_gives_it_back_at_once() {
    let volume = volume();
    let store = volume.open();
    let (large, small) = (new_value("large", 1, Some(CAPACITY - 100)), new_value("small", 2, Some(100)));
    put(&store, &large, &content(large.len.unwrap() as usize));
    assert_eq!((store.status().total_bytes, store.status().free_bytes), (CAPACITY, 100));
    put(&store, &small, &content(100));
    assert_eq!(store.status().free_bytes, 0);
    for len in [1, 100_000] {
        let refused = store.begin(new_value("more", 3, Some(len))).err().unwrap();
        assert!(matches!(refused, StoreError::NoSpace { free: 0, .. }), "{refused}");
    }
    put(&store, &new_value("empty", 4, Some(0)), b"");
    store.remove(&[reclaim(&large, Some(DELETED))]).unwrap();
    assert_eq!(store.status().free_bytes, CAPACITY - 100);
    put(&store, &new_value("again", 5, Some(CAPACITY - 100)), &content(CAPACITY as usize - 100));
    drop(store);
    assert_eq!(volume.open().status().free_bytes, 0);
}

#[test]
fn values_on_their_way_count_and_give_it_back_when_they_do_not_arrive() {
    let volume = volume();
    let store = volume.open();
    let begun = store.begin(new_value("a", 1, Some(CAPACITY))).unwrap();
    assert_eq!(store.status().free_bytes, 0);
    assert!(store.begin(new_value("b", 2, Some(1))).is_err());
    drop(begun);
    assert_eq!(store.status().free_bytes, CAPACITY);
}

#[test]
fn values_of_unknown_length_stop_at_the_capacity_and_leave_nothing() {
    let volume = volume();
    let store = volume.open();
    let too_long = put_in_pieces(&store, &new_value("a", 1, None), &content(CAPACITY as usize + 1), 70_000);
    assert!(is_refused(&too_long), "{too_long:?}");
    assert_eq!((store.status().free_bytes, volume.files("blobs").len(), volume.files("tmp").len()), (CAPACITY, 0, 0));
    put(&store, &new_value("b", 2, None), &content(CAPACITY as usize - 10));
    let refused = put_in_pieces(&store, &new_value("c", 3, None), &content(11), 4);
    assert!(is_refused(&refused), "{refused:?}");
    put(&store, &new_value("d", 4, None), &content(10));
    assert_eq!((store.status().free_bytes, store.status().used_bytes), (0, CAPACITY));
}
