//! The three kinds of address, each a type of its own so that no translation step is forgotten.

use core::fmt;

/// log2 of the monitor's page size.
pub const PAGE_SHIFT: u32 = 12;
/// The monitor's page size in bytes: the smallest MIPS64 TLB page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The page number: the address without its offset.
            #[must_use]
            pub const fn page(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }

            /// The offset inside the page, in bytes.
            #[must_use]
            pub const fn offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The address `bytes` further on; `None` past the end of the address space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// Guest-virtual: what a guest's instruction names.
    Gva
}
address! {
    /// Guest-physical: what a guest takes for its machine's physical address.
    Gpa
}
address! {
    /// Machine-physical: what the real machine's bus sees. Each byte has one canonical `Mpa`; RAM
    /// starts at [`crate::map::RAM_BASE`].
    Mpa
}
