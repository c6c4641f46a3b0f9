//! Buffers whose address suits O_DIRECT, and a pool of them.

use std::sync::{Arc, Mutex, PoisonError};

/// Size of a buffer: one write of content, in bytes.
pub const BUFFER_BYTES: usize = 1 << 20;
/// Size of a buffer with the room after it for what follows the last content, so that this takes no write of its own, in bytes.
pub const LAST_WRITE_BYTES: usize = BUFFER_BYTES + BLOCK_BYTES;
/// What addresses, lengths and offsets of O_DIRECT writes are multiples of, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Most buffers that wait in a pool for their next use.
const MAX_IDLE_BUFFERS: usize = 16;

const _: () = assert!(BUFFER_BYTES.is_multiple_of(BLOCK_BYTES));

/// [`BUFFER_BYTES`] of memory, and some more for a last write, at a multiple of [`BLOCK_BYTES`].
///
/// It is a part of a somewhat larger allocation, which needs no unsafe code. The allocation never
/// grows, so the address stays.
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    pool: Arc<BufferPool>,
}

impl AlignedBuffer {
    /// Takes another one of the pool, with arbitrary content, in this one's place; this one comes back.
    pub fn exchange(&mut self) -> Self {
        let other = self.pool.take();
        std::mem::replace(self, other)
    }

    /// All that content takes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + BUFFER_BYTES]
    }

    /// The same, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + BUFFER_BYTES]
    }

    /// The [`LAST_WRITE_BYTES`].
    pub fn with_room(&self) -> &[u8] {
        &self.memory[self.start..self.start + LAST_WRITE_BYTES]
    }

    /// The same, to write to.
    pub fn with_room_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + LAST_WRITE_BYTES]
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.memory));
    }
}

/// Keeps buffers for their next use.
#[derive(Default)]
pub struct BufferPool {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// A buffer, with arbitrary content.
    pub fn take(self: &Arc<Self>) -> AlignedBuffer {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = idle.unwrap_or_else(|| vec![0; LAST_WRITE_BYTES + BLOCK_BYTES]);
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "a byte address can always be aligned");
        AlignedBuffer { memory, start, pool: Arc::clone(self) }
    }

    fn put(&self, memory: Vec<u8>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_BUFFERS {
            idle.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_used_again_and_not_hoarded() {
        let pool = Arc::new(BufferPool::default());
        let all: Vec<_> = (0..MAX_IDLE_BUFFERS + 3).map(|_| pool.take()).collect();
        for b in &all {
            assert_eq!(b.bytes().as_ptr().align_offset(BLOCK_BYTES), 0);
            assert_eq!((b.bytes().len(), b.with_room().len()), (BUFFER_BYTES, LAST_WRITE_BYTES));
        }
        drop(all);
        assert_eq!(pool.idle.lock().unwrap().len(), MAX_IDLE_BUFFERS);
        let _one = pool.take();
        assert_eq!(pool.idle.lock().unwrap().len(), MAX_IDLE_BUFFERS - 1);
    }
}
