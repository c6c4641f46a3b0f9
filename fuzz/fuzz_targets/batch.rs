#![no_main]

kvdb_fuzz::fuzz!("batch");
