//! What is checked comes from the disk: a page cache that still has the right bytes hides nothing.

use super::{builder, in_quarantine, pass};
use kvdb_tests::power::Disk;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, eventually};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a block of these bytes is in an image, whose blocks are of 4 KiB.
fn block_of(image: &Path, block: &[u8]) -> u64 {
    let file = File::open(image).unwrap();
    let mut part = vec![0; 1 << 20];
    for at in (0..file.metadata().unwrap().len()).step_by(part.len()) {
        let n = file.read_at(&mut part, at).unwrap();
        if let Some(i) = part[..n].chunks(block.len()).position(|b| b == block) {
            return at + (i * block.len()) as u64;
        }
    }
    panic!("the value is not in the image");
}

fn damaged(cluster: &Cluster) -> usize {
    (0..2).map(|i| in_quarantine(cluster, i).len()).sum()
}

#[test]
fn a_bit_that_flips_on_the_disk_is_found_though_the_page_cache_has_the_right_one() {
    let scratch = tempfile::tempdir().unwrap();
    let (image, mount) = (scratch.path().join("image"), scratch.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    let Some(disk) = Disk::new_or_skip(&image, &mount) else { return };
    let cluster = builder().in_dir(disk.path()).start();
    let bytes = value(2 << 20, 9);
    cluster.put("/key", &bytes);
    // Both files are in the page cache from here on.
    for copy in cluster.copies("/key") {
        assert_same(&copy.expect(200).body, &bytes, "a copy");
    }
    pass(&cluster);
    assert_eq!(damaged(&cluster), 0);
    // The disk that the file system is on: what the file system has cached of the file does not change by this.
    let at = block_of(&image, &bytes[1 << 20..(1 << 20) + 4096]);
    let on_disk = OpenOptions::new().write(true).open(&image).unwrap();
    on_disk.write_all_at(&[bytes[1 << 20] ^ 1], at).unwrap();
    on_disk.sync_all().unwrap();
    for i in 0..2 {
        let file = cluster.blob_files(i).pop().unwrap();
        assert_same(&std::fs::read(file).unwrap()[..bytes.len()], &bytes, "what the page cache has");
    }
    let told = pass(&cluster);
    assert_eq!(told.iter().map(|s| s["scrub"]["bad"].as_u64().unwrap()).sum::<u64>(), 1);
    assert_eq!(damaged(&cluster), 1);
    // The scrub has left in the cache what was there.
    let aside = (0..2).flat_map(|i| in_quarantine(&cluster, i)).next().unwrap();
    assert_same(&std::fs::read(aside).unwrap()[..bytes.len()], &bytes, "what the page cache still has");
    eventually("the bad copy was made anew", || {
        let copies = cluster.copies("/key");
        (copies.iter().filter(|c| c.status == 200 && c.body == bytes).count() == 2).then_some(())
    });
    drop(cluster);
    drop(disk);
}
