//! Client-side service discovery, load balancing and retry for tonic.

mod backoff;
mod error;
mod instance;
mod registrar;
pub mod registry;

pub use self::{
    error::{BoxError, chain},
    instance::{Instance, InvalidInstance},
    registrar::{Registrar, RegistrationState},
};
