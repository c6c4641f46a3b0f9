mod documented;
mod durability;
mod engine_contract;
mod listing;
mod model;
mod rebuilt;
mod semantics;
mod support;
