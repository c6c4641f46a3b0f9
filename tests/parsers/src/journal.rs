//! The journal before the master's database.

use crate::input::{Input, chosen};
use kvdb_master::catalog::outside::{Run, SECTOR, Salt, Writes, file_head, framed, last_run};

const SALT: Salt = [7; 32];
/// Sectors of a file that is made of the bytes.
const SECTORS: usize = 64;

/// Files of whole records with payloads of any kind, over each other, of which then some bytes are changed; or any bytes as a file.
pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let files = if input.byte() == 0 { vec![input.rest().to_vec()] } else { made(&mut input) };
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let Ok(Some((at, run))) = last_run(&files) else { return false };
    assert!(at < files.len() && !run.batches.is_empty());
    assert_eq!(last_run(&[&written(&run)]).unwrap(), Some((0, run)));
    true
}

fn written(run: &Run) -> Vec<u8> {
    let mut file = file_head(&SALT);
    for (number, batch) in (run.first..).zip(&run.batches) {
        file.extend(framed(&SALT, number, run.first, &postcard::to_allocvec(batch).unwrap()).unwrap());
    }
    file
}

fn made(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut files = vec![file_head(&SALT); 2];
    files.iter_mut().for_each(|f| f.resize(SECTORS * SECTOR, 0));
    for _ in 0..input.byte() % 16 {
        let (file, sector) = (usize::from(input.byte() % 2), 1 + usize::from(input.byte()) % (SECTORS - 1));
        let (number, first, len) = (u64::from(input.byte()), u64::from(input.byte()), usize::from(input.byte()));
        let record = framed(&SALT, number, first, input.bytes(len)).unwrap();
        let room = &mut files[file][sector * SECTOR..];
        let len = record.len().min(room.len());
        room[..len].copy_from_slice(&record[..len]);
    }
    for _ in 0..input.byte() % 4 {
        let (file, at, value) = (usize::from(input.byte() % 2), usize::from(input.u16()) % (SECTORS * SECTOR), input.byte());
        files[file][at] = value;
    }
    files
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let writes = Writes(vec![(b"ra".to_vec(), Some(b"1".to_vec())), (b"rb".to_vec(), None)]);
    let payload = postcard::to_allocvec(&writes).unwrap();
    let len = u8::try_from(payload.len()).unwrap();
    let record = |file: u8, sector: u8, number: u8, first: u8| chosen(&[file, sector, number, first, len], &payload);
    let runs = [vec![1, 3], record(0, 0, 1, 1), record(0, 1, 2, 1), record(1, 0, 3, 3), vec![0]].concat();
    let whole = written(&Run { first: 9, batches: vec![writes.clone(), writes] });
    vec![chosen(&[0], whole), runs]
}
