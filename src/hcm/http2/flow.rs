//! Flow control of what we receive (RFC 9113 section 5.2): a sender gets back what was read.

/// The window of the connection or of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Bytes that may be in flight.
    size: u32,
    /// Bytes that the sender may still send.
    left: u32,
    /// Bytes that were read and not yet given back.
    owed: u32,
}

impl Window {
    pub(super) fn new(size: u32) -> Self {
        Self { size, left: size, owed: 0 }
    }

    /// So many bytes came; `None` if they are more than were allowed.
    pub(super) fn take(&mut self, length: u32) -> Option<()> {
        self.left = self.left.checked_sub(length)?;
        Some(())
    }

    /// So many bytes were read; returns what to give back now. That is nothing while it is not much.
    pub(super) fn read(&mut self, length: usize) -> Option<u32> {
        // No more can have been read than came.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.owed = self.owed.saturating_add(length).min(self.size - self.left);
        if self.owed == 0 || self.owed < self.size / 2 {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_gets_back_what_was_read() {
        let mut window = Window::new(100);
        assert_eq!(window.take(60), Some(()));
        assert_eq!(window.read(49), None);
        assert_eq!(window.read(1), Some(50));
        assert_eq!(window.take(90), Some(()));
        assert_eq!(window.take(1), None);
        // Never more than came.
        assert_eq!(window.read(usize::MAX), Some(100));
        assert_eq!(window.read(5), None);
    }
}
