//! `--capacity`: how much a volume takes.

use super::{builder, status};
use kvdb_tests::values::value;
use kvdb_tests::{Request, eventually};

#[test]
fn a_volume_takes_as_much_as_it_may_and_a_delete_gives_the_room_back() {
    let cluster = builder().volume_args(["--capacity", "4M"]).start();
    let room = |free: u64| {
        eventually("the status says what is free", || {
            let told = status(&cluster, 0);
            (told["total_bytes"] == 4 << 20 && told["free_bytes"] == free).then_some(())
        });
    };
    room(4 << 20);
    cluster.put("/a", &value(3 << 20, 1)).expect(201);
    room(1 << 20);
    let refused = cluster.follow(&Request::put("/b", value(2 << 20, 2)).expect_continue());
    refused.expect_problem(507, "no_space");
    cluster.follow(&Request::delete("/a")).expect(200);
    room(4 << 20);
    cluster.put("/b", &value(4 << 20, 3)).expect(201);
    room(0);
}
