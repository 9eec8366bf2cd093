//! Several registries as one.
//!
//! * [`Union`] lists the instances of all its registries: for moving from one registry to another.
//! * [`OrElse`] uses a second registry while the first lists nothing or has not answered.
//!
//! An address has one ID for as long as it is listed, whichever registry lists it. A channel identifies a
//! connection by ID and address, so an instance that moves from one registry to the other keeps its
//! connection.

mod addresses;
mod instancer;
mod registry;
mod rule;

pub use self::registry::{OrElse, Union};
